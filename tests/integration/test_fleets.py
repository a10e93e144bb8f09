"""Several workers of one namespace: rolling deployments, rebalances, what one leaves for the others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from perdure.journal.redis_line import Line
from perdure.journal.store import Admission, Claimed
from perdure.schemas.entries import AttemptFailed, Input
from perdure.schemas.ids import new_invocation_id
from perdure.worker.application import Application, app
from perdure.worker.clock import system_random
from perdure.worker.context import Context
from perdure.worker.kafka_admin import describe_cluster
from perdure.worker.options import InvocationRetryPolicy, RunOptions
from perdure.worker.service import Service
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until

MS = timedelta(milliseconds=1)


class Plant:
    """A service whose steps wait for the test, and counters of what they did."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.held: list[weakref.ref[Any]] = []

    def application(self, *, with_new: bool = True) -> Application:
        """Made anew for each worker, as each process would."""
        service = Service("Plant", invocation_retry_policy=InvocationRetryPolicy(initial_interval=20 * MS))

        @service.handler()
        async def work(ctx: Context, name: str) -> str:
            async def step(number: int) -> None:
                self.effects[f"{name} {number}"] += 1
                await asyncio.sleep(0.002)

            for number in range(5):
                await ctx.run_typed(f"step {number}", step, RunOptions(), number)
            return name

        @service.handler()
        async def gated(ctx: Context, name: str) -> str:
            async def step() -> None:
                self.effects[name] += 1
                await self.gate.wait()

            await ctx.run("first", lambda: self.effects.update([f"{name} first"]))
            await ctx.run("gate", step)
            return name

        @service.handler()
        async def block(ctx: Context, seconds: float) -> str:
            await ctx.run("before", lambda: self.effects.update(["before"]))
            busy_until = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < busy_until:
                pass
            await ctx.run("after", lambda: self.effects.update(["after"]))
            return "unblocked"

        @service.handler()
        async def sleep(ctx: Context, name: str) -> str:
            self.held.append(weakref.ref(ctx))
            await ctx.run("before", lambda: self.effects.update([name]))
            await ctx.sleep(timedelta(seconds=1))
            return name

        if with_new:

            @service.handler()
            async def new(ctx: Context) -> str:
                return "here"

        return app([service])


@pytest.fixture
def plant() -> Plant:
    """A plant of this test's own."""
    return Plant()


async def test_an_unknown_handler_is_healed_by_a_deployment(plain: Deployment, plant: Plant) -> None:
    """A worker without the handler fails the attempt for a retry; one that has it completes the invocation."""
    async with plain.sender(plant.application()), plain.client() as client, plain.store() as store:
        async with plain.worker(plant.application(with_new=False)):
            handle = await client.send("Plant/new")

            async def failed() -> bool:
                entries = await store.read_journal(handle.invocation_id)
                return any(isinstance(row.entry, AttemptFailed) for row in entries)

            await wait_until(failed)
            summary = await store.read_invocation(handle.invocation_id)
            assert summary is not None
            assert "No worker here has a handler Plant/new" in summary.fields["last_failure"]
        async with plain.worker(plant.application()):
            assert await handle.result(timeout=PATIENCE) == "here"


async def test_work_goes_on_over_rebalances(plain: Deployment, plant: Plant) -> None:
    """Workers that join and leave while invocations run neither lose nor repeat any of their steps."""
    plain.settings = plain.settings.model_copy(update={"kafka_assignment": "group", "kafka_session_timeout_ms": 1_500})
    async with plain.sender(plant.application()), plain.client() as client, contextlib.AsyncExitStack() as later:

        def call(*numbers: int) -> list[asyncio.Task[Any]]:
            return [asyncio.create_task(client.call("Plant/work", f"w{n}", timeout=2 * PATIENCE)) for n in numbers]

        async with plain.worker(plant.application(), worker_id="first"):
            calls = call(*range(20))
            await asyncio.gather(*calls[:3])
            await later.enter_async_context(plain.worker(plant.application(), worker_id="second"))
            calls += call(*range(20, 60))
            await asyncio.gather(*calls[:30])
        # The first one has left; what it would have been given goes to the second.
        calls += call(*range(60, 70))
        assert await asyncio.gather(*calls) == [f"w{n}" for n in range(70)]
    assert len(plant.effects) == 350
    # A step that was cut by the end of a worker's grace may be repeated; nothing was cut here.
    assert set(plant.effects.values()) == {1}


async def test_a_stop_hands_over_what_runs(plain: Deployment, plant: Plant) -> None:
    """What does not end within the grace is released, and the next worker goes on at once from what was recorded."""
    async with plain.sender(plant.application()), plain.client() as client:
        async with plain.worker(plant.application(), grace_s=0.05):
            handle = await client.send("Plant/gated", "a")
            await wait_until(lambda: plant.effects["a"] == 1)
        plant.gate.set()
        async with plain.worker(plant.application()):
            assert await handle.result(timeout=PATIENCE) == "a"
        async with plain.store() as store:
            entries = [row.entry for row in await store.read_journal(handle.invocation_id)]
    assert plant.effects == {"a first": 1, "a": 2}
    assert not any(isinstance(entry, AttemptFailed) for entry in entries)


async def test_a_lost_resume_record_is_produced_again(plain: Deployment, plant: Plant) -> None:
    """An invocation that is ready and that nobody claims is put into Kafka again, from Redis alone."""
    plant.gate.set()
    async with plain.sender(plant.application()), plain.store() as store, plain.client() as client:
        invocation_id = new_invocation_id("Plant", None, system_random())
        first = Input(0, "gone", (), b'"a"')
        admission = Admission(invocation_id, "Plant", "work", None, first, "token", "gone")
        admitted = await store.admit(admission, lease_ms=60_000)
        assert isinstance(admitted, Claimed)
        # Its worker let it go, and died before the record that says so reached Kafka.
        await store.release(admitted.lease, [], after=1, seq=1)
        async with plain.worker(plant.application()):
            await _put_forward(plain, f"ready:{invocation_id}")
            assert await client.result(invocation_id, timeout=PATIENCE) == "a"


async def _put_forward(deployment: Deployment, member: str) -> None:
    """Have a deadline fall due now, instead of in a minute."""
    line = Line(deployment.settings.redis_config, name="test")
    await line.connect()
    for slot in range(8):
        key = f"{deployment.settings.namespace}:{{{slot}}}:due"
        await line.ask_all([("ZADD", key, "XX", 0, member)])
    await line.close()


async def test_a_dead_workers_invocation_is_taken_over(plain: Deployment, plant: Plant) -> None:
    """A lease that nobody renews ends, and another worker goes on; the death is in the journal."""
    plant.gate.set()
    async with plain.sender(plant.application()), plain.store() as store, plain.client() as client:
        invocation_id = new_invocation_id("Plant", None, system_random())
        first = Input(0, "gone", (), b'"a"')
        await store.admit(Admission(invocation_id, "Plant", "work", None, first, "token", "gone"), lease_ms=300)
        # A worker that just began ends no leases for two thirds of one.
        async with plain.worker(plant.application(), lease_s=0.6):
            assert await client.result(invocation_id, timeout=PATIENCE) == "a"
        entries = [row.entry for row in await store.read_journal(invocation_id)]
    assert [entry.error for entry in entries if isinstance(entry, AttemptFailed)] == [
        "worker gone stopped answering and its lease ended"
    ]


async def test_a_handler_that_blocks_the_loop_keeps_its_lease(plain: Deployment, plant: Plant) -> None:
    """Blocked for longer than the lease, it is not taken for dead: leases are renewed from a thread."""
    async with (
        plain.sender(plant.application()),
        plain.worker(plant.application(), lease_s=0.6),
        plain.client() as client,
    ):
        handle = await client.send("Plant/block", 1.5)
        assert await handle.result(timeout=PATIENCE) == "unblocked"
        assert (await handle.status()).attempts == 1
    assert plant.effects == {"before": 1, "after": 1}


async def test_sleepers_hold_no_memory(plain: Deployment, plant: Plant) -> None:
    """An invocation that sleeps longer than the inactivity timeout leaves nothing of itself in the worker."""
    async with (
        plain.sender(plant.application()),
        plain.worker(plant.application(), inactivity_timeout_s=0.1),
        plain.client() as client,
        plain.store() as store,
    ):
        handles = [await client.send("Plant/sleep", f"s{n}") for n in range(20)]

        async def suspended() -> bool:
            return len(await store.list_invocations("suspended", invocations_max=100)) == 20

        await wait_until(suspended)
        await wait_until(lambda: gc.collect() >= 0 and not any(ref() for ref in plant.held))
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == [f"s{n}" for n in range(20)]
    assert set(plant.effects.values()) == {1}


@pytest.mark.servers  # The embedded broker makes the topic.
async def test_one_bad_reply_topic_holds_up_nobody(
    plain: Deployment, plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    """A reply that Kafka never takes delays no other invocation's retry, reply or resume."""
    caplog.set_level(logging.INFO)
    nowhere = plain.topic("Nowhere")
    async with (
        plain.sender(plant.application()),
        plain.worker(plant.application(), inactivity_timeout_s=0.05),
        plain.client() as client,
    ):
        handle = await client.send("Plant/work", "lost reply", reply_to=nowhere)
        assert await handle.result(timeout=PATIENCE) == "lost reply"
        other = await client.send("Plant/sleep", "s")
        assert await other.result(timeout=PATIENCE) == "s"
        config = plain.settings.kafka_config(client_id="somebody-else")
        assert (await describe_cluster(config, [nowhere])).topics == {}
