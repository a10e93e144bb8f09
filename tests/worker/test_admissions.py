"""From "invoke this" to what admission writes: `perdure.worker.admissions`."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from perdure.journal.store import Claim, Claimed, Lease
from perdure.schemas.entries import Input, Positioned
from perdure.schemas.errors import DecodeError, HandlerNotFoundError
from perdure.schemas.ids import InvocationId, id_of_workflow, new_invocation_id, place_of, place_of_object
from perdure.schemas.limits import KEY_LENGTH_MAX, QUEUE_MAX
from perdure.worker.admissions import SERVICE_QUEUE_MAX, Invoke, admission_of, first_claim, handler_for
from perdure.worker.application import Application, app
from perdure.worker.handler import HandlerMode, ServiceKind
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

CHANCE = random.Random(7)


@pytest.fixture(scope="module")
def application() -> Application:
    """A service, an object with a queue of its own bound, one without, and a workflow."""
    service, thing, plain, flow = Service("S"), VirtualObject("O", queue_max=5), VirtualObject("P"), Workflow("W")

    async def h(ctx: Any, argument: Any) -> None:
        raise AssertionError("nothing runs here")

    async def change(ctx: Any) -> None:
        raise AssertionError("nothing runs here")

    async def look(ctx: Any) -> None:
        raise AssertionError("nothing runs here")

    async def change_plain(ctx: Any) -> None:
        raise AssertionError("nothing runs here")

    async def main(ctx: Any) -> None:
        raise AssertionError("nothing runs here")

    async def beside(ctx: Any) -> None:
        raise AssertionError("nothing runs here")

    service.handler()(h)
    thing.handler("change")(change)
    thing.handler("look", kind="shared")(look)
    plain.handler("change")(change_plain)
    flow.main("main")(main)
    flow.handler("beside")(beside)
    return app([service, thing, plain, flow])


def wanted(service: str, handler: str, key: str | None = None, **fields: Any) -> Invoke:
    """An invocation that somebody wants, whose id is in the right place unless one is given."""
    invocation_id = fields.pop("invocation_id", None) or new_invocation_id(service, key, CHANCE)
    return Invoke(service, handler, key, invocation_id, 1, (), b'"x"', **fields)


def test_everything_that_was_wanted_is_written(application: Application) -> None:
    """Nothing of it is lost on the way."""
    fields: dict[str, Any] = {
        "not_before_ms": 5,
        "idempotency_key": "once",
        "source": "somewhere",
        "caller": "somebody",
        "reply_to": "topic",
        "waiter": "channel",
    }
    asked = wanted("S", "h", **fields)._replace(headers=(("a", b"1"),), at_ms=9)
    admission = admission_of(application, asked, token="t", worker="me")
    assert (admission.invocation_id, admission.service, admission.handler) == (asked.invocation_id, "S", "h")
    assert admission.input == Input(9, "me", (("a", b"1"),), b'"x"')
    assert (admission.token, admission.worker) == ("t", "me")
    assert {name: getattr(admission, name) for name in fields} == fields


MODES = [
    ("S", "h", "ignored", "", None, SERVICE_QUEUE_MAX),
    ("O", "change", "k", "exclusive", "k", 5),
    ("O", "look", "k", "", "k", 5),
    ("P", "change", "k", "exclusive", "k", QUEUE_MAX),
    ("W", "main", "k", "main", "k", QUEUE_MAX),
    ("W", "beside", "k", "", "k", QUEUE_MAX),
]


@pytest.mark.parametrize(("service", "handler", "key", "mode", "written_key", "queue_max"), MODES)
def test_mode_key_and_queue_follow_from_the_handler(
    application: Application, service: str, handler: str, key: str, mode: str, written_key: str | None, queue_max: int
) -> None:
    """Exclusive handlers and runs alone have a mode; services have no keys."""
    asked = wanted(service, handler, key)
    admission = admission_of(application, asked, token="t", worker="me")
    assert (admission.mode, admission.key, admission.queue_max) == (mode, written_key, queue_max)
    assert admission.target == ("" if written_key is None else f"{service}/{written_key}")


@pytest.mark.parametrize("given", ["in its place", "elsewhere"])
def test_the_run_of_a_workflow_has_one_id(application: Application, given: str) -> None:
    """Whatever id was given; other handlers of the workflow keep theirs."""
    key = "k" if given == "in its place" else None
    asked = wanted("W", "main", "k", invocation_id=new_invocation_id("W", key, CHANCE))
    assert admission_of(application, asked, token="t", worker="me").invocation_id == id_of_workflow("W", "k")
    beside = wanted("W", "beside", "k")
    assert admission_of(application, beside, token="t", worker="me").invocation_id == beside.invocation_id


def test_how_long_an_outcome_is_kept_follows_from_the_handler() -> None:
    """So that it is known to who ends an invocation without an attempt, too; with nothing said, an hour or a day."""
    service, flow = Service("Kept", journal_retention=timedelta(hours=2)), Workflow("Flow")

    async def plain(ctx: Any) -> None:
        raise AssertionError("nothing runs here")

    async def long(ctx: Any) -> None:
        raise AssertionError("nothing runs here")

    async def main(ctx: Any) -> None:
        raise AssertionError("nothing runs here")

    service.handler()(plain)
    service.handler(idempotency_retention=timedelta(hours=5))(long)
    flow.main(workflow_retention=timedelta(hours=7))(main)
    application, hour = app([service, flow]), 3_600_000

    def kept(service: str, handler: str, key: str | None = None, **fields: Any) -> list[int]:
        admission = admission_of(application, wanted(service, handler, key, **fields), token="t", worker="w")
        return [admission.retention_ms // hour, admission.journal_retention_ms // hour]

    assert kept("Kept", "plain") == [2, 2]
    assert kept("Kept", "plain", idempotency_key="i") == [24, 2]
    assert kept("Kept", "long") == [5, 2]
    assert kept("Flow", "main", "k") == [7, 1]
    assert kept("Kept", "unknown") == [1, 1]
    assert kept("Kept", "unknown", idempotency_key="i") == [24, 1]


@pytest.mark.parametrize(("service", "handler"), [("O", "change"), ("O", "look"), ("W", "beside")])
def test_an_id_must_be_in_the_place_of_its_object(application: Application, service: str, handler: str) -> None:
    """Else it would be kept in another slot than what it waits for; the message says how to make one that is."""
    other = (place_of_object(service, "k") + 1) % 1024
    misplaced = InvocationId(f"inv_{other:03x}" + "0" * 24)
    with pytest.raises(DecodeError, match=f"{misplaced} is not in the place of {service}/k: leave the id out, or"):
        admission_of(application, wanted(service, handler, "k", invocation_id=misplaced), token="t", worker="me")
    placed = InvocationId(f"inv_{place_of_object(service, 'k'):03x}" + "0" * 24)
    admission = admission_of(application, wanted(service, handler, "k", invocation_id=placed), token="t", worker="me")
    assert place_of(admission.invocation_id) == place_of_object(service, "k")


@pytest.mark.parametrize(("service", "handler"), [("O", "change"), ("O", "look"), ("W", "main"), ("W", "beside")])
@pytest.mark.parametrize("key", [None, ""])
def test_what_has_keys_needs_one(application: Application, service: str, handler: str, key: str | None) -> None:
    """The message says where it is looked for."""
    asked = wanted(service, handler, "k")._replace(key=key)
    with pytest.raises(DecodeError, match=f"{service}/{handler} needs the key of its .*: as the record's key"):
        admission_of(application, asked, token="t", worker="me")


def test_a_key_has_a_bound(application: Application) -> None:
    """At most so many characters, also of those that are several bytes."""
    longest = "é" * KEY_LENGTH_MAX
    assert admission_of(application, wanted("O", "change", longest), token="t", worker="me").key == longest
    with pytest.raises(DecodeError, match="The key has 513 characters; at most 512 are allowed"):
        admission_of(application, wanted("O", "change", longest + "é"), token="t", worker="me")


def test_a_service_may_have_queues(application: Application) -> None:
    """What waits in one is exclusive in it, and the queue's name stands where a key would."""
    asked = wanted("S", "h", "ignored", queue="topic/3")
    admission = admission_of(application, asked, token="t", worker="me")
    assert (admission.mode, admission.key, admission.queue_max) == ("exclusive", "topic/3", SERVICE_QUEUE_MAX)


@pytest.mark.parametrize(("handler", "mode"), [("change", "exclusive"), ("look", "")])
def test_objects_have_queues_of_their_own(application: Application, handler: str, mode: str) -> None:
    """A queue that was asked for changes nothing for them."""
    admission = admission_of(application, wanted("O", handler, "k", queue="topic/3"), token="t", worker="me")
    assert (admission.key, admission.mode, admission.queue_max) == ("k", mode, 5)


UNKNOWN = [
    ("S", ServiceKind.SERVICE, HandlerMode.PLAIN, None, ""),
    ("O", ServiceKind.OBJECT, HandlerMode.EXCLUSIVE, "k", "exclusive"),
    ("W", ServiceKind.WORKFLOW, HandlerMode.EXCLUSIVE, "k", "exclusive"),
    ("Nobody", ServiceKind.SERVICE, HandlerMode.PLAIN, None, ""),
]


@pytest.mark.parametrize(("service", "kind", "mode", "key", "written_mode"), UNKNOWN)
async def test_an_unknown_handler_is_stood_in_for(
    application: Application, service: str, kind: ServiceKind, mode: HandlerMode, key: str | None, written_mode: str
) -> None:
    """It fails retryably, since another worker may have it; what may turn out to be exclusive waits its turn."""
    handler = handler_for(application, service, "nothing")
    assert (handler.target, handler.kind, handler.mode) == (f"{service}/nothing", kind, mode)
    with pytest.raises(HandlerNotFoundError, match=f"No worker here has a handler {service}/nothing"):
        await handler.fn(None)
    admission = admission_of(application, wanted(service, "nothing", "k"), token="t", worker="me")
    assert (admission.key, admission.mode, admission.queue_max) == (
        key,
        written_mode,
        SERVICE_QUEUE_MAX if key is None else QUEUE_MAX,
    )


def test_a_known_handler_is_found(application: Application) -> None:
    """With the application's options."""
    assert handler_for(application, "O", "look") is application.handler("O", "look")


@pytest.mark.parametrize("state", [None, {"a": b"1"}])
def test_the_first_attempt_starts_from_what_was_written(
    application: Application, state: dict[str, bytes] | None
) -> None:
    """Its claim is as if it had been read back, without another round trip."""
    asked = wanted("O", "change", "k", idempotency_key="once", source="somewhere")
    admission = admission_of(application, asked, token="t", worker="me")
    lease = Lease(admission.invocation_id, 1, "t", "me", "O/k")
    assert first_claim(admission, Claimed(lease, state)) == Claim(
        lease=lease,
        service="O",
        handler="change",
        key="k",
        idempotency_key="once",
        failures=0,
        admitted_at_ms=1,
        entries=[Positioned(1, 1, Input(1, "me", (), b'"x"'))],
        mode="exclusive",
        state=state,
        source="somewhere",
    )
