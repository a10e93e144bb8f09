"""What handlers must not ask of others, and how they are told: `perdure.worker.calling`, `callees`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import pytest

from perdure.schemas.entries import OUTGOING, Command
from perdure.schemas.errors import SerdeError, UsageError
from perdure.schemas.limits import HEADERS_MAX, KEY_LENGTH_MAX, NAME_LENGTH_MAX, PAYLOAD_BYTES_MAX
from perdure.worker.calling import Calling
from perdure.worker.context import Context
from perdure.worker.options import InvocationRetryPolicy
from tests.waiting import PATIENCE_S
from tests.worker.attempt_stage import Stage, handler_from, paused_reason
from tests.worker.ensemble import Ensemble
from tests.worker.troupe import Order, Troupe, perform

Use = Callable[[Context, Troupe], Any]

ID = "inv_" + "0" * 27
AWAKEABLE = "awk_" + "0" * 27 + "_1"
HALF = "half a character: \ud83d"
ONCE = InvocationRetryPolicy(max_attempts=1)

USES: dict[str, Use] = {
    "service_call": lambda ctx, troupe: ctx.service_call(troupe.say, None),
    "service_send": lambda ctx, troupe: ctx.service_send(troupe.say, None),
    "object_call": lambda ctx, troupe: ctx.object_call(troupe.add, "k", 1),
    "object_send": lambda ctx, troupe: ctx.object_send(troupe.add, "k", 1),
    "workflow_call": lambda ctx, troupe: ctx.workflow_call(troupe.main, "k", 1),
    "workflow_send": lambda ctx, troupe: ctx.workflow_send(troupe.main, "k", 1),
    "generic_call": lambda ctx, troupe: ctx.generic_call("S", "say", b""),
    "generic_send": lambda ctx, troupe: ctx.generic_send("S", "say", b""),
    "attach_invocation": lambda ctx, troupe: ctx.attach_invocation(ID),
    "cancel_invocation": lambda ctx, troupe: ctx.cancel_invocation(ID),
    "awakeable": lambda ctx, troupe: ctx.awakeable(),
    "resolve_awakeable": lambda ctx, troupe: ctx.resolve_awakeable(AWAKEABLE, 1),
    "reject_awakeable": lambda ctx, troupe: ctx.reject_awakeable(AWAKEABLE, "no"),
    "signal": lambda ctx, troupe: ctx.signal("s"),
    "resolve_signal": lambda ctx, troupe: ctx.resolve_signal(ID, "s", 1),
    "reject_signal": lambda ctx, troupe: ctx.reject_signal(ID, "s", "no"),
}


def test_every_method_is_tried() -> None:
    """Whoever adds one adds it above."""
    assert sorted(USES) == sorted(name for name in vars(Calling) if not name.startswith("_"))


@pytest.mark.parametrize("use", USES)
async def test_none_of_it_is_done_inside_a_step(plain_stage: Stage, troupe: Troupe, use: str) -> None:
    """A step is one opaque action: the message names it, and nothing reaches the journal."""

    async def play(ctx: Context) -> None:
        async def step() -> None:
            USES[use](ctx, troupe)

        await ctx.run("outer", step)

    story = await plain_stage.play(handler_from(play, invocation_retry_policy=ONCE))
    assert "UsageError" in paused_reason(story)
    assert "inside the step 'outer'" in paused_reason(story)
    assert not any(isinstance(entry, OUTGOING) for entry in story.entries)


@pytest.mark.parametrize("use", USES)
async def test_none_of_it_is_done_after_the_attempt(plain_stage: Stage, troupe: Troupe, use: str) -> None:
    """A context that was kept does nothing more."""
    kept: list[Context] = []

    async def play(ctx: Context) -> None:
        kept.append(ctx)

    story = await plain_stage.play(play)
    length = len(story.journal)
    with pytest.raises((asyncio.CancelledError, UsageError)):
        await waited_for(USES[use](kept[0], troupe))
    assert len((await plain_stage.look(story)).journal) == length


async def waited_for(asked: Any) -> None:
    """Wait for what a method of the context returned, as far as there is something to wait for."""
    if isinstance(asked, asyncio.Future):
        async with asyncio.timeout(PATIENCE_S):
            await asked


def named(name: str) -> dict[str, Use]:
    """The uses of a name that is not one, by what it is a name of."""
    return {
        "a key of a call": lambda ctx, troupe: ctx.object_call(troupe.add, name, 1),
        "a key of a send": lambda ctx, troupe: ctx.workflow_send(troupe.main, name, 1),
        "a key of a call by name": lambda ctx, troupe: ctx.generic_call("O", "add", b"1", name),
        "an idempotency key": lambda ctx, troupe: ctx.service_call(troupe.say, None, idempotency_key=name),
        "an idempotency key of a send": lambda ctx, troupe: ctx.service_send(troupe.say, None, idempotency_key=name),
        "a service": lambda ctx, troupe: ctx.generic_call(name, "say", b""),
        "a handler": lambda ctx, troupe: ctx.generic_send("S", name, b""),
        "a signal": lambda ctx, troupe: ctx.signal(name),
        "a signal that is sent": lambda ctx, troupe: ctx.resolve_signal(ID, name, 1),
        "a signal that is rejected": lambda ctx, troupe: ctx.reject_signal(ID, name, "no"),
        "an id": lambda ctx, troupe: ctx.attach_invocation(name),
        "an id that is cancelled": lambda ctx, troupe: ctx.cancel_invocation(name),
        "an id of a signal": lambda ctx, troupe: ctx.resolve_signal(name, "s", 1),
        "an awakeable": lambda ctx, troupe: ctx.resolve_awakeable(name, 1),
        "an awakeable that is rejected": lambda ctx, troupe: ctx.reject_awakeable(name, "no"),
    }


async def refused(plain_stage: Stage, troupe: Troupe, use: Use) -> str:
    """What a handler is told that uses `ctx` wrongly, which must be told at the call and leave nothing behind."""
    told: list[str] = []

    async def play(ctx: Context) -> None:
        with pytest.raises((UsageError, SerdeError)) as caught:
            use(ctx, troupe)
        told.append(f"{type(caught.value).__name__}: {caught.value}")
        # The mistake took no place in the journal.
        await ctx.run("after", lambda: None)

    story = await plain_stage.play(handler_from(play, invocation_retry_policy=ONCE))
    assert story.status == "completed", story.fields.get("last_failure")
    assert [entry.command_index for entry in story.entries if isinstance(entry, get_args(Command))] == [0]
    return told[0]


@pytest.mark.parametrize("what", named(""))
@pytest.mark.parametrize("name", ["", HALF, "x" * (KEY_LENGTH_MAX + 1), 7], ids=["empty", "half", "long", "number"])
async def test_names_have_bounds(plain_stage: Stage, troupe: Troupe, what: str, name: Any) -> None:
    """Nothing, too much, no text and what JSON cannot hold are refused at the call; the message shows it."""
    told = await refused(plain_stage, troupe, named(name)[what])
    assert told.startswith("UsageError: ")
    assert len(told) < 500
    if name == 7:
        assert "7" in told


@pytest.mark.parametrize("characters", [1, KEY_LENGTH_MAX])
async def test_keys_may_be_as_long_as_their_bound(ensemble: Ensemble, troupe: Troupe, characters: int) -> None:
    """Also those that are no ASCII, which count by characters."""
    key = "é" * characters

    async def play(ctx: Context) -> int:
        return await ctx.object_call(troupe.add, key, 1, idempotency_key=key)

    assert (await perform(ensemble, troupe, play)).result == 1


async def test_names_may_be_as_long_as_their_bound(plain_stage: Stage, troupe: Troupe) -> None:
    """A signal, and a service and a handler that are somebody else's."""
    name = "n" * NAME_LENGTH_MAX

    async def play(ctx: Context) -> None:
        ctx.resolve_signal(ID, name, 1)
        ctx.generic_send(name, name, b"")

    assert (await plain_stage.play(play)).status == "completed"
    assert len(plain_stage.sent) == 2


WRONG: dict[str, tuple[Use, str]] = {
    "a service's handler with a key": (
        lambda ctx, troupe: ctx.object_call(troupe.say, "k", None),
        "UsageError: S/say is a handler of a service and not of a virtual object: use service_call or service_send.",
    ),
    "a service's handler as a workflow's": (
        lambda ctx, troupe: ctx.workflow_send(troupe.say, "k", None),
        "UsageError: S/say is a handler of a service and not of a workflow",
    ),
    "an object's handler without a key": (
        lambda ctx, troupe: ctx.service_send(troupe.add, 1),
        "UsageError: O/add is a handler of a virtual object and not of a service: use object_call or object_send.",
    ),
    "an object's handler with no key": (
        lambda ctx, troupe: ctx.object_call(troupe.add, None, 1),  # type: ignore[arg-type] # the mistake
        "UsageError: O/add is a handler of a virtual object: call it with a key.",
    ),
    "a workflow's handler as an object's": (
        lambda ctx, troupe: ctx.object_send(troupe.main, "k", 1),
        "UsageError: W/main is a handler of a workflow and not of a virtual object: use workflow_call or",
    ),
    "a function that is no handler": (
        lambda ctx, troupe: ctx.service_call(test_every_method_is_tried, None),  # type: ignore[arg-type] # the mistake
        "is not a handler. Decorate it with @service.handler().",
    ),
    "a delay without a unit": (
        lambda ctx, troupe: ctx.service_send(troupe.say, None, 5),  # type: ignore[arg-type] # the mistake
        "UsageError: send_delay is a timedelta, not 5.",
    ),
    "a delay without an end": (
        lambda ctx, troupe: ctx.service_send(troupe.say, None, timedelta.max),
        "UsageError: A send to S/say is delayed beyond the year 9999.",
    ),
    "too many headers": (
        lambda ctx, troupe: ctx.service_call(
            troupe.say, None, headers={str(number): "" for number in range(HEADERS_MAX + 1)}
        ),
        "UsageError: A call has at most 100 headers, not 101.",
    ),
    "a header that is a number": (
        lambda ctx, troupe: ctx.service_send(troupe.say, None, headers={"a": 1}),  # type: ignore[dict-item]
        "UsageError: A header is a string, and 1 is of type int.",
    ),
    "half a character in a header": (
        lambda ctx, troupe: ctx.service_send(troupe.say, None, headers={"a": HALF}),
        "UsageError: A header is Unicode text",
    ),
    "half a character in a header's name": (
        lambda ctx, troupe: ctx.generic_call("S", "say", b"", headers={HALF: ""}),
        "UsageError: A header's name is Unicode text",
    ),
    "a large argument of a call": (
        lambda ctx, troupe: ctx.generic_call("S", "turn", b"x" * (PAYLOAD_BYTES_MAX + 1)),
        "SerdeError: The argument of S/turn has 1000001 bytes; at most 1000000 are allowed.",
    ),
    "a large argument of a send": (
        lambda ctx, troupe: ctx.service_send(troupe.linger, "x" * PAYLOAD_BYTES_MAX),
        "SerdeError: The argument of S/linger has 1000002 bytes",
    ),
    "an argument that cannot be written": (
        lambda ctx, troupe: ctx.service_call(troupe.raise_by_one, object()),  # type: ignore[arg-type] # the mistake
        "SerdeError: The argument of S/raise_by_one",
    ),
    "a value that cannot be written": (
        lambda ctx, troupe: ctx.resolve_awakeable(AWAKEABLE, object()),
        "SerdeError: The value",
    ),
    "a signal that cannot be written": (
        lambda ctx, troupe: ctx.resolve_signal(ID, "s", object()),
        "SerdeError: The value",
    ),
    "a large value of an awakeable": (
        lambda ctx, troupe: ctx.resolve_awakeable(AWAKEABLE, "x" * PAYLOAD_BYTES_MAX),
        "SerdeError: The value has 1000002 bytes; at most 1000000 are allowed.",
    ),
    "a large value of a signal": (
        lambda ctx, troupe: ctx.resolve_signal(ID, "s", "x" * PAYLOAD_BYTES_MAX),
        "SerdeError: The value has 1000002 bytes; at most 1000000 are allowed.",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_mistakes_are_told_at_the_call(plain_stage: Stage, troupe: Troupe, mistake: str) -> None:
    """With what is wrong, whose it is, and what to do instead."""
    use, message = WRONG[mistake]
    assert message in await refused(plain_stage, troupe, use)


async def test_as_many_headers_as_allowed(ensemble: Ensemble, troupe: Troupe) -> None:
    """At the bound they travel."""

    async def play(ctx: Context) -> None:
        headers = {str(number): "" for number in range(HEADERS_MAX)}
        await ctx.service_call(troupe.raise_by_one, Order(number=1), headers=headers)

    assert (await perform(ensemble, troupe, play)).status == "completed"
    assert len(troupe.requests[0].headers) == HEADERS_MAX
