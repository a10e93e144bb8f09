"""Outcomes on their way to topics, callers and dead letters: `perdure.worker.replying`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from perdure.journal.store import Caller
from perdure.schemas.entries import Failure, Outcome, Success
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId
from perdure.worker.broker import Outgoing
from perdure.worker.outbox import Outbox
from perdure.worker.readings import DEAD_LETTER_REPLY
from perdure.worker.replying import Replies
from tests.waiting import wait_until
from tests.worker.attempt_stage import SkippingClock
from tests.worker.scripted_broker import ScriptedBroker

ID = InvocationId("inv_" + "0" * 27)
FAILURE, SUCCESS = Failure(500, "no", {}), Success(b"1")
CALLER = Caller(ID, 0, 2)


class Acknowledging:
    """The part of a store that is told when all know."""

    def __init__(self) -> None:
        self.losses = 0
        self.acknowledged: list[InvocationId] = []
        self.as_of: list[int | None] = []

    async def acknowledge(self, invocation_id: InvocationId, *, reply: bool = False, as_of: int | None = None) -> None:
        """See `Store.acknowledge`."""
        assert reply
        self.acknowledged.append(invocation_id)
        self.as_of.append(as_of)


class Scene:
    """Replies, and everybody that they speak to."""

    def __init__(self, tasks: asyncio.TaskGroup, *, durable: bool = False) -> None:
        self.store = Acknowledging()
        self.broker = ScriptedBroker()
        self.outbox = Outbox(self.broker, clock=SkippingClock())
        self.told: list[Outcome] = []
        self.reachable = True
        self.refusal: StoreError | None = None
        self.letters: list[Outgoing | StoreError | None] = []
        self.vouching: list[StoreError | None] = []
        self._tasks = tasks
        self.replies = Replies(
            self.store,  # type: ignore[arg-type] # all that is asked of it
            self.outbox,
            tell=self._tell,
            letter=self._letter,
            durable=self._durable if durable else None,
            spawn=self._spawn,
        )

    def _tell(self, caller: Caller, outcome: Outcome) -> asyncio.Future[bool]:
        self.told.append(outcome)
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.refusal is None:
            told.set_result(self.reachable)
        else:
            told.set_exception(self.refusal)
        return told

    async def _letter(self, invocation_id: InvocationId, failure: Failure) -> Outgoing | None:
        letter = self.letters.pop(0)
        if isinstance(letter, StoreError):
            raise letter
        return letter

    async def _durable(self) -> None:
        if error := self.vouching.pop(0):
            raise error

    def _spawn(self, work: Awaitable[object]) -> None:
        async def quietly() -> None:
            try:
                await work
            except StoreError:
                return

        self._tasks.create_task(quietly())

    async def settle(self) -> None:
        """Return when nothing is under way."""
        await wait_until(lambda: self.replies.idle, description="nothing is owed here")
        await self.outbox.emptied()


LETTER = Outgoing("ns.dead", b"k", b"v")


@pytest.mark.parametrize(
    ("topics", "callers", "outcome", "produced", "told"),
    [
        (["answers", "more"], [], SUCCESS, ["answers", "more"], 0),
        ([], [CALLER], FAILURE, [], 1),
        ([DEAD_LETTER_REPLY], [], FAILURE, ["ns.dead"], 0),
        ([DEAD_LETTER_REPLY], [], SUCCESS, [], 0),
        (["answers", DEAD_LETTER_REPLY], [CALLER], FAILURE, ["answers", "ns.dead"], 1),
        (["answers", DEAD_LETTER_REPLY], [CALLER], SUCCESS, ["answers"], 1),
    ],
)
async def test_an_outcome_is_acknowledged_once_all_know(
    topics: list[str], callers: list[Caller], outcome: Outcome, produced: list[str], told: int
) -> None:
    """Whoever they are; only failures become dead letters."""
    async with asyncio.TaskGroup() as tasks:
        scene = Scene(tasks)
        sending = tasks.create_task(scene.outbox.run())
        scene.letters = [LETTER]
        scene.replies.put(ID, topics, callers, outcome)
        await scene.settle()
        await wait_until(lambda: scene.store.acknowledged == [ID])
        assert sorted(record.topic for record in scene.broker.produced) == produced
        assert len(scene.told) == told
        sending.cancel()


async def test_the_acknowledgement_counts_as_of_when_callers_were_told() -> None:
    """What the store was told may be lost with a connection; what Kafka was told is not."""
    async with asyncio.TaskGroup() as tasks:
        scene = Scene(tasks)
        scene.store.losses = 7
        scene.replies.put(ID, ["answers"], [CALLER], SUCCESS)
        await wait_until(lambda: scene.told == [SUCCESS])
        scene.store.losses = 8
        sending = tasks.create_task(scene.outbox.run())
        await wait_until(lambda: scene.store.acknowledged == [ID])
        scene.replies.put(ID, ["answers"], [], SUCCESS)
        await wait_until(lambda: scene.store.acknowledged == [ID, ID])
        assert scene.store.as_of == [7, None]
        sending.cancel()


async def test_what_waits_already_is_not_said_again() -> None:
    """`due` repeats it every few seconds, which during an outage of Kafka is often."""
    async with asyncio.TaskGroup() as tasks:
        scene = Scene(tasks)
        scene.letters = [LETTER]
        for _ in range(3):
            scene.replies.put(ID, [DEAD_LETTER_REPLY], [], FAILURE)
        sending = tasks.create_task(scene.outbox.run())
        await scene.settle()
        assert len(scene.broker.produced) == 1
        sending.cancel()


async def test_a_letter_that_cannot_be_made_now_is_made_when_due() -> None:
    """Nothing is acknowledged; where there is nothing to make it of, it never can be."""
    async with asyncio.TaskGroup() as tasks:
        scene = Scene(tasks)
        sending = tasks.create_task(scene.outbox.run())
        scene.letters = [StoreError("WRONGTYPE"), None]
        scene.replies.put(ID, [DEAD_LETTER_REPLY], [], FAILURE)
        await scene.settle()
        assert scene.store.acknowledged == []
        scene.replies.put(ID, [DEAD_LETTER_REPLY], [], FAILURE)
        await wait_until(lambda: scene.store.acknowledged == [ID])
        assert scene.broker.produced == []
        sending.cancel()


@pytest.mark.parametrize("callers", [[CALLER], [CALLER, CALLER._replace(command_index=1)]])
@pytest.mark.parametrize("why", ["unknown there", "refused"])
async def test_a_caller_that_is_not_reached_is_told_when_due(callers: list[Caller], why: str) -> None:
    """Nothing is acknowledged before."""
    async with asyncio.TaskGroup() as tasks:
        scene = Scene(tasks)
        scene.reachable, scene.refusal = False, StoreError("Redis is full.") if why == "refused" else None
        scene.replies.put(ID, [], callers, SUCCESS)
        await scene.settle()
        assert scene.store.acknowledged == []
        scene.reachable, scene.refusal = True, None
        scene.replies.put(ID, [], callers, SUCCESS)
        await wait_until(lambda: scene.store.acknowledged == [ID])


@pytest.mark.parametrize("topic", ["answers", DEAD_LETTER_REPLY])
async def test_what_goes_to_topics_may_wait_for_the_durable_point(topic: str) -> None:
    """What nothing vouches for is not produced."""
    async with asyncio.TaskGroup() as tasks:
        scene = Scene(tasks, durable=True)
        sending = tasks.create_task(scene.outbox.run())
        scene.letters = [LETTER, LETTER]
        scene.vouching = [StoreError("restarted"), None]
        scene.replies.put(ID, [topic], [], FAILURE)
        await scene.settle()
        assert scene.broker.produced == []
        scene.replies.put(ID, [topic], [], FAILURE)
        await wait_until(lambda: scene.store.acknowledged == [ID])
        assert len(scene.broker.produced) == 1
        sending.cancel()
