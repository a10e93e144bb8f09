"""What goes into the journals of others: answers, cancellations, promises, kills: `perdure.worker.dispatch`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.journal.store import (
    Admission,
    Caller,
    Duplicate,
    HintDue,
    ReplyDue,
)
from perdure.schemas.commands import Attach, Awakeable, CancelOther, PromiseWait, Resolve
from perdure.schemas.entries import (
    CancelChild,
    Cancelled,
    Completion,
    Entry,
    Failure,
    Input,
    Outcome,
    Signalled,
)
from perdure.schemas.ids import InvocationId, id_of_workflow
from perdure.schemas.limits import WAITERS_MAX
from perdure.worker.cancelling import FORESTALLED_MS, UNKNOWN_MS_MAX
from perdure.worker.dispatch import UNKNOWN_DELAYS_S
from tests.worker.dispatch_scene import ONE, UNKNOWN, Scene


@pytest.fixture
async def scene() -> Scene:
    """A dispatcher over a store in memory."""
    return Scene()


async def test_awakeables_are_completed_where_they_wait(scene: Scene) -> None:
    """The first completion counts; a repeat and a late one change nothing, and all of them are done."""
    origin, waiting = await scene.admitted(), await scene.admitted()
    await scene.write(waiting, Awakeable(0, 1))
    outcomes: list[Outcome] = [ONE, Failure(500, "too late")]
    for index, outcome in enumerate(outcomes):
        await scene.send(origin, Resolve(index, 1, waiting.invocation_id, 0, "", outcome))
    assert await scene.answers(waiting) == [(0, ONE)]
    assert await scene.owed(origin) == 0
    assert scene.due == [HintDue("another", waiting.invocation_id)]


async def test_signals_are_delivered_once_for_each_command(scene: Scene) -> None:
    """Two commands are two signals; one that is sent again is known."""
    origin, waiting = await scene.admitted(), await scene.admitted()
    for index in range(2):
        position = await scene.send(origin, Resolve(index, 1, waiting.invocation_id, -1, "go", ONE))
        scene.dispatcher.send(origin.invocation_id, position, Resolve(index, 1, waiting.invocation_id, -1, "go", ONE))
        await scene.settle()
    found = await scene.entries(waiting.invocation_id)
    assert [(entry.name, entry.outcome) for entry in found if isinstance(entry, Signalled)] == [("go", ONE)] * 2
    assert await scene.owed(origin) == 0


@pytest.mark.parametrize("name", ["", "go"])
async def test_answers_to_unknown_invocations_are_dropped(scene: Scene, name: str) -> None:
    """What is kept no longer wants no answers; they do not stay in `due`."""
    origin = await scene.admitted()
    await scene.send(origin, Resolve(0, 1, UNKNOWN, 0, name, ONE))
    assert await scene.owed(origin) == 0
    assert await scene.memory.read_invocation(UNKNOWN) is None


def cancellation(scene: Scene, invocation_id: InvocationId, *, of_a_child: bool) -> Entry:
    """A handler's cancellation of another invocation, or one that goes on to a callee."""
    at_ms = scene.clock.now_ms()
    return CancelChild(at_ms, 2, invocation_id) if of_a_child else CancelOther(0, at_ms, invocation_id)


WHOM = pytest.mark.parametrize("of_a_child", [False, True])


@WHOM
async def test_cancellations_are_delivered_once(scene: Scene, of_a_child: bool) -> None:
    """One that is sent again, because its acknowledgement was lost, is known."""
    origin, other = await scene.admitted(), await scene.admitted()
    entry = cancellation(scene, other.invocation_id, of_a_child=of_a_child)
    position = await scene.send(origin, entry)
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    found = await scene.entries(other.invocation_id)
    assert [type(entry) for entry in found] == [Cancelled]
    assert scene.due == [HintDue("another", other.invocation_id)]
    assert await scene.owed(origin) == 0


@WHOM
async def test_a_cancelled_pending_invocation_tells_its_callers(scene: Scene, of_a_child: bool) -> None:
    """What had not begun ends at once; who waits for it is to be told, which the dispatcher passes on."""
    await scene.admitted("O", "change", "k", mode="exclusive")
    origin = await scene.admitted()
    entry = scene.call(origin, 0, service="O", handler="change", key="k")
    position = await scene.send(origin, entry)
    await scene.send(origin, cancellation(scene, entry.invocation_id, of_a_child=of_a_child))
    (due,) = scene.due
    assert isinstance(due, ReplyDue)
    assert due.callers == [Caller(origin.invocation_id, 0, position)]
    assert due.outcome == Failure(409, "cancelled")


async def test_a_cancellation_of_what_is_not_known_yet_is_repeated(scene: Scene) -> None:
    """Its record may wait in Kafka; after `UNKNOWN_MS_MAX` it is taken for gone."""
    origin = await scene.admitted()
    entry = cancellation(scene, UNKNOWN, of_a_child=False)
    position = await scene.send(origin, entry)
    scene.clock.skip(UNKNOWN_MS_MAX - 1_000)
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    assert await scene.owed(origin) == 1
    scene.clock.skip(2_000)
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    assert await scene.owed(origin) == 0


async def test_a_cancellation_reaches_what_comes_to_be_known(scene: Scene) -> None:
    """What somebody else invokes, and whose record came late, is cancelled all the same."""
    origin = await scene.admitted()
    entry = cancellation(scene, UNKNOWN, of_a_child=False)
    position = await scene.send(origin, entry)
    assert await scene.owed(origin) == 1
    await scene.admitted(invocation_id=UNKNOWN)
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    assert [type(entry) for entry in await scene.entries(UNKNOWN)] == [Cancelled]
    assert await scene.owed(origin) == 0


ON_THEIR_WAY: dict[str, Callable[[InvocationId, int], Entry]] = {
    "a signal": lambda callee, at_ms: Resolve(1, at_ms, callee, -1, "go", ONE),
    "an awakeable": lambda callee, at_ms: Resolve(1, at_ms, callee, 0, "", ONE),
    "an attachment": lambda callee, at_ms: Attach(1, at_ms, callee),
}


@WHOM
@pytest.mark.parametrize("kind", ["call", "sending"])
async def test_a_callee_that_is_cancelled_before_it_is_known_never_begins(
    scene: Scene, of_a_child: bool, kind: str
) -> None:
    """It is admitted as one that has ended, so that its record finds it known; its caller is told."""
    origin = await scene.admitted()
    invoked = getattr(scene, kind)(origin, 0, service="Theirs")
    position = await scene.write(origin, invoked)
    await scene.send(origin, cancellation(scene, invoked.invocation_id, of_a_child=of_a_child))
    callers = [Caller(origin.invocation_id, 0, position)] if kind == "call" else []
    assert scene.due == [ReplyDue(invoked.invocation_id, [], Failure(409, "cancelled"), callers)]
    scene.clock.skip(FORESTALLED_MS - 1_000)
    for slot in range(4):
        await scene.memory.sweep(slot)
    answer = await scene.memory.admit(
        Admission(invoked.invocation_id, "Theirs", "h", None, Input(1, "w", (), b""), "t", "w"), lease_ms=1
    )
    assert answer == Duplicate("completed", Failure(409, "cancelled"))


async def test_what_was_invoked_long_ago_is_not_forestalled(scene: Scene) -> None:
    """A callee that nobody knows after an hour has most likely ended, and is kept no longer."""
    origin = await scene.admitted()
    invoked = scene.sending(origin, 0, service="Theirs")
    await scene.write(origin, invoked)
    scene.clock.skip(UNKNOWN_MS_MAX + 1)
    await scene.send(origin, cancellation(scene, invoked.invocation_id, of_a_child=False))
    assert await scene.memory.read_invocation(invoked.invocation_id) is None


async def test_what_is_invoked_after_its_cancellation_begins(scene: Scene) -> None:
    """An id may be known beforehand, that of an idempotency key say: the cancellation was for what came before."""
    origin = await scene.admitted()
    invoked = scene.call(origin, 1, service="Theirs")
    cancels = cancellation(scene, invoked.invocation_id, of_a_child=False)
    position = await scene.write(origin, cancels, invoked)
    scene.dispatcher.send(origin.invocation_id, position, cancels)
    await scene.settle()
    assert await scene.memory.read_invocation(invoked.invocation_id) is None


@pytest.mark.parametrize("what", ON_THEIR_WAY)
@pytest.mark.parametrize("kind", ["call", "sending"])
async def test_what_is_for_a_callee_does_not_overtake_it(scene: Scene, what: str, kind: str) -> None:
    """Its record is in Kafka still: it is looked for again in a moment, and reached when it is there."""
    origin = await scene.admitted()
    invoked = getattr(scene, kind)(origin, 0, service="Theirs")
    await scene.write(origin, invoked)

    async def arrives() -> None:
        if len(scene.clock.slept) == 2:
            await scene.admitted(invocation_id=invoked.invocation_id)

    scene.clock.meanwhile = arrives
    position = await scene.send(origin, ON_THEIR_WAY[what](invoked.invocation_id, scene.clock.now_ms()))
    assert scene.clock.slept == list(UNKNOWN_DELAYS_S[:2])
    assert scene.store.acknowledged == [(origin.invocation_id, [position])]
    if what == "an attachment":
        callers = (await scene.fields(invoked.invocation_id))["callers"]
        assert callers == str(Caller(origin.invocation_id, 1, position))
    else:
        (entry,) = await scene.entries(invoked.invocation_id)
        assert isinstance(entry, Signalled | Completion)


@pytest.mark.parametrize("what", ON_THEIR_WAY)
async def test_what_is_for_a_callee_that_is_late_stays_in_due(scene: Scene, what: str) -> None:
    """After a few looks it is left to `due`, and after `UNKNOWN_MS_MAX` the callee is taken for gone."""
    origin = await scene.admitted()
    invoked = scene.call(origin, 0, service="Theirs")
    call = await scene.write(origin, invoked)
    await scene.memory.acknowledge(origin.invocation_id, sent=[call])
    entry = ON_THEIR_WAY[what](invoked.invocation_id, scene.clock.now_ms())
    position = await scene.send(origin, entry)
    assert scene.clock.slept == list(UNKNOWN_DELAYS_S)
    assert await scene.owed(origin) == 1
    scene.clock.skip(UNKNOWN_MS_MAX + 1)
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    assert await scene.owed(origin) == 0
    failures = [outcome for _, outcome in await scene.answers(origin) if isinstance(outcome, Failure)]
    assert [failure.code for failure in failures] == ([404] if what == "an attachment" else [])


async def test_only_what_was_invoked_before_is_on_its_way(scene: Scene) -> None:
    """A call that stands behind the signal is not what the signal was for."""
    origin = await scene.admitted()
    invoked = scene.call(origin, 1, service="Theirs")
    signal = Resolve(0, scene.clock.now_ms(), invoked.invocation_id, -1, "go", ONE)
    position = await scene.write(origin, signal, invoked)
    scene.dispatcher.send(origin.invocation_id, position, signal)
    await scene.settle()
    assert scene.clock.slept == []
    assert scene.store.acknowledged == [(origin.invocation_id, [position])]


@pytest.mark.parametrize("where", [{"target": "W/k"}, {}])
async def test_waits_for_promises_are_answered_when_they_are_completed(scene: Scene, where: dict[str, str]) -> None:
    """The workflow is that of the journal, also where only its id is known, as after a sweep."""
    origin = await scene.admitted("W", "main", "k", mode="main", invocation_id=id_of_workflow("W", "k"))
    await scene.send(origin, PromiseWait(0, 1, "p"), **where)
    assert (await scene.answers(origin), await scene.owed(origin)) == ([], 0)
    await scene.memory.complete_promise("W/k", "p", ONE, by="somebody")
    assert await scene.answers(origin) == [(0, ONE)]
    await scene.send(origin, PromiseWait(1, 1, "p"), **where)
    assert await scene.answers(origin) == [(0, ONE), (1, ONE)]
    assert scene.due == [HintDue("another", origin.invocation_id)]


async def test_a_promise_for_which_too_many_wait_is_asked_again(scene: Scene) -> None:
    """The wait stays in `due`, or nobody would ever answer it."""
    origin = await scene.admitted("W", "main", "k", mode="main", invocation_id=id_of_workflow("W", "k"))
    for index in range(WAITERS_MAX):
        await scene.memory.await_promise("W/k", "p", origin.invocation_id, index + 1)
    position = await scene.send(origin, PromiseWait(0, 1, "p"), target="W/k")
    assert await scene.owed(origin) == 1
    await scene.memory.complete_promise("W/k", "p", ONE, by="somebody")
    scene.dispatcher.send(origin.invocation_id, position, PromiseWait(0, 1, "p"), target="W/k")
    await scene.settle()
    assert await scene.owed(origin) == 0
    assert (0, ONE) in await scene.answers(origin)


async def test_a_wait_that_the_store_lost_is_left_to_the_next_attempt(scene: Scene) -> None:
    """It is neither answered nor acknowledged."""
    origin = await scene.admitted("W", "main", "k", mode="main", invocation_id=id_of_workflow("W", "k"))
    await scene.memory.complete_promise("W/k", "p", ONE, by="somebody")
    scene.dispatcher.send(origin.invocation_id, 2, PromiseWait(0, 1, "p"), target="W/k")
    await scene.settle()
    assert (await scene.answers(origin), scene.store.acknowledged) == ([], [])


async def test_what_is_sent_in_one_turn_is_acknowledged_together(scene: Scene) -> None:
    """One write for each journal, not for each entry."""
    origins = [await scene.admitted(), await scene.admitted()]
    for origin in origins:
        sent = [scene.sending(origin, index) for index in range(3)]
        position = await scene.write(origin, *sent)
        for at, entry in enumerate(sent):
            scene.dispatcher.send(origin.invocation_id, position + at, entry)
    await scene.settle()
    assert scene.store.acknowledged == [(origin.invocation_id, [2, 3, 4]) for origin in origins]
    assert len(scene.claims) == 6


async def test_what_cannot_be_sent_is_said_and_dropped(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """An entry that nothing knows how to send would be told again for ever."""
    origin = await scene.admitted()
    scene.dispatcher.send(origin.invocation_id, 1, Input(1, "w", (), b""))
    await scene.settle()
    assert "is nothing that can be sent: 'Input'" in caplog.text
    assert scene.store.acknowledged == [(origin.invocation_id, [1])]


async def test_outcomes_are_told_to_callers(scene: Scene) -> None:
    """To those that wait, once; those that have ended or are gone cannot be told and hold up nobody."""
    waiting, ended = await scene.admitted(), await scene.admitted()
    position = await scene.write(waiting, scene.call(waiting, 4))
    await scene.complete(ended, ONE)
    callers = [
        Caller(waiting.invocation_id, 4, position),
        Caller(ended.invocation_id, 0, 1),
        Caller(UNKNOWN, 0, 2),
    ]
    for _ in range(2):
        assert [await scene.dispatcher.tell(caller, ONE) for caller in callers] == [True, True, True]
    assert await scene.answers(waiting) == [(4, ONE)]
    assert scene.due == [HintDue("another", waiting.invocation_id)]


async def test_a_caller_whose_journal_lost_the_call_is_told_again(scene: Scene) -> None:
    """After a failover its next attempt makes the call again; until then the outcome is kept for it."""
    origin, other = await scene.admitted(), await scene.admitted()
    position = await scene.write(other, scene.call(other))
    callers = [Caller(origin.invocation_id, 0, 2), Caller(other.invocation_id, 0, position)]
    assert [await scene.dispatcher.tell(caller, ONE) for caller in callers] == [False, True]
    assert await scene.answers(other) == [(0, ONE)]
    await scene.write(origin, scene.call(origin))
    assert [await scene.dispatcher.tell(caller, ONE) for caller in callers] == [True, True]
    assert await scene.answers(origin) == [(0, ONE)]
