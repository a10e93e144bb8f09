"""Calls, sends and claims, and where they get: `perdure.worker.dispatch`. The rest: `test_dispatch_delivery.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from perdure.journal.store import (
    HintDue,
    Lease,
    OutgoingDue,
    ResumeDue,
)
from perdure.schemas.commands import Attach, Call, Send
from perdure.schemas.entries import (
    Failure,
    Input,
)
from perdure.schemas.ids import id_of_workflow
from perdure.schemas.limits import PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, WAITERS_MAX
from tests.waiting import wait_until
from tests.worker.attempt_stage import DAY_MS
from tests.worker.dispatch_scene import ONE, UNKNOWN, Scene


@pytest.fixture
async def scene() -> Scene:
    """A dispatcher over a store in memory."""
    return Scene()


Make = Callable[..., Call | Send]
KINDS = pytest.mark.parametrize("kind", ["call", "sending"])


@KINDS
async def test_what_runs_here_begins_here(scene: Scene, kind: str) -> None:
    """With room for it the callee is admitted and started without a way through Kafka, and that is acknowledged."""
    origin = await scene.admitted()
    make: Make = getattr(scene, kind)
    entry = make(origin, 3, headers=(("a", b"1"),), idempotency_key="k")
    position = await scene.send(origin, entry)
    (claim,) = scene.claims
    assert claim.lease == Lease(entry.invocation_id, 1, "token 1", "me")
    assert (claim.service, claim.handler, claim.key, claim.idempotency_key) == ("S", "h", None, "k")
    assert claim.source == f"{origin.invocation_id}/3"
    first = claim.entries[0].entry
    assert isinstance(first, Input)
    assert (first.value, first.headers) == (b'"x"', (("a", b"1"),))
    assert scene.store.acknowledged == [(origin.invocation_id, [position])]
    assert await scene.owed(origin) == 0
    assert scene.broker.produced == []
    caller = (await scene.fields(entry.invocation_id)).get("callers")
    assert caller == (f"{origin.invocation_id}:3:{position}" if kind == "call" else None)


@KINDS
@pytest.mark.parametrize("why", ["no room", "another's service"])
async def test_what_cannot_run_here_goes_through_kafka(scene: Scene, kind: str, why: str) -> None:
    """The record names the same id and who calls; it is acknowledged once Kafka has it, and not before."""
    origin = await scene.admitted()
    scene.room = why != "no room"
    service = "S" if why == "no room" else "Theirs"
    make: Make = getattr(scene, kind)
    entry = make(origin, 2, service=service, key="é", headers=(("a", b"1"),))
    position = await scene.send(origin, entry)
    assert (scene.claims, await scene.owed(origin)) == ([], 1)
    await scene.produce()
    (record,) = scene.broker.produced
    assert (record.topic, record.key, record.headers) == (f"ns.{service}", "é".encode(), (("a", b"1"),))
    value = orjson.loads(record.value or b"")
    caller = {"caller": f"{origin.invocation_id}:2:{position}"} if kind == "call" else {}
    assert value == {"handler": "h", "id": entry.invocation_id, "key": "é", "argument": "x"} | caller
    assert await scene.owed(origin) == 0


async def test_a_record_is_produced_once_while_it_is_under_way(scene: Scene) -> None:
    """What `due` repeats during an outage does not pile up; after its acknowledgement it may be produced again."""
    scene.room = False
    origin = await scene.admitted()
    entry = scene.call(origin)
    position = await scene.send(origin, entry)
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    await scene.produce()
    assert len(scene.broker.produced) == 1
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    await scene.produce()
    assert len(scene.broker.produced) == 2


TOO_LARGE = pytest.mark.parametrize("what", ["JSON", "bytes", "headers"])


def large(what: str, call: Call | Send) -> Any:
    """The same with what becomes too large a record."""
    match what:
        case "JSON":
            return call._replace(value=b'"' + b"x" * (PAYLOAD_BYTES_MAX - 2) + b'"')
        case "bytes":
            return call._replace(value=b"\xff" * 900_000)
        case _:
            return call._replace(headers=(("a", b"x" * RECORD_BYTES_MAX),))


@TOO_LARGE
async def test_what_does_not_fit_into_a_record_fails_its_call(scene: Scene, what: str) -> None:
    """No worker would read it, and the caller would wait for ever."""
    origin = await scene.admitted()
    await scene.send(origin, large(what, scene.call(origin, 7, service="Theirs")))
    await scene.produce()
    ((index, outcome),) = await scene.answers(origin)
    assert isinstance(outcome, Failure)
    assert (index, outcome.code) == (7, 413)
    assert outcome.message.startswith("The record for Theirs/h has 1")
    assert (scene.broker.produced, await scene.owed(origin)) == ([], 0)


@TOO_LARGE
async def test_a_send_that_does_not_fit_into_a_record_is_said(
    scene: Scene, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Nobody waits for it: the log tells, and it is not tried for ever."""
    origin = await scene.admitted()
    sent = large(what, scene.sending(origin, 7, service="Theirs"))
    await scene.send(origin, sent)
    await scene.produce()
    assert f"{sent.invocation_id} is not sent: The record for Theirs/h has 1" in caplog.text
    assert (scene.broker.produced, await scene.owed(origin)) == ([], 0)


@KINDS
@TOO_LARGE
async def test_what_fits_into_no_record_waits_for_room_here(scene: Scene, kind: str, what: str) -> None:
    """It stays in `due`, and begins here without a record once there is room."""
    scene.room = False
    origin = await scene.admitted()
    make: Make = getattr(scene, kind)
    entry = large(what, make(origin, 7))
    position = await scene.send(origin, entry)
    await scene.produce()
    assert (scene.broker.produced, scene.claims, await scene.owed(origin)) == ([], [], 1)
    scene.room = True
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    assert [claim.lease.invocation_id for claim in scene.claims] == [entry.invocation_id]
    assert await scene.owed(origin) == 0


async def test_a_delayed_send_begins_later(scene: Scene) -> None:
    """Here it is scheduled and not started; a record through Kafka says until when."""
    origin, at_ms = await scene.admitted(), scene.clock.now_ms() + DAY_MS
    entry = scene.sending(origin, not_before_ms=at_ms)
    await scene.send(origin, entry)
    assert scene.claims == []
    assert (await scene.fields(entry.invocation_id))["status"] == "scheduled"
    assert await scene.owed(origin) == 0
    await scene.send(origin, scene.sending(origin, 1, service="Theirs", not_before_ms=4_102_444_800_000))
    await scene.produce()
    assert orjson.loads(scene.broker.produced[0].value or b"")["not_before"] == "2100-01-01T00:00:00+00:00"


async def test_a_callee_of_an_object_waits_for_it(scene: Scene) -> None:
    """It is pending behind who holds the object, which acknowledges the call."""
    await scene.admitted("O", "change", "k", mode="exclusive")
    origin = await scene.admitted()
    entry = scene.call(origin, service="O", handler="change", key="k")
    await scene.send(origin, entry)
    assert scene.claims == []
    assert (await scene.fields(entry.invocation_id))["status"] == "pending"
    assert await scene.owed(origin) == 0


async def test_the_lease_of_an_objects_handler_names_the_object(scene: Scene) -> None:
    """What renews leases and what writes state know whose state it is."""
    origin = await scene.admitted()
    await scene.send(origin, scene.call(origin, service="O", handler="change", key="k"))
    (claim,) = scene.claims
    assert (claim.lease.target, claim.mode, claim.key, claim.state) == ("O/k", "exclusive", "k", {})


async def test_a_full_queue_leaves_the_call_in_due(scene: Scene) -> None:
    """Nothing is acknowledged; it gets through when it is sent again and there is a place."""
    holder = await scene.admitted("O", "change", "k", mode="exclusive")
    await scene.admitted("O", "change", "k", mode="exclusive", queue_max=1)
    origin = await scene.admitted()
    entry = scene.call(origin, service="O", handler="change", key="k")
    position = await scene.send(origin, entry)
    assert (await scene.owed(origin), scene.store.acknowledged) == (1, [])
    assert await scene.memory.read_invocation(entry.invocation_id) is None
    await scene.complete(holder, ONE)
    scene.clock.skip(DAY_MS)
    swept = [item for slot in range(4) for item in (await scene.memory.sweep(slot)).due]
    assert OutgoingDue(origin.invocation_id, position, entry) in swept
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await scene.settle()
    assert (await scene.fields(entry.invocation_id))["status"] == "pending"
    assert await scene.owed(origin) == 0


async def test_a_callee_that_has_an_outcome_tells_it_at_once(scene: Scene) -> None:
    """A call that finds what is completed is answered with the outcome; a send is only done."""
    origin, done = await scene.admitted(), await scene.admitted()
    await scene.complete(done, Failure(418, "teapot"))
    await scene.send(origin, scene.call(origin, 1, invocation_id=done.invocation_id))
    await scene.send(origin, scene.sending(origin, 2, invocation_id=done.invocation_id))
    assert scene.claims == []
    assert await scene.answers(origin) == [(1, Failure(418, "teapot"))]
    assert scene.due == [HintDue("another", origin.invocation_id)]
    assert await scene.owed(origin) == 0


async def test_a_callee_that_runs_already_has_one_more_to_tell(scene: Scene) -> None:
    """A call that finds what somebody else has begun is told its outcome, too, and begins nothing."""
    origin, running = await scene.admitted(), await scene.admitted()
    await scene.send(origin, scene.call(origin, 1, invocation_id=running.invocation_id))
    assert (scene.claims, await scene.answers(origin), await scene.owed(origin)) == ([], [], 0)
    await scene.complete(running, ONE)
    assert await scene.answers(origin) == [(1, ONE)]


async def test_a_callee_for_whom_too_many_wait_is_asked_again(scene: Scene) -> None:
    """A caller that was not taken down stays in `due`, or it would wait for ever."""
    origin, running = await scene.admitted(), await scene.admitted()
    for index in range(WAITERS_MAX):
        await scene.memory.attach(running.invocation_id, "", caller=f"{UNKNOWN}:{index}:{index + 2}")
    await scene.send(origin, scene.call(origin, 0, invocation_id=running.invocation_id))
    await scene.send(origin, Attach(1, 1, running.invocation_id))
    assert await scene.owed(origin) == 2


@pytest.mark.parametrize("key", [None, "", "k" * 513])
async def test_a_call_that_cannot_be_admitted_fails(scene: Scene, key: str | None) -> None:
    """A wrong key is a failure 400 of the call; a send of it is dropped, since nobody waits."""
    origin = await scene.admitted()
    await scene.send(origin, scene.call(origin, 0, service="O", handler="change", key=key))
    ((index, outcome),) = await scene.answers(origin)
    assert isinstance(outcome, Failure)
    assert (index, outcome.code) == (0, 400)
    await scene.send(origin, scene.sending(origin, 1, service="O", handler="change", key=key))
    assert await scene.owed(origin) == 0
    assert scene.claims == []
    assert scene.dispatcher.expected() == []


async def test_a_workflow_has_one_run(scene: Scene) -> None:
    """A call of `main` is admitted under the run's id, whatever id the entry has; a second one joins it."""
    origin = await scene.admitted()
    await scene.send(origin, scene.call(origin, 0, service="W", handler="main", key="k"))
    await scene.send(origin, scene.call(origin, 1, service="W", handler="main", key="k"))
    (claim,) = scene.claims
    assert claim.lease.invocation_id == id_of_workflow("W", "k")
    callers = (await scene.fields(claim.lease.invocation_id))["callers"].split()
    assert [caller.split(":")[1] for caller in callers] == ["0", "1"]


async def test_attaching_to_what_runs_joins_its_callers(scene: Scene) -> None:
    """Nothing is told before there is an outcome."""
    origin, running = await scene.admitted(), await scene.admitted()
    await scene.send(origin, Attach(5, 1, running.invocation_id))
    assert (await scene.answers(origin), await scene.owed(origin)) == ([], 0)
    await scene.complete(running, ONE)
    assert await scene.answers(origin) == [(5, ONE)]


async def test_attaching_to_what_has_ended_tells_the_outcome(scene: Scene) -> None:
    """At once."""
    origin, done = await scene.admitted(), await scene.admitted()
    await scene.complete(done, ONE)
    await scene.send(origin, Attach(5, 1, done.invocation_id))
    assert (await scene.answers(origin), await scene.owed(origin)) == ([(5, ONE)], 0)


async def test_attaching_to_what_is_not_known_fails(scene: Scene) -> None:
    """With 404, naming the id."""
    origin = await scene.admitted()
    await scene.send(origin, Attach(5, 1, UNKNOWN))
    ((index, outcome),) = await scene.answers(origin)
    assert isinstance(outcome, Failure)
    assert (index, outcome.code) == (5, 404)
    assert UNKNOWN in outcome.message
    assert await scene.owed(origin) == 0


async def ready(scene: Scene) -> ResumeDue:
    """An invocation that anybody may claim."""
    lease = await scene.admitted()
    await scene.memory.release(lease, [], after=1, seq=1)
    return ResumeDue(lease.invocation_id, lease.epoch, "S")


async def test_ready_invocations_are_claimed_here(scene: Scene) -> None:
    """Once: whoever comes with the same epoch later finds nothing."""
    due = await ready(scene)
    assert scene.dispatcher.resume(due) is True
    assert scene.dispatcher.resume(due) is True
    await scene.settle()
    assert [claim.lease for claim in scene.claims] == [Lease(due.invocation_id, 2, "token 1", "me")]


@pytest.mark.parametrize("why", ["no room", "another's service"])
async def test_ready_invocations_go_on_elsewhere(scene: Scene, why: str) -> None:
    """Without room, or without their service, this worker leaves them to others."""
    due = await ready(scene)
    scene.room = why != "no room"
    assert scene.dispatcher.resume(due if why == "no room" else due._replace(service="Theirs")) is False
    await scene.settle()
    assert scene.claims == []


async def test_leases_are_expected_while_they_are_asked_for(scene: Scene) -> None:
    """They are renewed before the answer is there, and no longer once it is."""
    due, origin = await ready(scene), await scene.admitted()
    entry = scene.call(origin, service="O", handler="change", key="k")
    position = await scene.write(origin, entry)
    scene.store.gate.clear()
    scene.dispatcher.resume(due)
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await wait_until(lambda: len(scene.dispatcher.expected()) == 2)
    assert scene.dispatcher.expected() == [
        Lease(due.invocation_id, 2, "token 2", "me"),
        Lease(entry.invocation_id, 1, "token 1", "me", "O/k"),
    ]
    scene.store.gate.set()
    await scene.settle()
    assert scene.dispatcher.expected() == []
    assert {claim.lease.token for claim in scene.claims} == {"token 1", "token 2"}


async def test_what_a_failover_may_have_lost_is_not_acknowledged(scene: Scene) -> None:
    """The store was told, and lost its connection before it was answered that it knows: `due` has it told again."""
    origin = await scene.admitted()
    entry = scene.sending(origin)
    position = await scene.write(origin, entry)
    scene.store.gate.clear()
    scene.dispatcher.send(origin.invocation_id, position, entry)
    await asyncio.sleep(0)
    scene.store.losses += 1
    scene.store.gate.set()
    await scene.settle()
    assert len(scene.claims) == 1
    assert scene.store.acknowledged == []
    assert await scene.owed(origin) == 1
