"""One simulated worker process: the real engine, with what a process would have around it."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, cast

from perdure.journal.keys import Keys
from perdure.journal.store import Store
from perdure.schemas.errors import PerdureError
from perdure.worker.application import Application
from perdure.worker.attempts import AttemptSettings
from perdure.worker.engine import Engine, EngineSettings
from perdure.worker.handler_timers import prepare_loop
from perdure.worker.leases import LoopRenewal

from .programs import Outside
from .versions import Change
from .virtual_barrier import VirtualBarrier
from .virtual_broker import VirtualBroker
from .virtual_kafka import VirtualKafka
from .virtual_loop import Scheduler, VirtualClock, VirtualLoop
from .virtual_redis import StoreLink, VirtualRedis

NAMESPACE = "sim"
LEASE_MS = 1_500
GRACE_MS = 300

NEWER = "new"
"""What the name of a worker ends with whose code is the newer."""

RESTART_S = 0.05
"""A process that ended by itself is started again that soon: by a supervisor."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all workers of a simulation share."""

    scheduler: Scheduler
    world: VirtualLoop
    redis: VirtualRedis
    kafka: VirtualKafka
    application: Application
    chance: random.Random
    outside: Outside
    on_error: Callable[[str, dict[str, Any]], None]


class WorkerLoop(VirtualLoop):
    """The loop of a worker; handlers find the world outside through it, and which version of them it runs."""

    outside: Outside
    change: Change | None = None


class VirtualWorker:
    """A worker by number, over all its lives.

    Args:
        around: What it works with.
        number: Which one.
    """

    def __init__(self, around: Surroundings, number: int) -> None:
        self.number = number
        self.clock = VirtualClock(around.scheduler)
        self.loop: WorkerLoop | None = None
        self.wanted = True
        self.change: Change | None = None
        """What its next life's code does otherwise than that of others."""
        self.prepare: Callable[[Engine], None] = lambda engine: None
        self.graves: list[WorkerLoop] = []
        self._around = around
        self._lives = 0
        self._engine: Engine | None = None
        self.link: StoreLink | None = None
        self.barrier: VirtualBarrier | None = None
        self.broker: VirtualBroker | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a process now."""
        return self.loop is not None

    def start(self) -> None:
        """Begin a life, unless there is one."""
        if self.alive or not self.wanted:
            return
        around = self._around
        self._lives += 1
        name = f"w{self.number}.{self._lives}{NEWER if self.change else ''}"
        loop = self.loop = WorkerLoop(around.scheduler, name, around.on_error)
        loop.outside, loop.change = around.outside, self.change
        channel = Keys(NAMESPACE, slots=around.redis.store.slots).hints(name)
        self.link = StoreLink(around.redis, loop, channel=channel)
        self.barrier = VirtualBarrier(around.redis, loop)
        self.broker = VirtualBroker(around.kafka, loop)
        loop.call_soon(self._begin, name)

    def _begin(self, name: str) -> None:
        assert self.loop is not None, "a life has begun"
        prepare_loop(self.loop)
        self.loop.create_task(self._live(name))

    async def _live(self, name: str) -> None:
        around, broker, link, barrier = self._around, self.broker, self.link, self.barrier
        assert broker is not None, "a life has begun"
        assert link is not None, "a life has begun"
        assert barrier is not None, "a life has begun"
        store = cast("Store", link)
        engine = self._engine = Engine(
            around.application,
            settings_of(name),
            store=store,
            broker=broker,
            barrier=barrier,
            renewal=LoopRenewal(store, clock=self.clock, lease_ms=LEASE_MS),
            clock=self.clock,
            new_token=lambda: f"{around.chance.getrandbits(64):016x}",
            # Never used: the loop runs inline what asks for a thread.
            threads=cast("Executor", None),
            facts={},
        )
        self.prepare(engine)
        link.listen(engine.hint, engine.check_all)
        assert self.loop is not None, "a life has begun"
        keeper = self.loop.create_task(broker.keep())
        try:
            await engine.run()
        except PerdureError:
            # The store did not answer while it started: it ends, and is started again.
            pass
        finally:
            keeper.cancel()
        await broker.leave()
        self.loop.call_soon(self._ended)

    def _ended(self) -> None:
        self.end()
        self._around.world.call_later(RESTART_S, self.start)

    def deploy(self, change: Change | None, *, gently: bool) -> None:
        """Replace the process by one whose code has that change."""
        self.change = change
        if gently and self._engine is not None:
            self.stop()
        elif self.alive:
            self.end()
            self._around.world.call_later(RESTART_S, self.start)

    def stop(self) -> None:
        """SIGTERM."""
        if self.loop is not None and self._engine is not None:
            self.loop.call_soon(self._engine.stop)

    def end(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        loop = self.loop
        if loop is None or self.link is None or self.barrier is None or self.broker is None:
            return
        loop.end()
        self._around.kafka.watch(self.broker)
        self.link.close()
        self.barrier.close()
        self.graves.append(loop)
        self.loop = self._engine = None

    def block(self, blocked: bool, *, store: bool, kafka: bool) -> None:
        """Cut it off from the servers, or let it reach them again."""
        if self.link is None or self.barrier is None or self.broker is None or not self.alive:
            return
        if store:
            self.link.blocked = self.barrier.blocked = blocked
            if blocked:
                self.link.cut()
                self.barrier.cut()
        if kafka:
            self.broker.blocked = blocked
            if blocked:
                self._around.kafka.watch(self.broker)


def settings_of(name: str) -> EngineSettings:
    """How simulated workers work: short leases and little patience, so that much happens in a short time."""
    return EngineSettings(
        namespace=NAMESPACE,
        worker=name,
        concurrency=6,
        lease_ms=LEASE_MS,
        grace_ms=GRACE_MS,
        record_bytes_max=100_000,
        reply_durable=False,
        attempts=AttemptSettings(
            lease_ms=LEASE_MS,
            inactivity_ms=300,
            always_replay=False,
            journal_entries_max=1_000,
            payload_bytes_max=100_000,
        ),
    )
