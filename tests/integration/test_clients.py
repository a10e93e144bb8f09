"""What clients bring, read and mend, on the lane's servers: keys, workflows, completions, state."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import ConflictError, InvocationNotFoundError, PayloadCodec, TerminalError, UsageError
from perdure.schemas.entries import Signalled, Success
from perdure.schemas.ids import (
    InvocationId,
    awakeable_id,
    id_of_workflow,
    new_invocation_id,
    place_of,
    place_of_object,
)
from perdure.schemas.limits import JOURNAL_ENTRIES_CEILING
from perdure.worker.application import Application, app
from perdure.worker.client import Client
from perdure.worker.clock import system_random
from tests.integration.controlled import Controlled, reach
from tests.integration.deployment import Deployment
from tests.integration.test_controls import running
from tests.waiting import PATIENCE, wait_until


async def test_objects_are_called_by_key(deployment: Deployment) -> None:
    """By function or by name; ids are in the object's place."""
    async with running(deployment) as (world, client):
        assert await client.call(world.add, 2, key="k", timeout=PATIENCE) == 2
        assert await client.call("Account/add", 3, key="k", timeout=PATIENCE) == 5
        assert await client.call(world.total, key="k", timeout=PATIENCE) == 5
        handle = await client.send(world.add, 1, key="other", idempotency_key="once")
        assert place_of(handle.invocation_id) == place_of_object("Account", "other")
        assert not handle.already_accepted
        assert await handle.result(timeout=PATIENCE) == 1
        again = await client.send(world.add, 1, key="other", idempotency_key="once")
        assert (again.invocation_id, again.already_accepted) == (handle.invocation_id, True)
        assert await again.result(timeout=PATIENCE) == 1
        assert await client.read_value(world.account, "other", "total", type_hint=int) == 1


async def test_a_key_is_asked_for(plain: Deployment) -> None:
    """Where there must be one, and where an id says another; by name, too."""
    async with running(plain) as (world, client):
        with pytest.raises(UsageError, match="give key="):
            await client.send(world.add, 1)
        for _ in range(2):
            with pytest.raises(UsageError, match="give key="):
                await client.call("Sign/look", timeout=PATIENCE)
        stray = new_invocation_id("Account", "another", system_random())
        with pytest.raises(UsageError, match="was not made for Account/k"):
            await client.send(world.add, 1, key="k", id=stray)
        fitting = new_invocation_id("Account", "k", system_random())
        assert (await client.send(world.add, 1, key="k", id=fitting)).invocation_id == fitting
        with pytest.raises(UsageError, match="once for each key"):
            await client.send(world.run, "ada", key="w", idempotency_key="mine")


@pytest.mark.parametrize("by", ["function", "name"])
async def test_a_workflow_runs_once_for_each_key(deployment: Deployment, by: str) -> None:
    """A second submit says so, has the same id, and gets the result."""
    async with running(deployment) as (world, client):
        target: Any = world.run if by == "function" else "Sign/run"
        first = await client.send(target, "ada", key="w")
        assert first.invocation_id == id_of_workflow("Sign", "w")
        assert not first.already_accepted
        await reach(first, "running", "suspended")
        second = await client.send(target, "bob", key="w")
        assert (second.invocation_id, second.already_accepted) == (first.invocation_id, True)
        await client.resolve_promise("Sign", "w", "click", "yes")
        assert await first.result(timeout=PATIENCE) == "ada yes"
        assert await second.result(timeout=PATIENCE) == "ada yes"
        assert await client.workflow_run(target, "w").result(timeout=PATIENCE) == "ada yes"
        assert await client.call(target, "eve", key="w", timeout=PATIENCE) == "ada yes"
        assert await client.call(world.look, key="w", timeout=PATIENCE) == "yes"


async def test_promises_are_completed_once(deployment: Deployment) -> None:
    """Before the run begins, peeked at from outside, and no second time."""
    async with running(deployment) as (world, client):
        assert await client.peek_promise(world.sign, "w", "click") is None
        await client.resolve_promise(world.run, "w", "click", "early")
        assert await client.peek_promise(world.sign, "w", "click", type_hint=str) == "early"
        for again in (
            client.resolve_promise("Sign", "w", "click", 2),
            client.reject_promise("Sign", "w", "click", "x"),
        ):
            with pytest.raises(TerminalError, match="completed already") as failed:
                await again
            assert failed.value.status_code == 409
        assert await client.call(world.run, "ada", key="w", timeout=PATIENCE) == "ada early"
        await client.reject_promise(world.sign, "v", "click", "no", 418)
        with pytest.raises(TerminalError, match="no") as failed:
            await client.peek_promise(world.sign, "v", "click")
        assert failed.value.status_code == 418
        with pytest.raises(TerminalError, match="no"):
            await client.call(world.run, "bob", key="v", timeout=PATIENCE)
        with pytest.raises(UsageError, match="needs a key"):
            await client.peek_promise(world.sign, "", "click")
        with pytest.raises(UsageError, match="not the name"):
            await client.peek_promise("Sign/run", "w", "click")


@pytest.mark.parametrize("handler", ["waits", "leaves"])
async def test_awakeables_are_completed_once(deployment: Deployment, handler: str) -> None:
    """In memory or suspended, with a value or a failure; the first one counts."""
    async with running(deployment) as (world, client):
        handle = await client.send(f"Work/{handler}", "x")
        await wait_until(lambda: world.awakeables)
        if handler == "leaves":
            await reach(handle, "suspended")
        assert await client.resolve_awakeable(world.awakeables[0], {"a": 1})
        assert not await client.reject_awakeable(world.awakeables[0], "late")
        assert await handle.result(timeout=PATIENCE) == {"a": 1}
        other = await client.send(f"Work/{handler}", "y")
        await wait_until(lambda: world.effects["y began"] and len(world.awakeables) > 1)
        assert await client.reject_awakeable(world.awakeables[-1], "sorry", 418)
        with pytest.raises(TerminalError, match="sorry") as failed:
            await other.result(timeout=PATIENCE)
        assert failed.value.status_code == 418
        with pytest.raises(UsageError, match="awk_"):
            await client.resolve_awakeable("that")
        unknown = awakeable_id(new_invocation_id("Work", None, system_random()), 0)
        with pytest.raises(InvocationNotFoundError):
            await client.resolve_awakeable(unknown)


async def test_only_awakeables_are_completed_by_their_ids(plain: Deployment) -> None:
    """What another command waits for is not what somebody says; the error names what it is."""
    async with running(plain) as (world, client):
        handle = await client.send("Work/parent", "call")
        await wait_until(lambda: world.awakeables)
        call = awakeable_id(InvocationId(handle.invocation_id), 0)
        with pytest.raises(ConflictError, match=f"Command 0 of {handle.invocation_id} is no awakeable, but of type c"):
            await client.resolve_awakeable(call, "forged")
        nobodys = awakeable_id(InvocationId(handle.invocation_id), JOURNAL_ENTRIES_CEILING)
        with pytest.raises(UsageError, match=f"'{nobodys}' is not the id of an awakeable"):
            await client.resolve_awakeable(nobodys)
        await client.resolve_awakeable(world.awakeables[0], "true")
        assert await handle.result(timeout=PATIENCE) == "true"


async def test_signals_beyond_the_bound_are_refused(plain: Deployment) -> None:
    """The sender is told why, and nothing of it is kept."""
    async with running(plain) as (_, client), plain.store() as store:
        handle = await client.send("Work/leaves", "x")
        await reach(handle, "suspended")
        invocation_id, big = InvocationId(handle.invocation_id), Success(b'"' + b"x" * 999_000 + b'"')
        for number in range(32):
            await store.deliver(invocation_id, Signalled("go", 1, big), once=f"s:{number}")
        with pytest.raises(ConflictError, match="was sent too much"):
            await client.send_signal(invocation_id, "go", "y" * 50_000)
        with pytest.raises(ConflictError, match="was sent too much"):
            await client.send_signal(invocation_id, "go", "y" * 60_000, once="mine")
        await handle.cancel()
        with pytest.raises(TerminalError, match="cancelled"):
            await handle.result(timeout=PATIENCE)


async def test_signals_are_kept_until_they_are_waited_for(deployment: Deployment) -> None:
    """A failure is raised; the same signal counts once; what is completed takes none."""
    async with running(deployment) as (world, client):
        handle = await client.send(world.saga)
        await reach(handle, "running", "suspended")
        assert await client.send_signal(handle.invocation_id, "confirmed", once="mine")
        assert not await client.send_signal(handle.invocation_id, "confirmed", once="mine")
        assert await handle.result(timeout=PATIENCE) == "confirmed"
        assert not await client.send_signal(handle.invocation_id, "confirmed")
        other = await client.send(world.hold, key="k")
        await reach(other, "running", "suspended")
        assert await client.reject_signal(other.invocation_id, "go", "red light")
        with pytest.raises(TerminalError, match="red light"):
            await other.result(timeout=PATIENCE)
        with pytest.raises(UsageError, match="needs a name"):
            await client.send_signal(other.invocation_id, "")
        with pytest.raises(InvocationNotFoundError):
            await client.send_signal(new_invocation_id("Work", None, system_random()), "go")


async def test_state_is_mended_while_nobody_holds_it(deployment: Deployment) -> None:
    """Refused while an exclusive handler has the object, unless forced."""
    async with running(deployment) as (world, client):
        await client.set_state(world.account, "k", {"total": 40, "note": {"by": "me"}})
        assert await client.call(world.add, 2, key="k", timeout=PATIENCE) == 42
        assert await client.read_state("Account", "k") == {"total": 42, "note": {"by": "me"}}
        await client.set_state(world.account, "k", {"only": None}, replace=True)
        assert await client.read_state(world.add, "k") == {"only": None}
        holder = await client.send(world.hold, key="k")
        await wait_until(lambda: world.effects["hold k"])
        for refused in (
            client.set_state(world.account, "k", {"total": 1}),
            client.clear_state(world.account, "k"),
            client.clear_state(world.account, "k", ["only"]),
        ):
            with pytest.raises(ConflictError, match=holder.invocation_id):
                await refused
        await client.set_state(world.account, "k", {"total": 1}, force=True)
        assert await client.read_value(world.account, "k", "total") == 1
        await client.send_signal(holder.invocation_id, "go")
        assert await holder.result(timeout=PATIENCE) == "held"
        await client.clear_state(world.account, "k", ["only", "nothing"])
        await client.clear_state(world.account, "k")
        assert await client.read_state(world.account, "k") == {}
        assert await client.read_value(world.account, "k", "total") is None
        with pytest.raises(UsageError, match="characters"):
            await client.read_state(world.account, "")


async def test_the_state_of_a_run_is_its_own(plain: Deployment) -> None:
    """Refused until the workflow's run has ended."""
    async with running(plain) as (world, client):
        run = await client.send(world.run, "ada", key="w")
        await reach(run, "running", "suspended")
        with pytest.raises(ConflictError, match=run.invocation_id):
            await client.set_state(world.sign, "w", {"name": "eve"})
        await client.resolve_promise(world.sign, "w", "click", "yes")
        await run.result(timeout=PATIENCE)
        await client.set_state(world.sign, "w", {"name": "eve"})
        assert await client.read_state(world.sign, "w") == {"name": "eve"}


async def test_clients_of_another_application_know_names_only(plain: Deployment) -> None:
    """A service that nobody described is taken for what the record says; one whose description is damaged, too."""
    async with running(plain) as (_, client):
        await client._store.describe({"Work": "{", "Sign": '{"kind":"tomorrow"}'})
        assert (await client.call("Work/echo", 1, timeout=PATIENCE))[0] == [1, 1]
        handle = await client.send("Sign/run", "ada", key="w")
        assert handle.invocation_id != id_of_workflow("Sign", "w")


class Backwards(PayloadCodec):
    """Not a secret to anybody, and not JSON."""

    applies_to_failures = True

    def encode(self, data: bytes, /) -> bytes:
        """Turn it round."""
        return b"\x00" + data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        """Likewise."""
        return data[:0:-1]


async def test_values_go_through_the_codec(plain: Deployment) -> None:
    """Arguments, results, completions and state: sealed on their way, and read by clients that have it."""
    world = Controlled()
    services = [world.service, world.account, world.sign]
    application: Application = app(services, payload_codec=Backwards())
    settings = plain.settings
    async with plain.sender(application), plain.worker(application):
        async with Client(settings, payload_codec=Backwards()) as client:
            assert (await client.call(world.echo, "tea", timeout=PATIENCE))[0] == ["tea", "tea"]
            handle = await client.send("Work/waits", "x")
            await wait_until(lambda: world.awakeables)
            await client.resolve_awakeable(world.awakeables[0], [1])
            assert await handle.result(timeout=PATIENCE) == [1]
            await client.set_state(world.account, "k", {"total": 4})
            assert await client.call(world.add, 1, key="k", timeout=PATIENCE) == 5
            assert await client.read_state(world.account, "k") == {"total": 5}
            await client.resolve_promise(world.sign, "w", "click", "yes")
            assert await client.peek_promise(world.sign, "w", "click") == "yes"
            assert await client.call(world.run, "ada", key="w", timeout=PATIENCE) == "ada yes"
            held = await client.send(world.hold, key="k")
            await reach(held, "running", "suspended")
            await client.reject_signal(held.invocation_id, "go", "secret reason")
            with pytest.raises(TerminalError, match="secret reason"):
                await held.result(timeout=PATIENCE)
        async with plain.client() as without:
            assert "tea" not in repr(await without.list_invocations())
            assert "secret reason" not in repr(await without.status(held.invocation_id))


async def test_whether_it_was_accepted_is_what_is_known_at_that_moment(plain: Deployment) -> None:
    """Records on their way are not known yet: both senders are told so, and the one that is read first counts."""
    world = Controlled()
    async with plain.sender(world.application), plain.client() as client:
        fresh = new_invocation_id("Work", None, system_random())
        names: list[dict[str, Any]] = [{"idempotency_key": "once"}, {"id": fresh}]
        for name in names:
            handles = [await client.send("Work/echo", number, **name) for number in (1, 2)]
            assert [handle.already_accepted for handle in handles] == [False, False]
            async with plain.worker(world.application):
                results = [await handle.result(timeout=PATIENCE) for handle in handles]
                assert results[0] == results[1]
                # Without a key they may be in two partitions, which have no order.
                assert results[0][0] in ([1, 1], [2, 2])
                status = await handles[1].status()
                assert status.source is not None
                assert status.source.startswith(f"{plain.topic('Work')}/")
            assert (await client.send("Work/echo", 3, **name)).already_accepted
