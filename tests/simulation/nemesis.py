"""What goes wrong: the events of a schedule, done to the parts of a simulation; and the end of it all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from perdure.worker.topics import is_resume_topic

from .schedules import Event
from .versions import Change
from .virtual_kafka import VirtualKafka
from .virtual_loop import VirtualLoop
from .virtual_redis import StoreClock, VirtualRedis
from .virtual_worker import VirtualWorker

FAILOVER_S = 0.2
"""How long nobody answers while a replica takes over."""


class Nemesis:
    """Does events, except for what clients do.

    Args:
        world: The loop of all that is no process of ours.
        redis: The store.
        store_clock: Its time.
        kafka: The cluster.
        workers: All of them.
        chance: For what an event leaves open.
        on_failover: Told how many commands were lost.
        change: Of the newer code.
    """

    def __init__(
        self,
        *,
        world: VirtualLoop,
        redis: VirtualRedis,
        store_clock: StoreClock,
        kafka: VirtualKafka,
        workers: Sequence[VirtualWorker],
        chance: random.Random,
        on_failover: Callable[[int], None],
        change: Change,
    ) -> None:
        self._world = world
        self._redis = redis
        self._store_clock = store_clock
        self._kafka = kafka
        self._workers = workers
        self._chance = chance
        self._on_failover = on_failover
        self._change = change
        self._healed = False

    def do(self, event: Event) -> None:
        """Do it; what is done to a worker waits for the callback that the event names."""
        match event.kind:
            case "blackout" | "failover":
                self._redis.after(event.steps, lambda: self._take_redis_down(event))
            case "store-jump":
                self._store_clock.ahead_ms += int(event.amount)
            case "kafka-outage" | "rebalance" | "step-back" | "lose-ends":
                self._do_to_kafka(event)
            case _:
                worker = self._workers[event.target % len(self._workers)]
                if worker.loop is not None and worker.loop.trap is None:
                    worker.loop.trap = (worker.loop.steps + event.steps, lambda: self._hit(worker, event))

    def _take_redis_down(self, event: Event) -> None:
        self._redis.stop()
        if event.kind == "failover":
            self._on_failover(self._redis.fail_over(event.amount))
        self._world.call_later(FAILOVER_S if event.kind == "failover" else event.amount / 1000, self._redis_up)

    def _do_to_kafka(self, event: Event) -> None:
        kafka = self._kafka
        match event.kind:
            case "kafka-outage":
                kafka.down = True
                self._world.call_later(event.amount / 1000, self._kafka_up)
            case "rebalance":
                kafka.rebalance()
            case "step-back":
                kafka.step_back(int(event.amount))
            case _:
                kafka.lose_ends([topic for topic, _ in kafka.logs if is_resume_topic(topic)])

    def _hit(self, worker: VirtualWorker, event: Event) -> None:
        loop, link, broker, seconds = worker.loop, worker.link, worker.broker, event.amount / 1000
        if loop is None or link is None or broker is None:
            return
        match event.kind:
            case "crash":
                worker.end()
                self._world.call_later(seconds, worker.start)
            case "freeze":
                loop.freeze()
                self._kafka.watch(broker)
                self._world.call_later(seconds, loop.thaw)
            case "stop":
                worker.stop()
            case "cut":
                link.cut()
            case "deploy":
                gently = self._chance.random() < 0.5
                worker.deploy(self._change, gently=gently)
                self._world.call_later(seconds, lambda: self._roll_back(worker, gently=gently))
            case "skew":
                worker.clock.skew_ms = int(event.amount)
            case _:
                side = self._chance.randrange(3)
                worker.block(True, store=side != 1, kafka=side != 0)
                self._world.call_later(seconds, lambda: worker.block(False, store=True, kafka=True))

    def _roll_back(self, worker: VirtualWorker, *, gently: bool) -> None:
        if not self._healed:
            worker.deploy(None, gently=gently)

    def heal(self) -> None:
        """End all that is going wrong, and have every worker live, with the code that it had."""
        self._healed = True
        self._redis.trap = None
        self._redis_up()
        self._kafka.down = False
        for worker in self._workers:
            worker.clock.skew_ms = 0
            if worker.loop is not None and worker.loop.change is not None:
                worker.end()
            worker.change = None
            if worker.loop is not None:
                worker.loop.trap = None
                worker.loop.thaw()
                worker.block(False, store=True, kafka=True)
            worker.start()

    def _redis_up(self) -> None:
        self._redis.down = False

    def _kafka_up(self) -> None:
        self._kafka.down = False
        if self._chance.random() < 0.5:
            self._kafka.rebalance()
