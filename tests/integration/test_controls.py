"""What clients do to invocations, on the lane's servers: each control in each status, plainly and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from perdure import Client, ConflictError, InvocationFilter, InvocationNotFoundError, TerminalError, UsageError
from perdure.schemas.commands import SignalWait
from perdure.schemas.entries import Cancelled, PauseAsked, Paused, Resumed, Run
from perdure.schemas.ids import new_invocation_id
from perdure.worker.clock import system_random
from tests.integration.controlled import HOUR, STATUSES, Controlled, reach
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until


@asynccontextmanager
async def running(deployment: Deployment) -> AsyncIterator[tuple[Controlled, Client]]:
    """The application on a worker, and a client."""
    world = Controlled()
    application = world.application
    async with deployment.sender(application), deployment.worker(application), deployment.client() as client:
        yield world, client


async def entries(client: Client, invocation_id: str) -> list[object]:
    """The journal."""
    return [row.entry async for row in client.journal(invocation_id)]


@pytest.mark.parametrize("status", STATUSES)
async def test_cancel_in_every_status(deployment: Deployment, status: str) -> None:
    """What has not begun ends; what stands somewhere sees it where it waits, steps are finished before."""
    async with running(deployment) as (world, client):
        handle = await world.put(client, status)
        world.broken = False
        control = await handle.cancel()
        if status == "completed":
            assert (control.changed, control.status) == (False, "completed")
            return
        assert control.changed
        world.gate.set()
        with pytest.raises(TerminalError, match="cancelled") as failed:
            await handle.result(timeout=PATIENCE)
        assert failed.value.status_code == 409
        assert any(isinstance(entry, Cancelled) for entry in await entries(client, handle.invocation_id))
        if status == "step":
            assert world.effects["step"] == 1
            assert world.effects["second step"] == 0
        assert not (await handle.cancel()).changed


@pytest.mark.parametrize("status", STATUSES)
async def test_kill_in_every_status(deployment: Deployment, status: str) -> None:
    """It is over at once, whatever the handler does, and stays so."""
    async with running(deployment) as (world, client):
        handle = await world.put(client, status)
        control = await handle.kill()
        assert control.changed == (status != "completed")
        if status == "completed":
            return
        assert (await handle.status()).status == "completed"
        with pytest.raises(TerminalError, match="killed") as failed:
            await handle.result(timeout=PATIENCE)
        assert failed.value.status_code == 409
        assert (await handle.kill()).status == "completed"
        world.gate.set()
        # What runs is told, and its worker is free.
        assert (await client.call(world.echo, 1, timeout=PATIENCE))[0] == [1, 1]
        assert (await handle.status()).status == "completed"


@pytest.mark.parametrize("status", STATUSES)
async def test_pause_and_resume_in_every_status(deployment: Deployment, status: str) -> None:
    """What runs finishes its steps first; resumed, it goes on where it stood."""
    async with running(deployment) as (world, client):
        handle = await world.put(client, status)
        control = await handle.pause()
        if status in ("scheduled", "pending", "paused", "completed"):
            assert (control.changed, control.status) == (False, status)
        else:
            assert control.changed
        if status in ("scheduled", "pending", "completed"):
            assert (await handle.resume()).status == status
            return
        if status == "step":
            assert (await handle.status()).status == "running"
            world.gate.set()
        await reach(handle, "paused")
        journal = await entries(client, handle.invocation_id)
        assert any(isinstance(entry, Paused | PauseAsked) for entry in journal)
        if status == "step":
            assert [entry.name for entry in journal if isinstance(entry, Run)] == ["gated"]
            assert world.effects["second step"] == 0
        assert not (await handle.pause()).changed
        world.broken = False
        assert (await handle.resume()).changed
        await reach(handle, "running", "suspended", "completed", "ready")
        if status != "step":
            await wait_until(lambda: world.awakeables)
            await client.resolve_awakeable(world.awakeables[-1], "done")
        assert await handle.result(timeout=PATIENCE) == ("stepped" if status == "step" else "done")
        assert world.effects["step"] == (1 if status == "step" else 0)
        assert any(isinstance(entry, Resumed) for entry in await entries(client, handle.invocation_id))
        assert not (await handle.resume()).changed


@pytest.mark.parametrize("status", STATUSES)
async def test_purge_and_restart_in_every_status(plain: Deployment, status: str) -> None:
    """Only what is completed can be forgotten, or begun anew; what is not is left alone."""
    async with running(plain) as (world, client):
        handle = await world.put(client, status)
        if status != "completed":
            assert not (await handle.purge()).changed
            with pytest.raises(ConflictError, match="only what is completed"):
                await client.restart_as_new(handle.invocation_id)
            return
        again = await client.restart_as_new(handle.invocation_id)
        assert again.changed
        assert again.invocation_id != handle.invocation_id
        assert (await client.attach(again.invocation_id).result(timeout=PATIENCE))[:2] == [[1, 1], 2]
        assert (await client.status(again.invocation_id)).source == f"restart of {handle.invocation_id}"
        assert (await handle.purge()).changed
        with pytest.raises(InvocationNotFoundError):
            await handle.status()
        with pytest.raises(InvocationNotFoundError):
            await handle.purge()
        with pytest.raises(InvocationNotFoundError):
            await client.restart_as_new(handle.invocation_id)


async def test_a_restart_keeps_what_it_is_told_to(deployment: Deployment) -> None:
    """Kept commands are not done again, and the input is the same, headers too."""
    async with running(deployment) as (world, client):
        handle = await client.send(world.echo, 7, headers={"who": "me"})
        first = await handle.result(timeout=PATIENCE)
        assert (first[0], first[2]) == ([7, 7], ["who"])
        runs = {keep: await client.restart_as_new(handle.invocation_id, keep=keep) for keep in (0, 1, 2)}
        results = {
            keep: await client.attach(control.invocation_id, world.echo).result(timeout=PATIENCE)
            for keep, control in runs.items()
        }
        assert all(result[0] == [7, 7] and result[2] == ["who"] for result in results.values())
        assert results[2][1] == first[1]
        assert results[0][1] > first[1]
        assert results[1][1] > first[1]
        named = await client.restart_as_new(handle.invocation_id, new_id=runs[0].invocation_id)
        assert (named.changed, named.status) == (False, "known")
        with pytest.raises(UsageError, match="has 2 commands"):
            await client.restart_as_new(handle.invocation_id, keep=3)


async def test_a_cancellation_goes_through_calls_and_not_through_sends(deployment: Deployment) -> None:
    """Who is called ends with its caller; who was sent goes on."""
    async with running(deployment) as (world, client):
        handle = await client.send(world.parent, "send")
        await wait_until(lambda: len(world.awakeables) == 2)
        await handle.cancel()
        with pytest.raises(TerminalError, match="cancelled"):
            await handle.result(timeout=PATIENCE)

        async def one_has_ended() -> bool:
            page = await client.list_invocations(InvocationFilter(handler="waits"))
            return sorted(view.status == "completed" for view in page.invocations) == [False, True]

        # The caller does not wait for it.
        await wait_until(one_has_ended)
        for awakeable in world.awakeables:
            await client.resolve_awakeable(awakeable, "end")
        await wait_until(lambda: world.effects["sent ended"])


async def test_a_kill_goes_through_calls_and_frees_objects(deployment: Deployment) -> None:
    """The callee is killed, the object that it held is the next one's."""
    async with running(deployment) as (world, client):
        handle = await client.send("Work/holds", "k")
        await wait_until(lambda: world.effects["hold k"])
        following = await client.send(world.add, 3, key="k")
        await reach(following, "pending")
        assert (await handle.kill()).changed
        assert await following.result(timeout=PATIENCE) == 3
        page = await client.list_invocations(InvocationFilter(handler="hold"))
        assert [view.status for view in page.invocations] == ["completed"]
        with pytest.raises(TerminalError, match="killed with its caller"):
            await client.result(page.invocations[0].id, timeout=PATIENCE)


async def test_compensations_run_and_a_second_cancellation_interrupts_them(deployment: Deployment) -> None:
    """The first one is caught and undone; the second one reaches what undoes it."""
    async with running(deployment) as (world, client):
        handle = await client.send(world.saga)
        await wait_until(lambda: _waits_for(client, handle.invocation_id, "confirmed"))
        await handle.cancel()
        await wait_until(lambda: _waits_for(client, handle.invocation_id, "refunded"))
        await client.cancel(handle.invocation_id, once="the second")
        with pytest.raises(TerminalError, match="twice: cancelled"):
            await handle.result(timeout=PATIENCE)
        assert not (await client.cancel(handle.invocation_id, once="the second")).changed
        assert world.effects == {"book": 1, "unbook": 1, "give up": 1}


@pytest.mark.parametrize("action", ["cancel", "kill"])
async def test_what_was_called_by_what_was_called_ends_too(deployment: Deployment, action: str) -> None:
    """To the end of the chain."""
    async with running(deployment) as (world, client):
        handle = await client.send("Work/grandparent")
        await wait_until(lambda: world.awakeables)
        await getattr(handle, action)()
        with pytest.raises(TerminalError, match="cancelled" if action == "cancel" else "killed"):
            await handle.result(timeout=PATIENCE)

        async def all_ended() -> bool:
            page = await client.list_invocations(InvocationFilter(statuses=("completed",)))
            return {view.handler for view in page.invocations} == {"grandparent", "parent", "waits"}

        await wait_until(all_ended)


async def _waits_for(client: Client, invocation_id: str, signal: str) -> bool:
    try:
        found = await entries(client, invocation_id)
    except InvocationNotFoundError:
        return False
    return any(isinstance(entry, SignalWait) and entry.name == signal for entry in found)


async def test_the_same_cancellation_counts_once(deployment: Deployment) -> None:
    """By a name of the caller's; compensations go on, and are not disturbed."""
    async with running(deployment) as (world, client):
        handle = await client.send(world.saga)
        await wait_until(lambda: _waits_for(client, handle.invocation_id, "confirmed"))
        assert (await client.cancel(handle.invocation_id, once="mine")).changed
        await wait_until(lambda: world.effects["unbook"])
        assert (await client.cancel(handle.invocation_id, once="mine")).status == "known"
        assert await client.send_signal(handle.invocation_id, "refunded")
        with pytest.raises(TerminalError, match="cancelled") as failed:
            await handle.result(timeout=PATIENCE)
        assert failed.value.status_code == 409


async def test_many_are_met_by_a_filter(plain: Deployment) -> None:
    """First only named, then done up to a bound; who is in another status is left alone."""
    async with running(plain) as (world, client):
        handles = [await client.send("Work/breaks") for _ in range(5)]
        others = [await client.send("Work/fails") for _ in range(2)]
        for handle in handles:
            await reach(handle, "paused")
        unlucky = InvocationFilter(failure="out of luck", handler="breaks")
        dry = await client.control_many("resume", unlucky, dry_run=True)
        assert {view.id for view in dry.chosen} == {handle.invocation_id for handle in handles}
        assert (dry.results, dry.more) == ((), False)
        world.broken = False
        some = await client.control_many("resume", unlucky, limit=3)
        assert (len(some.results), some.more) == (3, True)
        assert all(result.changed for result in some.results)
        await wait_until(lambda: len(world.awakeables) == 3)
        rest = await client.control_many("resume", unlucky)
        assert (len(rest.results), rest.more) == (2, False)
        await wait_until(lambda: len(world.awakeables) == 5)
        killed = await client.control_many("kill", InvocationFilter(service="Work", older_than=timedelta(0)))
        assert len(killed.results) == 7
        for handle in (*handles, *others):
            with pytest.raises(TerminalError, match="killed"):
                await handle.result(timeout=PATIENCE)
        purged = await client.control_many("purge", InvocationFilter(service="Work"))
        assert len(purged.results) == 7
        restarted = await client.control_many("restart", InvocationFilter(handler="nothing"))
        assert (restarted.chosen, restarted.results) == ((), ())


async def test_what_is_refused_is_told_for_each(plain: Deployment) -> None:
    """A workflow's run cannot begin anew; the others do."""
    async with running(plain) as (world, client):
        run = await client.send(world.run, "ada", key="w")
        await reach(run, "running", "suspended")
        await client.kill(run.invocation_id)
        await client.call(world.echo, 1, timeout=PATIENCE)
        bulk = await client.control_many("restart", InvocationFilter())
        assert list(bulk.errors) == [run.invocation_id]
        assert "purge it" in bulk.errors[run.invocation_id]
        assert len(bulk.results) == 1


async def test_what_cannot_be_asked_is_refused(plain: Deployment) -> None:
    """Ids that are none, ids that nobody knows, actions and bounds that do not exist."""
    async with running(plain) as (_, client):
        unknown = new_invocation_id("Work", None, system_random())
        for action in ("cancel", "kill", "pause", "resume", "purge", "restart"):
            with pytest.raises(InvocationNotFoundError, match=unknown):
                await client.control(action, unknown)
            with pytest.raises(UsageError, match="inv_"):
                await client.control(action, "that")
        with pytest.raises(UsageError, match="no action 'stop'"):
            await client.control("stop", unknown)  # type: ignore[arg-type] # that is the mistake
        with pytest.raises(UsageError, match="no action 'stop'"):
            await client.control_many("stop", InvocationFilter())  # type: ignore[arg-type] # likewise
        with pytest.raises(UsageError, match="limit=0"):
            await client.control_many("kill", InvocationFilter(), limit=0)


async def test_what_is_purged_leaves_nothing_behind(plain: Deployment) -> None:
    """Completed, killed with callees, cancelled, queued, workflows with promises: no key is left."""
    async with running(plain) as (world, client):
        await client.call(world.echo, 1, timeout=PATIENCE)
        await client.call(world.add, 1, key="k", timeout=PATIENCE)
        run = await client.send(world.run, "ada", key="w")
        await client.resolve_promise(world.sign, "w", "click", "yes")
        assert await run.result(timeout=PATIENCE) == "ada yes"
        late = await client.send("Work/waits", "x", delay=HOUR)
        await reach(late, "scheduled")
        await late.cancel()
        parent = await client.send(world.parent, "call")
        await wait_until(lambda: world.awakeables)
        await parent.kill()
        held = await client.send(world.hold, key="k2")
        queued = await client.send(world.hold, key="k2")
        await reach(queued, "pending")
        await queued.kill()
        await held.cancel()
        with pytest.raises(TerminalError):
            await held.result(timeout=PATIENCE)
        await client.clear_state(world.account, "k")
        await client.clear_state(world.account, "k2")

        async def all_purged() -> bool:
            await client.control_many("purge", InvocationFilter())
            return not (await client.list_invocations()).invocations

        await wait_until(all_purged)
        await wait_until(lambda: _nothing_left(client), description="no key is left")


async def _nothing_left(client: Client) -> bool:
    pattern = f"{client._settings.namespace}:{{*"
    found: list[bytes] = await client._store._wires[0].call((b"KEYS", pattern), lambda reply: reply)
    return not found


async def test_what_is_kept_for_a_while_is_gone_after_it(plain: Deployment) -> None:
    """Results, failures, journals, calls and their replies, a workflow with its state: no key is left."""
    kept = timedelta(seconds=1)
    world = Controlled(retention=kept)
    application = world.application
    async with plain.sender(application), plain.worker(application), plain.client() as client:
        await client.call(world.echo, 1, timeout=PATIENCE)
        await client.call(world.echo, 2, idempotency_key="mine", timeout=PATIENCE)
        parent = asyncio.create_task(client.call(world.parent, "call", timeout=PATIENCE))
        await wait_until(lambda: world.awakeables)
        await client.reject_awakeable(world.awakeables[0], "no")
        with pytest.raises(TerminalError, match="no"):
            await parent
        await client.resolve_promise(world.sign, "w", "click", "yes")
        assert await client.call(world.run, "ada", key="w", timeout=PATIENCE) == "ada yes"
        assert await client.call(world.add, 1, key="k", timeout=PATIENCE) == 1
        # What an object holds is kept until somebody removes it.
        await client.clear_state(world.account, "k")
        await wait_until(lambda: _nothing_left(client), description="no key is left")


async def test_pages_of_a_listing(plain: Deployment) -> None:
    """Each once, over several pages; a journal can be followed to its end."""
    async with running(plain) as (world, client):
        handles = [await client.send(world.echo, n) for n in range(5)]
        for handle in handles:
            await handle.result(timeout=PATIENCE)
        found: list[str] = []
        cursor = None
        while True:
            page = await client.list_invocations(InvocationFilter(handler="echo"), limit=2, cursor=cursor)
            found += [view.id for view in page.invocations]
            if page.cursor is None:
                break
            cursor = page.cursor
        assert sorted(found) == sorted(handle.invocation_id for handle in handles)
        handle = await client.send("Work/step")
        await wait_until(lambda: world.effects["step began"])

        async def follow() -> list[str]:
            return [type(row.entry).__name__ async for row in client.journal(handle.invocation_id, follow=True)]

        following = asyncio.create_task(follow())
        world.gate.set()
        names = await following
        assert (names[0], names[-1], names.count("Run")) == ("Input", "Output", 2)
