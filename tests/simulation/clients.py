"""The clients of a simulation: they produce records, complete awakeables, send signals, and operate invocations."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from perdure.journal.store import Delivery
from perdure.schemas.entries import Cancelled, Completion, Failure, Output, Signalled, Success
from perdure.schemas.ids import InvocationId, id_of_workflow, new_invocation_id, read_awakeable_id
from perdure.worker.broker import Outgoing
from perdure.worker.clock import Clock
from perdure.worker.topics import service_topic

from .programs import BOX, FLOW, NEST, PROMISE, SIGNAL, WORK
from .schedules import Request
from .virtual_kafka import VirtualKafka
from .virtual_loop import EPOCH_MS, VirtualLoop
from .virtual_redis import StoreLink, VirtualRedis
from .virtual_worker import NAMESPACE

OUTSIDE_S = 0.4
"""How soon somebody outside completes what he was told of, at most."""

RESEND_S = 0.15
"""After so long a client sends a record again whose acknowledgement it has not seen."""

LOOK_S = 1.0
"""Between two tries to reach an invocation that is not known yet."""

SIGNALS = 4
"""Sent to each invocation that a client has asked for: as many as a program waits for at most."""

_HANDLERS = {WORK: "play", BOX: "add", FLOW: "run"}


class Clients:
    """A process that never fails, with a connection that may.

    Args:
        requests: What is asked.
        loop: Of the process.
        redis: The store.
        kafka: The cluster.
        clock: Right time.
        chance: For delays and ids.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        loop: VirtualLoop,
        redis: VirtualRedis,
        kafka: VirtualKafka,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._loop = loop
        self._kafka = kafka
        self._link = StoreLink(redis, loop)
        self._clock = clock
        self._chance = chance
        self._numbers = itertools.count(1)
        self._requests = requests
        self._told: list[tuple[InvocationId, Completion]] = []
        self._stopped: set[InvocationId] = set()
        self.ids = [self._id_of(request) for request in requests]

    def plan(self) -> None:
        """Produce each request when it is time."""
        for request, name in zip(self._requests, self.ids, strict=True):
            for copy in range(request.copies):
                self._loop.call_at(request.at_s + RESEND_S * copy, self._send, request, name)

    def _id_of(self, request: Request) -> InvocationId:
        if request.service == FLOW:
            return id_of_workflow(FLOW, request.key or "")
        return new_invocation_id(request.service.partition("/")[0], request.key, self._chance)

    def _send(self, request: Request, name: InvocationId) -> None:
        service, _, handler = request.service.partition("/")
        fields: dict[str, Any] = {"handler": handler or _HANDLERS[service], "argument": request.argument}
        if request.service != FLOW:
            fields["id"] = name
        if request.delay_ms:
            fields["not_before"] = (EPOCH_MS + int(request.at_s * 1000) + request.delay_ms) / 1000
        key = None if request.key is None else request.key.encode()
        self._kafka.append(Outgoing(service_topic(NAMESPACE, service), key, orjson.dumps(fields)))

    def tells(self, awakeable: str) -> None:
        """Somebody learns the name of an awakeable, and completes it twice: see `programs.Outside`."""
        found = read_awakeable_id(awakeable)
        assert found is not None, "handlers tell ids of awakeables"
        invocation_id, index = found
        for value in (b"1", b"2"):
            told = (invocation_id, Completion(index, self._clock.now_ms(), Success(value)))
            self._told.append(told)
            self._loop.call_later(OUTSIDE_S * self._chance.random(), self._begin, self._complete, *told)

    def insist(self) -> None:
        """Send all signals, and repeat what was completed: a failover loses what no barrier has vouched for.

        What waits for itself is killed. Promises are kept by handlers; only where nobody else will, because who was to
        is stopped, does a client.
        """
        for name in self.ids:
            for number in range(SIGNALS):
                signal = Signalled(SIGNAL, self._clock.now_ms(), Success(b"7"))
                self._begin(self._deliver, name, signal, f"s:by:{number}")
        for told in self._told:
            self._begin(self._complete, *told)
        for request, name in zip(self._requests, self.ids, strict=True):
            if request.service == NEST:
                self._begin(self._kill, name)
        kept = {
            request.key
            for request, name in zip(self._requests, self.ids, strict=True)
            if request.service == f"{FLOW}/give" and name not in self._stopped
        }
        for request in self._requests:
            if request.service == FLOW and request.key not in kept:
                self._begin(self._keep, f"{FLOW}/{request.key}")

    def operate(self, what: str, name: InvocationId) -> None:
        """Cancel, kill, pause or resume an invocation."""
        if what in ("cancel", "kill"):
            self._stopped.add(name)
        self._begin(self._control, what, name)

    def _begin(self, work: Any, *args: Any) -> None:
        self._loop.call_soon(lambda: self._loop.create_task(work(*args)))

    async def _keep(self, target: str) -> None:
        _, due = await self._link.complete_promise(target, PROMISE, Success(b"7"), by=f"client:{target}")
        if due:
            await self._link.hasten(due)

    async def _complete(self, invocation_id: InvocationId, entry: Completion) -> None:
        await self._bring(lambda: self._link.complete_awakeable(invocation_id, entry))

    async def _deliver(self, invocation_id: InvocationId, entry: Any, once: str) -> None:
        await self._bring(lambda: self._link.deliver(invocation_id, entry, once=once))

    async def _bring(self, call: Callable[[], Awaitable[Delivery]]) -> None:
        while (delivery := await call()).result == "unknown":
            # Its record waits in Kafka, or the store has lost it and will be told again.
            await self._clock.sleep(LOOK_S)
        if delivery.due:
            await self._link.hasten(delivery.due)

    async def _kill(self, name: InvocationId) -> None:
        await self._bring(lambda: self._ask_to_kill(name))

    def _ask_to_kill(self, name: InvocationId) -> Awaitable[Delivery]:
        killed: Awaitable[Delivery] = self._link.kill(name, Output(self._clock.now_ms(), Failure(409, "killed")))
        return killed

    async def _control(self, what: str, name: InvocationId) -> None:
        link, now_ms = self._link, self._clock.now_ms()
        match what:
            case "cancel":
                await self._deliver(name, Cancelled(now_ms), f"x:client:{next(self._numbers)}")
                return
            case "kill":
                delivery = await self._ask_to_kill(name)
            case "pause":
                delivery = await link.pause(name, at_ms=now_ms, reason="paused by an operator")
            case _:
                delivery = await link.resume(name, at_ms=now_ms)
        if delivery.due:
            await link.hasten(delivery.due)
