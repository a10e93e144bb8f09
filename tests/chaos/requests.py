"""Clients: they send until they are told that it arrived, and write down what they asked for and what they got."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from perdure.schemas.errors import InvocationNotFoundError, PerdureError, TerminalError
from perdure.worker.client import Client
from perdure.worker.client_handle import Handle
from tests.process.application import Act, Plan, perform
from tests.process.application import Kind as ActKind

from .application import Order, Parcel, add, deliver
from .marks import Marks

ACCOUNTS: Final = 6
RETRY_S: Final = 0.2

LOOK_S: Final = 20.0
"""How long a client waits for an outcome before it asks anew."""

ANSWER_S: Final = 0.3


@dataclass
class Request:
    """What a client asked for, and what it knows of it. Times are of the machine's monotonic clock.

    Attributes:
        tag: Its own.
        kind: `plan`, `order`, `parcel`, or `delayed` for a plan that is to begin later.
        tags: Of all invocations that come of it, its own among them.
        orders: Those among them that are orders: to which account, and how much.
        number: Of an order: the how manieth to this account from this client, from 1.
        invocation_id: Once it was acknowledged.
        not_before_ms: When it may begin.
        sent_ms: When it was sent first.
        acknowledged_ms: When Kafka had it.
        outcome: What the client was told, as JSON's value; a failure as text.
        outcome_ms: When.
        tries: How often it was sent.
    """

    tag: str
    kind: str
    tags: tuple[str, ...]
    orders: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    number: int = 0
    invocation_id: str = ""
    not_before_ms: int = 0
    sent_ms: int = 0
    acknowledged_ms: int = 0
    outcome: Any = None
    outcome_ms: int = 0
    tries: int = 0


class Requester:
    """Clients of one round.

    Args:
        client: Of the namespace.
        name: Before each tag.
        rate: Requests a second, about.
        chance: Seeded.
        numbers: How many orders each account has had in earlier rounds; goes on counting.
    """

    def __init__(
        self, client: Client, *, name: str, rate: float, chance: random.Random, numbers: defaultdict[str, int]
    ) -> None:
        self.requests: list[Request] = []
        self._client = client
        self._name = name
        self._rate = rate
        self._chance = chance
        self._numbers = numbers
        self._queues: dict[str, asyncio.Queue[tuple[Request, str, Order]]] = {}

    async def run(self, duration_s: float) -> None:
        """Ask at random moments for so long; returns when it is known what came of each request."""
        async with asyncio.TaskGroup() as group:
            lines = [
                group.create_task(self._orders(queue, group))
                for queue in (self._queues.setdefault(account_of(n), asyncio.Queue()) for n in range(ACCOUNTS))
            ]
            deadline = time.monotonic() + duration_s
            while time.monotonic() < deadline:
                self._ask(group)
                await asyncio.sleep(self._chance.expovariate(self._rate))
            for queue in self._queues.values():
                await queue.join()
            for line in lines:
                line.cancel()

    def _ask(self, group: asyncio.TaskGroup) -> None:
        tag = f"{self._name}-{len(self.requests)}"
        match self._chance.choices(("order", "plan", "parcel", "delayed"), (5, 4, 2, 1))[0]:
            case "order":
                account = account_of(self._chance.randrange(ACCOUNTS))
                self._numbers[account] += 1
                order = Order(tag, self._chance.randint(1, 9), self._chance.choice((0, 0, 5, 40)))
                request = Request(tag, "order", (tag,), {tag: (account, order.amount)}, self._numbers[account])
                # One after the other, so that Kafka has an account's orders in the order of their numbers.
                self._queues[account].put_nowait((request, account, order))
            case "parcel":
                parcel = self._parcel(tag)
                orders = {
                    f"{tag}/called": (parcel.account, parcel.amount),
                    f"{tag}/sent": (parcel.other, parcel.amount),
                }
                request = Request(tag, "parcel", tags_of(tag), orders)
                group.create_task(self._follow(request, deliver, parcel))
            case kind:
                delay = timedelta(milliseconds=self._chance.randint(200, 4_000)) if kind == "delayed" else None
                request = Request(tag, kind, (tag,))
                group.create_task(self._follow(request, perform, Plan(tag, self._acts()), delay))
        self.requests.append(request)

    def _parcel(self, tag: str) -> Parcel:
        chance = self._chance
        account, other = (account_of(chance.randrange(ACCOUNTS)) for _ in range(2))
        asks = chance.random() < 0.5
        return Parcel(tag, account, other, chance.randint(1, 9), chance.choice((0, 10, 60)), self._acts(), asks)

    def _acts(self) -> list[Act]:
        chance = self._chance
        kinds: tuple[ActKind, ...] = ("step", "thread", "together", "flaky", "sleep")
        return [Act(chance.choice(kinds), chance.choice((0, 5, 30, 150, 600))) for _ in range(chance.randint(1, 6))]

    async def _orders(self, queue: asyncio.Queue[tuple[Request, str, Order]], group: asyncio.TaskGroup) -> None:
        while True:
            request, account, order = await queue.get()
            await self._send(request, add, order, key=account)
            group.create_task(self._outcome(request))
            queue.task_done()

    async def _follow(self, request: Request, target: Any, argument: Any, delay: timedelta | None = None) -> None:
        await self._send(request, target, argument, delay=delay)
        await self._outcome(request)

    async def _send(
        self, request: Request, target: Any, argument: Any, *, key: str | None = None, delay: timedelta | None = None
    ) -> None:
        """Send until it is acknowledged, under one name, which makes all tries the same invocation."""
        request.sent_ms = _now_ms()
        while True:
            request.tries += 1
            begun_ms = _now_ms()
            try:
                handle: Handle[Any] = await self._client.send(
                    target, argument, key=key, idempotency_key=request.tag, delay=delay
                )
            except PerdureError:
                await asyncio.sleep(RETRY_S)
                continue
            finally:
                # The earliest of all tries: any of them may be the one that is admitted.
                if delay is not None and not request.not_before_ms:
                    request.not_before_ms = begun_ms + int(delay.total_seconds() * 1000)
            request.invocation_id, request.acknowledged_ms = handle.invocation_id, _now_ms()
            return

    async def _outcome(self, request: Request) -> None:
        while True:
            try:
                request.outcome = await self._client.result(request.invocation_id, timeout=timedelta(seconds=LOOK_S))
            except TerminalError as error:
                request.outcome = f"TerminalError {error.status_code}: {error}"
            except (TimeoutError, PerdureError):
                # Not admitted yet, not done, or Redis does not say.
                await asyncio.sleep(RETRY_S)
                continue
            request.outcome_ms = _now_ms()
            return


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


def to_json(request: Request) -> str:
    """A line of the run's history."""
    return json.dumps(dataclasses.asdict(request))


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
