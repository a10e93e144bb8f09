"""Clients: they send until they are told that it arrived, and write down what they asked for and what they got.

What they do to what they have sent, beside waiting for it, is `insisting`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

from perdure.schemas.errors import InvocationNotFoundError, PerdureError, TerminalError
from perdure.worker.broker import Outgoing
from perdure.worker.client import Client
from perdure.worker.client_handle import Handle
from perdure.worker.sender import Sender
from tests.process.application import Act, Plan, perform
from tests.process.application import Kind as ActKind

from .application import Order, Parcel, add, deliver
from .feed import FEED_TOPIC, Item
from .flow import PROMISE, Errand, Offer, flow, run, settle
from .marks import Marks
from .request import ASKED, CANCELLED, FED, KILLED, OFFER, PAUSED, RUN, Request, failure_text
from .visits import Visit, Wait, visit

ACCOUNTS: Final = 6
DESKS: Final = 6
FED_KEYS: Final = 4

WEIGHTS: Final = {"order": 50, "plan": 40, "parcel": 20, "delayed": 10, "visit": 22, RUN: 12, FED: 14}
"""How often each is asked for, beside the others."""

LATER_MS: Final = (0, 50, 300, 1_500)
"""After what time a client does something to what it has sent."""

OFFERED_MS: Final = (0, 3_000)
"""Likewise, where a handler is to complete the promise: at once both of them try."""

RETRY_S: Final = 0.2

LOOK_S: Final = 20.0
"""How long a client waits for an outcome before it asks anew."""

ANSWER_S: Final = 0.3

Job = Callable[[], Awaitable[None]]


class Requester:
    """Clients of one round.

    Args:
        client: Of the namespace.
        sender: Produces records of somebody else's topic.
        name: Before each tag.
        rate: Requests a second, about.
        chance: Seeded.
        numbers: How many orders each account has had in earlier rounds; goes on counting.
    """

    def __init__(
        self,
        client: Client,
        sender: Sender,
        *,
        name: str,
        rate: float,
        chance: random.Random,
        numbers: defaultdict[str, int],
    ) -> None:
        self.requests: list[Request] = []
        self._client = client
        self._sender = sender
        self._name = name
        self._rate = rate
        self._chance = chance
        self._numbers = numbers
        self._names = (f"{name}-{number}" for number in itertools.count())
        self._queues: dict[str, asyncio.Queue[Job]] = {
            key: asyncio.Queue() for key in (*map(account_of, range(ACCOUNTS)), *map(fed_key, range(FED_KEYS)))
        }

    async def run(self, duration_s: float) -> None:
        """Ask at random moments for so long; returns when it is known what came of each request."""
        async with asyncio.TaskGroup() as group:
            lines = [group.create_task(_one_by_one(queue)) for queue in self._queues.values()]
            deadline = time.monotonic() + duration_s
            while time.monotonic() < deadline:
                self._ask(group)
                await asyncio.sleep(self._chance.expovariate(self._rate))
            for queue in self._queues.values():
                await queue.join()
            for line in lines:
                line.cancel()

    def _ask(self, group: asyncio.TaskGroup) -> None:
        tag, chance = next(self._names), self._chance
        match chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]:
            case "order":
                account = account_of(chance.randrange(ACCOUNTS))
                self._numbers[account] += 1
                order = Order(tag, chance.randint(1, 9), chance.choice((0, 0, 5, 40)))
                request = Request(tag, "order", (tag,), {tag: (account, order.amount)}, self._numbers[account])
                # One after the other, so that Kafka has an account's orders in the order of their numbers.
                self._queues[account].put_nowait(lambda: self._order(request, account, order, group))
                self.requests.append(request)
            case "parcel":
                parcel = self._parcel(tag)
                orders = {
                    f"{tag}/called": (parcel.account, parcel.amount),
                    f"{tag}/sent": (parcel.other, parcel.amount),
                }
                self._begin(group, Request(tag, "parcel", tags_of(tag), orders), deliver, parcel)
            case "visit":
                request, wish = visiting(tag, chance)
                self._begin(group, request, visit, wish, key=request.key)
            case "run":
                self._run(group, tag)
            case "fed":
                key, ms = fed_key(chance.randrange(FED_KEYS)), chance.choice((0, 0, 20))
                self._queues[key].put_nowait(lambda: self._feed(tag, key, ms))
            case kind:
                delay = timedelta(milliseconds=chance.randint(200, 4_000)) if kind == "delayed" else None
                self._begin(group, Request(tag, kind, (tag,)), perform, Plan(tag, self._acts()), delay=delay)

    def _begin(
        self,
        group: asyncio.TaskGroup,
        request: Request,
        target: Any,
        argument: Any,
        *,
        key: str | None = None,
        delay: timedelta | None = None,
    ) -> None:
        self.requests.append(request)
        group.create_task(self._follow(request, target, argument, key=key, delay=delay))

    def _run(self, group: asyncio.TaskGroup, tag: str) -> None:
        """A workflow's run, sent once or twice, and perhaps a handler that is to complete its promise."""
        chance, now_ms = self._chance, _now_ms()
        request = Request(tag, RUN, (tag,), key=tag, value=f"{tag}/client", act_ms=now_ms + chance.choice(LATER_MS))
        if chance.random() < 0.4:
            request.act_ms = now_ms + chance.choice(OFFERED_MS)
            offer = Request(f"{tag}/offer", OFFER, (f"{tag}/offer",), key=tag, value=f"{tag}/handler")
            self._begin(group, offer, settle, Offer(offer.tag, offer.value), key=tag)
        self.requests.append(request)
        times, errand = chance.choice((1, 1, 2)), Errand(tag, chance.choice((0, 10, 100)))
        group.create_task(self._follow_run(request, errand, times))

    def _parcel(self, tag: str) -> Parcel:
        chance = self._chance
        account, other = (account_of(chance.randrange(ACCOUNTS)) for _ in range(2))
        asks = chance.random() < 0.5
        return Parcel(tag, account, other, chance.randint(1, 9), chance.choice((0, 10, 60)), self._acts(), asks)

    def _acts(self) -> list[Act]:
        chance = self._chance
        kinds: tuple[ActKind, ...] = ("step", "thread", "together", "flaky", "sleep")
        return [Act(chance.choice(kinds), chance.choice((0, 5, 30, 150, 600))) for _ in range(chance.randint(1, 6))]

    async def _order(self, request: Request, account: str, order: Order, group: asyncio.TaskGroup) -> None:
        await self._send(request, add, order, key=account, name=request.tag)
        group.create_task(self._outcome(request))

    async def _follow(
        self, request: Request, target: Any, argument: Any, *, key: str | None, delay: timedelta | None
    ) -> None:
        await self._send(request, target, argument, key=key, name=request.tag, delay=delay)
        await self._outcome(request)

    async def _follow_run(self, request: Request, errand: Errand, times: int) -> None:
        for _ in range(times):
            # Its key is its name.
            await self._send(request, run, errand, key=request.key)
        await self._outcome(request)
        while True:
            try:
                request.promised = await self._client.peek_promise(flow, request.key, PROMISE, type_hint=str) or ""
                return
            except PerdureError:
                await asyncio.sleep(RETRY_S)

    async def _feed(self, tag: str, key: str, ms: int) -> None:
        """Produce a record until it is acknowledged; a try that is not may be there all the same, as one more."""
        for number in itertools.count(1):
            name = f"{tag}.{number}"
            request = Request(name, FED, (name,), key=key, sent_ms=_now_ms())
            self.requests.append(request)
            value = json.dumps(dataclasses.asdict(Item(name, key, ms))).encode()
            try:
                await self._sender.send(Outgoing(FEED_TOPIC, key.encode(), value))
            except PerdureError:
                await asyncio.sleep(RETRY_S)
                continue
            request.acknowledged_ms = _now_ms()
            return

    async def _send(
        self,
        request: Request,
        target: Any,
        argument: Any,
        *,
        key: str | None = None,
        name: str | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """Send until it is acknowledged, under one name, which makes all tries the same invocation."""
        request.sent_ms = request.sent_ms or _now_ms()
        while True:
            request.tries += 1
            begun_ms = _now_ms()
            try:
                handle: Handle[Any] = await self._client.send(
                    target, argument, key=key, idempotency_key=name, delay=delay
                )
            except PerdureError:
                await asyncio.sleep(RETRY_S)
                continue
            finally:
                # The earliest of all tries: any of them may be the one that is admitted.
                if delay is not None and not request.not_before_ms:
                    request.not_before_ms = begun_ms + int(delay.total_seconds() * 1000)
            request.invocation_id, request.acknowledged_ms = handle.invocation_id, _now_ms()
            request.ids += (handle.invocation_id,)
            return

    async def _outcome(self, request: Request) -> None:
        while True:
            try:
                request.outcome = await self._client.result(request.invocation_id, timeout=timedelta(seconds=LOOK_S))
            except TerminalError as error:
                request.outcome = failure_text(error.status_code, error.message)
            except (TimeoutError, PerdureError):
                # Not admitted yet, not done, or Redis does not say.
                await asyncio.sleep(RETRY_S)
                continue
            request.outcome_ms = _now_ms()
            return


async def _one_by_one(queue: asyncio.Queue[Job]) -> None:
    while True:
        await (await queue.get())()
        queue.task_done()


def visiting(tag: str, chance: random.Random) -> tuple[Request, Visit]:
    """A visit, and what is to befall it."""
    kind = chance.choices((ASKED, CANCELLED, KILLED, PAUSED), (3, 2, 2, 2))[0]
    paused = kind == PAUSED
    waits: Wait = "sleep" if paused else chance.choice(("signal", "awakeable"))
    request = Request(
        tag,
        kind,
        (tag,),
        key=f"d{chance.randrange(DESKS)}",
        waits=waits,
        value="" if paused else f"{tag}/answer",
        races=kind in (CANCELLED, KILLED) and chance.random() < 0.3,
        pauses=chance.randint(1, 2) if paused else 0,
        act_ms=_now_ms() + chance.choice(LATER_MS),
    )
    return request, Visit(tag, waits, chance.choice((100, 400, 900) if paused else (0, 20, 150)))


async def answer(client: Client, marks: Marks) -> None:
    """Give every awakeable that handlers ask for its own id, until this is cancelled.

    Again and again: one that Redis lost together with other writes is waited for anew, under the same id.
    """
    answered: dict[str, int] = {}
    while True:
        for name in {mark.text for mark in marks.read() if mark.kind == "asked"}:
            times = answered.get(name, 0)
            if _now_ms() < times:
                continue
            try:
                await client.resolve_awakeable(name, name)
            except InvocationNotFoundError:
                pass
            except PerdureError:
                continue
            answered[name] = _now_ms() + 3_000
        await asyncio.sleep(ANSWER_S)


def account_of(number: int) -> str:
    """An account's key."""
    return f"a{number}"


def tags_of(tag: str) -> tuple[str, ...]:
    """Of a parcel and all that it calls."""
    return (tag, f"{tag}/called", f"{tag}/sent", f"{tag}/planned")


def fed_key(number: int) -> str:
    """A key of records of somebody else's topic."""
    return f"k{number}"


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
