"""One simulation: from a schedule to what was wrong. In one thread, in virtual time, the same for the same schedule."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import Claim
from perdure.schemas.errors import DecodeError
from perdure.schemas.ids import InvocationId
from perdure.schemas.records import decode_invocation
from perdure.worker.application import Application
from perdure.worker.broker import Partition
from perdure.worker.topics import dead_letter_topic, is_resume_topic, resume_topic, service_topic

from . import programs
from .at_rest import at_rest, left_behind, records_of, wrong_at_rest
from .clients import Clients
from .divergence import Replays
from .invariants import Auditor
from .nemesis import Nemesis
from .schedules import CONTROLS, SPAN_S, Event, Schedule
from .virtual_kafka import VirtualKafka
from .virtual_loop import Scheduler, VirtualClock, VirtualLoop
from .virtual_redis import LATE_S, Executed, StoreClock, VirtualRedis
from .virtual_worker import NAMESPACE, Surroundings, VirtualWorker

SLOTS = 2
PARTITIONS = 2

QUIET_S_MAX = 300.0
"""After the last event everything ends within that time, or it never does: what waits longest is a resume record that
was lost again and again."""

LOOK_S = 0.25
"""Between two looks whether all is quiet."""

UNPAUSE_S = 2.0
"""Between two looks of the operator who lets paused invocations go on, in the version of the code that they need."""

FORGETS_EVERY = 4
"""Of so many seeds one goes on until retention has ended: that takes as long as all before it."""

SPREAD_EVERY = 3
"""Of so many seeds one has a store whose slots are on several nodes: there a callee's end, and that its caller knows
of it, are two transitions."""

RETENTION_MS = 40 * 86_400_000
"""Longer than anything is kept."""

FORGOTTEN_S_MAX = 5.0
"""Within that time everything is swept once: who sweeps what is known anew with every heartbeat of the workers."""

STEPS_MAX = 400_000
"""Callbacks of one simulation; more is something that spins."""


@cache
def _application() -> Application:
    return programs.application()


@dataclass(slots=True)
class Report:
    """What came of a simulation.

    Attributes:
        schedule: Which.
        violations: What was wrong, in the order of finding; empty where nothing was.
        trace: A digest of all that the store executed.
        steps: Callbacks that were run.
        virtual_s: How long it took in virtual time.
    """

    schedule: Schedule
    violations: list[str] = field(default_factory=list)
    trace: str = ""
    steps: int = 0
    virtual_s: float = 0.0


def simulate(schedule: Schedule, plant: Plant | None = None) -> Report:
    """Run a schedule to its end, or to the first thing that is wrong."""
    return Simulation(schedule, plant or Plant()).run()


class Plant:
    """What a simulation is made of; a planted bug makes some of it otherwise."""

    def store(self, clock: StoreClock, publish: Callable[[str, bytes], None], *, one_node: bool) -> MemoryStore:
        """Make an empty store."""
        return MemoryStore(clock, slots=SLOTS, namespace=NAMESPACE, publish=publish, one_node=one_node)

    def worker(self, worker: VirtualWorker) -> VirtualWorker:
        """Change a worker before its first life."""
        return worker

    def planted(self) -> contextlib.AbstractContextManager[None]:
        """Change for the time of a simulation what is neither."""
        return contextlib.nullcontext()


class Simulation:
    """All parts of one simulation.

    Args:
        schedule: What happens.
        plant: What it is made of.
    """

    def __init__(self, schedule: Schedule, plant: Plant) -> None:
        self._schedule = schedule
        self._plant = plant
        self._chance = random.Random(f"simulation {schedule.seed}")
        self._report = Report(schedule)
        self._scheduler = Scheduler(f"turns {schedule.seed}")
        self._digest = hashlib.blake2b(digest_size=8)
        self._world = VirtualLoop(self._scheduler, "world", self._failed)
        machine = VirtualClock(self._scheduler)
        self._auditor = Auditor(self._wrong)
        self._store_clock = StoreClock(machine)
        self._redis = VirtualRedis(
            self._world,
            self._store_clock,
            make=partial(plant.store, one_node=schedule.seed % SPREAD_EVERY != 0),
            chance=self._chance,
            watch=self._executed,
        )
        services = _application().services
        topics = {service_topic(NAMESPACE, name): PARTITIONS for name in services}
        topics |= {resume_topic(NAMESPACE, name): PARTITIONS for name in services}
        topics[dead_letter_topic(NAMESPACE)] = 1
        self._kafka = VirtualKafka(self._world, topics, chance=self._chance, on_commit=self._committed)
        around = Surroundings(
            self._scheduler,
            self._world,
            self._redis,
            self._kafka,
            _application(),
            self._chance,
            self,
            self._failed,
        )
        self._workers = [plant.worker(VirtualWorker(around, number)) for number in range(schedule.workers)]
        self._client = VirtualLoop(self._scheduler, "client", self._failed)
        self._clients = Clients(
            schedule.requests,
            loop=self._client,
            redis=self._redis,
            kafka=self._kafka,
            clock=machine,
            chance=self._chance,
        )
        self.tells = self._clients.tells
        self._nemesis = Nemesis(
            world=self._world,
            redis=self._redis,
            store_clock=self._store_clock,
            kafka=self._kafka,
            workers=self._workers,
            chance=self._chance,
            on_failover=self._failed_over,
            change=schedule.change,
        )
        self._replays = Replays(self._wrong, schedule.change) if schedule.versions else None
        self._executions: Counter[tuple[str, str]] = Counter()

    def run(self) -> Report:
        """Run it."""
        report, scheduler = self._report, self._scheduler
        with _heard_by(self._logged), self._plant.planted():
            try:
                self._plan()
                self._go_on(SPAN_S)
                self._nemesis.heal()
                self._clients.insist()
                self._unpause()
                while not self._over and not self._at_rest() and scheduler.now_s < SPAN_S + QUIET_S_MAX:
                    self._go_on(scheduler.now_s + LOOK_S)
                if not self._over:
                    self._check_at_rest()
                if not self._over and self._schedule.seed % FORGETS_EVERY == 0:
                    self._forget_all()
                found = list(report.violations)
            finally:
                self._bury()
        # What a killed process would not have said.
        report.violations = found
        report.trace, report.steps, report.virtual_s = self._digest.hexdigest(), scheduler.steps, scheduler.now_s
        return report

    @property
    def _over(self) -> bool:
        """Whether something is wrong: what comes after it says nothing."""
        return bool(self._report.violations)

    def _go_on(self, until_s: float) -> None:
        scheduler = self._scheduler
        scheduler.run(lambda: self._over or scheduler.steps > STEPS_MAX, until_s=until_s)
        if scheduler.steps > STEPS_MAX:
            self._wrong(f"it did not come to rest in {STEPS_MAX} callbacks")

    def _plan(self) -> None:
        for worker in self._workers:
            self._world.call_later(self._chance.random() * 0.2, worker.start)
        self._clients.plan()
        for event in self._schedule.events:
            self._world.call_at(event.at_s, self._happens, event)

    def _happens(self, event: Event) -> None:
        if event.kind in CONTROLS:
            self._clients.operate(event.kind, self._clients.ids[event.target])
        else:
            self._nemesis.do(event)

    def _failed_over(self, lost: int) -> None:
        self._digest.update(f"lost {lost}".encode())
        self._auditor.rewound(self._redis.store, len(self._redis.log))

    def _unpause(self) -> None:
        records = records_of(self._redis.store._slots)
        paused = [InvocationId(name) for name, record in records.items() if record.status == "paused"]
        newer, replays = self._workers[0].change is not None, self._replays
        fitting = [name for name in paused if replays is None or not replays.refused(name, newer=newer)]
        for name in fitting:
            self._clients.operate("resume", name)
        if paused and not fitting:
            # What is left was continued by the other version, which alone can end it.
            for worker in self._workers:
                worker.deploy(None if newer else self._schedule.change, gently=True)
        self._world.call_later(UNPAUSE_S, self._unpause)

    def executes(self, invocation_id: InvocationId, step: str, claim: Claim) -> int:
        """See `Outside`."""
        if step in programs.known_steps(claim):
            self._wrong(f"G2: step {step} of {invocation_id} is executed, and its attempt began with its result")
        before = self._executions[invocation_id, step]
        self._executions[invocation_id, step] += 1
        return before

    def _at_rest(self) -> bool:
        return at_rest(self._redis.store._slots, self._clients.ids, self._kafka.lag())

    def _check_at_rest(self) -> None:
        slots, lag = self._redis.store._slots, self._kafka.lag()
        for what in wrong_at_rest(slots, self._schedule, self._clients.ids, lag):
            self._wrong(what)

    def _executed(self, command: Executed, answer: object) -> None:
        self._digest.update(f"{command.at_ms} {command.name} {command.args[:1]!r}".encode())
        self._auditor.seen(self._redis.store, command, answer, length=len(self._redis.log))
        if self._replays is not None:
            self._replays.seen(command, answer)

    def _committed(self, partition: Partition, offset: int) -> None:
        if not is_resume_topic(partition.topic):
            ids = [_id_in(record.value) for record in self._kafka.logs[partition][:offset]]
            self._auditor.offset_moved(partition.topic, offset, ids, durable=self._redis.durable)

    def _forget_all(self) -> None:
        """Let retention end, and see that nothing is left."""
        # What is on its way comes first: a repeat that outlasts retention is a new request.
        self._go_on(self._scheduler.now_s + LATE_S + 1.0)
        self._store_clock.ahead_ms += RETENTION_MS
        slots, until_s = self._redis.store._slots, self._scheduler.now_s + FORGOTTEN_S_MAX
        self._go_on(self._scheduler.now_s + 1.5)
        while not self._over and self._scheduler.now_s < until_s and any(left_behind(slots)):
            self._go_on(self._scheduler.now_s + LOOK_S)
        for what in left_behind(slots):
            self._wrong(what)

    def _bury(self) -> None:
        for worker in self._workers:
            worker.wanted = False
            worker.end()
            for loop in worker.graves:
                loop.bury()
        self._client.bury()
        self._world.bury()

    def _wrong(self, what: str) -> None:
        self._report.violations.append(f"{what} (at {self._scheduler.now_s:.3f} s)")

    def _failed(self, who: str, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._report.violations.append(f"{who}: {context.get('message')} {error!r}")

    def _logged(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            self._report.violations.append(f"{record.getMessage()} {record.exc_info[1]!r}")


def _id_in(value: bytes | None) -> str | None:
    try:
        return decode_invocation(value or b"").id
    except DecodeError:
        return None


class _Listening(logging.Handler):
    listener: Callable[[logging.LogRecord], None]

    def emit(self, record: logging.LogRecord) -> None:
        self.listener(record)


@contextlib.contextmanager
def _heard_by(listener: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Perdure's log lines go to `listener` alone, from errors up."""
    handler = _Listening(logging.ERROR)
    handler.listener = listener
    logger = logging.getLogger("perdure")
    before = (logger.level, logger.propagate)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
