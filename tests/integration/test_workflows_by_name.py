"""A workflow of another application, called by name: one run for its key, under the id that all know it by."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import orjson
import pytest

from perdure.schemas.commands import Call
from perdure.schemas.errors import InvocationNotFoundError, TerminalError
from perdure.schemas.ids import id_of_workflow
from perdure.worker.application import Application, app
from perdure.worker.context import Context
from perdure.worker.object_context import ObjectContext, WorkflowContext
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow
from tests.integration.controlled import reach
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until


class Parties:
    """An application with a workflow, and one that knows its name only."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        near, sign = Service("Near", inactivity_timeout=timedelta()), Workflow("Sign")

        @sign.main()
        async def run(ctx: WorkflowContext, name: str) -> str:
            await ctx.run("count", lambda: self.runs.update([ctx.key()]))
            return f"{name} {await ctx.signal('go', type_hint=str)}"

        @near.handler()
        async def calls(ctx: Context, key: str) -> list[str]:
            call = ctx.generic_call("Sign", "run", orjson.dumps("ada"), key=key)
            # Named before the answer, and once more in a replay after it.
            return [await call.invocation_id(), orjson.loads(await call)]

        @near.handler()
        async def sends(ctx: Context, key: str) -> str:
            return await ctx.generic_send("Sign", "run", orjson.dumps("ada"), key=key).invocation_id()

        @near.handler()
        async def cancels(ctx: Context, key: str) -> str:
            call = ctx.generic_call("Sign", "run", orjson.dumps("ada"), key=key)
            await ctx.signal("cancel")
            await call.cancel_invocation()
            try:
                return (await call).decode()
            except TerminalError as error:
                return f"{error.status_code} {error.message}"

        self.near: Application = app([near])
        self.far: Application = app([sign])


@pytest.fixture
def parties() -> Parties:
    """Two applications of this test's own."""
    return Parties()


async def test_a_run_is_the_same_for_all_who_know_its_name(deployment: Deployment, parties: Parties) -> None:
    """It runs once for two callers and a sender, and each of them can say which invocation it is."""
    run = id_of_workflow("Sign", "k")
    async with (
        deployment.sender(parties.far),
        deployment.sender(parties.near),
        deployment.worker(parties.far),
        deployment.worker(parties.near),
        deployment.client() as client,
    ):
        handles = [await client.send("Near/calls", "k") for _ in range(2)]
        assert await client.call("Near/sends", "k", timeout=PATIENCE) == run
        await wait_until(lambda: parties.runs["k"], description="the run began")
        await client.send_signal(run, "go", "lovelace")
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == [[run, "ada lovelace"]] * 2
        assert parties.runs == {"k": 1}


async def test_a_run_is_cancelled_by_who_called_it_by_name(deployment: Deployment, parties: Parties) -> None:
    """The cancellation finds it."""
    async with (
        deployment.sender(parties.far),
        deployment.sender(parties.near),
        deployment.worker(parties.far),
        deployment.worker(parties.near),
        deployment.client() as client,
    ):
        handle = await client.send("Near/cancels", "k")
        await wait_until(lambda: parties.runs["k"], description="the run began")
        await client.send_signal(handle.invocation_id, "cancel")
        assert await handle.result(timeout=PATIENCE) == "409 cancelled"
        with pytest.raises(TerminalError, match="cancelled"):
            await client.result(id_of_workflow("Sign", "k"), timeout=PATIENCE)


async def test_a_workflow_that_is_deployed_later_is_learnt(plain: Deployment, parties: Parties) -> None:
    """A worker that runs already knows within a heartbeat or two what others have begun to run."""
    run = id_of_workflow("Sign", "k")
    async with (
        plain.sender(parties.far),
        plain.sender(parties.near),
        plain.worker(parties.near) as engine,
        plain.worker(parties.far),
        plain.client() as client,
    ):
        await wait_until(lambda: ("Sign", "run") in engine._attempts.mains, description="it is known to be a workflow")
        assert await client.call("Near/sends", "k", timeout=PATIENCE) == run


async def test_what_nobody_has_described_yet_still_runs_once(deployment: Deployment, parties: Parties) -> None:
    """Two call a workflow whose worker has never been up; it knows the run's id, and answers both."""
    async with (
        deployment.sender(parties.far),
        deployment.sender(parties.near),
        deployment.worker(parties.near),
        deployment.client() as client,
    ):
        handles = [await client.send("Near/calls", "k") for _ in range(2)]

        for handle in handles:
            await reach(handle, "suspended")

        async def called() -> bool:
            seen = [[row.entry async for row in client.journal(handle.invocation_id)] for handle in handles]
            return all(any(isinstance(entry, Call) for entry in entries) for entries in seen)

        await wait_until(called, description="both have called")
        async with deployment.worker(parties.far):
            await wait_until(lambda: parties.runs["k"], description="the run began")
            await client.send_signal(id_of_workflow("Sign", "k"), "go", "lovelace")
            results = [await handle.result(timeout=PATIENCE) for handle in handles]
        assert [result[1] for result in results] == ["ada lovelace"] * 2
        # An id that was told once is told by every replay, whatever is learnt meanwhile.
        for handle, (told, _) in zip(handles, results, strict=True):
            calls = [row.entry async for row in client.journal(handle.invocation_id) if isinstance(row.entry, Call)]
            assert [call.invocation_id for call in calls] == [told]
        assert parties.runs == {"k": 1}


async def test_a_client_that_was_first_finds_the_run(deployment: Deployment, parties: Parties) -> None:
    """It sent by name before any worker had said that this is a workflow; its handle waits for the run of the key."""
    run = id_of_workflow("Sign", "k")
    async with deployment.sender(parties.far), deployment.client() as client:
        first = await client.send("Sign/run", "ada", key="k")
        with pytest.raises(TimeoutError, match=f"{first.invocation_id} had no outcome in time: no worker"):
            await first.result(timeout=timedelta(milliseconds=50))
        with pytest.raises(InvocationNotFoundError):
            await first.status()
        waiting = asyncio.create_task(first.result(timeout=PATIENCE))
        calling = asyncio.create_task(client.call("Sign/run", "ada", key="k", timeout=PATIENCE))
        async with deployment.worker(parties.far):
            await wait_until(lambda: parties.runs["k"], description="the run began")
            assert (await first.status()).id == run
            second = await client.send("Sign/run", "bob", key="k")
            assert (second.invocation_id, second.already_accepted) == (run, True)
            await client.send_signal(run, "go", "lovelace")
            assert await waiting == await calling == await second.result(timeout=PATIENCE) == "ada lovelace"
        assert parties.runs == {"k": 1}


async def test_a_client_that_was_first_cancels_the_run(plain: Deployment, parties: Parties) -> None:
    """What a handle does, it does to the run."""
    async with plain.sender(parties.far), plain.client() as client:
        first = await client.send("Sign/run", "ada", key="k", idempotency_key="mine")
        async with plain.worker(parties.far):
            await wait_until(lambda: parties.runs["k"], description="the run began")
            assert (await first.cancel()).invocation_id == id_of_workflow("Sign", "k")
            with pytest.raises(TerminalError, match="cancelled"):
                await first.result(timeout=PATIENCE)


async def test_what_is_no_main_keeps_its_id(plain: Deployment, parties: Parties) -> None:
    """An exclusive handler that nobody had described yet is not taken for a run."""
    thing = VirtualObject("Thing")

    @thing.handler()
    async def double(ctx: ObjectContext, number: int) -> int:
        return 2 * number

    async with plain.sender(app([thing])), plain.client() as client:
        first = await client.send("Thing/double", 2, key="k")
        async with plain.worker(app([thing])):
            assert await first.result(timeout=PATIENCE) == 4
            assert (await first.status()).id == first.invocation_id
