"""Whom a kill reaches, and when an object is given up by whom it has reached: `perdure.worker.killing`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from perdure.journal.store import CascadeDue, Lease, ReplyDue, ResumeDue
from perdure.schemas.entries import Completion, Entry, Failure, Output
from perdure.worker.cancelling import UNKNOWN_MS_MAX
from tests.worker.dispatch_scene import ONE, Scene


@pytest.fixture
async def scene() -> Scene:
    """A dispatcher over a store in memory."""
    return Scene()


async def killed(scene: Scene, *entries: Entry, origin: Lease | None = None) -> Lease:
    """An invocation that was killed after it had written that."""
    lease = origin or await scene.admitted()
    await written(scene, lease, *entries)
    await scene.memory.kill(lease.invocation_id, Output(1, Failure(409, "killed")))
    return lease


async def written(scene: Scene, lease: Lease, *entries: Entry) -> None:
    """Have it write that, and have what it sends reach where it is for."""
    position = await scene.write(lease, *entries)
    await scene.memory.acknowledge(lease.invocation_id, sent=range(position, position + len(entries)))


async def cascades(scene: Scene) -> Sequence[CascadeDue]:
    """What a sweep says of killed invocations."""
    scene.clock.skip(20_000)
    swept = [item for slot in range(4) for item in (await scene.memory.sweep(slot)).due]
    return [item for item in swept if isinstance(item, CascadeDue)]


async def status(scene: Scene, lease: Lease) -> str:
    """Of an invocation."""
    return (await scene.fields(lease.invocation_id))["status"]


async def test_callees_of_what_was_killed_are_killed(scene: Scene) -> None:
    """Those that have not answered, and no sent ones; then the cascade is done."""
    origin, unanswered, answered, sent = [await scene.admitted() for _ in range(4)]
    await killed(
        scene,
        scene.call(origin, 0, invocation_id=unanswered.invocation_id),
        scene.call(origin, 1, invocation_id=answered.invocation_id),
        scene.sending(origin, 2, invocation_id=sent.invocation_id),
        Completion(1, 1, ONE),
        origin=origin,
    )
    assert await cascades(scene) == [CascadeDue(origin.invocation_id)]
    await scene.dispatcher.kill_callees(origin.invocation_id)
    assert [await status(scene, lease) for lease in (unanswered, answered, sent)] == ["completed", "running", "running"]
    output = (await scene.entries(unanswered.invocation_id))[-1]
    assert isinstance(output, Output)
    assert output.outcome == Failure(409, "killed with its caller")
    assert any(isinstance(item, ReplyDue) and item.invocation_id == unanswered.invocation_id for item in scene.due)
    assert await cascades(scene) == []
    assert await scene.owed(origin) == await scene.owed(unanswered) == 0


async def test_callees_that_have_ended_end_the_cascade(scene: Scene) -> None:
    """There is nothing left to kill, although the answer had not arrived; what that one called and left goes on."""
    origin, done, left = [await scene.admitted() for _ in range(3)]
    await written(scene, done, scene.call(done, 0, invocation_id=left.invocation_id))
    await scene.complete(done, ONE)
    await killed(scene, scene.call(origin, 0, invocation_id=done.invocation_id), origin=origin)
    await scene.dispatcher.kill_callees(origin.invocation_id)
    assert await cascades(scene) == []
    assert await status(scene, left) == "running"


@pytest.mark.parametrize("after_ms", [0, UNKNOWN_MS_MAX + 1])
async def test_a_callee_that_is_not_known_yet_never_begins(scene: Scene, after_ms: int) -> None:
    """Its record may wait in Kafka, for long: it finds the callee killed, and nothing waits for that."""
    origin = await scene.admitted()
    late = scene.call(origin, 0)
    await killed(scene, late, origin=origin)
    scene.clock.skip(after_ms)
    await scene.dispatcher.kill_callees(origin.invocation_id)
    assert await cascades(scene) == []
    assert await scene.owed(origin) == 0
    output = (await scene.entries(late.invocation_id))[-1]
    assert isinstance(output, Output)
    assert output.outcome == Failure(409, "killed with its caller")
    assert (await scene.admitted(invocation_id=late.invocation_id)).epoch == 0


async def test_a_callee_behind_its_killed_caller_gets_no_turn(scene: Scene) -> None:
    """Nor does one that a callee elsewhere called; who comes behind them does, when all of them are killed."""
    caller = await scene.admitted("O", "change", "k", mode="exclusive")
    between = await scene.admitted()
    behind, further = [await scene.admitted("O", "change", "k", mode="exclusive") for _ in range(2)]
    other = await scene.admitted("O", "change", "k", mode="exclusive")
    await written(scene, between, scene.call(between, 0, invocation_id=further.invocation_id))
    await killed(
        scene,
        scene.call(caller, 0, invocation_id=behind.invocation_id),
        scene.call(caller, 1, invocation_id=between.invocation_id),
        origin=caller,
    )
    assert await status(scene, caller) == "completed"
    assert [await status(scene, lease) for lease in (behind, further, other)] == ["pending"] * 3
    await scene.dispatcher.kill_callees(caller.invocation_id)
    assert [await status(scene, lease) for lease in (behind, between, further)] == ["completed"] * 3
    assert [item for item in scene.due if isinstance(item, ResumeDue)] == [ResumeDue(other.invocation_id, 0, "O")]
    assert len(await scene.entries(behind.invocation_id)) == len(await scene.entries(further.invocation_id)) == 1
    assert await cascades(scene) == []


async def test_a_kill_that_was_cut_off_goes_on_where_it_was(scene: Scene) -> None:
    """What was killed with it before, and has not killed its own callees, keeps its caller's object, too."""
    caller = await scene.admitted("O", "change", "k", mode="exclusive")
    between = await scene.admitted()
    behind = await scene.admitted("O", "change", "k", mode="exclusive")
    await written(scene, between, scene.call(between, 0, invocation_id=behind.invocation_id))
    await killed(scene, scene.call(caller, 0, invocation_id=between.invocation_id), origin=caller)
    await killed(scene, origin=between)
    await scene.dispatcher.kill_callees(caller.invocation_id)
    assert len(await scene.entries(behind.invocation_id)) == 1
    assert await status(scene, behind) == "completed"
    assert await cascades(scene) == []


async def test_an_object_stays_taken_while_the_store_may_have_lost_a_kill(scene: Scene) -> None:
    """A failover: nothing is acknowledged, and the next cascade kills again and gives it up."""
    caller = await scene.admitted("O", "change", "k", mode="exclusive")
    other = await scene.admitted("O", "change", "k", mode="exclusive")
    await killed(scene, scene.call(caller, 0), origin=caller)
    cascade = asyncio.create_task(scene.dispatcher.kill_callees(caller.invocation_id))
    await asyncio.sleep(0)
    scene.store.losses += 1
    await cascade
    assert await status(scene, other) == "pending"
    assert await cascades(scene) != []
    await scene.dispatcher.kill_callees(caller.invocation_id)
    assert await status(scene, other) == "ready"


async def test_who_calls_its_caller_is_killed_once(scene: Scene) -> None:
    """An idempotency key makes such a circle, which nobody else ends."""
    first, second = await scene.admitted(), await scene.admitted()
    await written(scene, second, scene.call(second, 0, invocation_id=first.invocation_id))
    await killed(scene, scene.call(first, 0, invocation_id=second.invocation_id), origin=first)
    await scene.dispatcher.kill_callees(first.invocation_id)
    assert await status(scene, second) == "completed"
    assert await cascades(scene) == []
    assert await scene.owed(first) == await scene.owed(second) == 0
