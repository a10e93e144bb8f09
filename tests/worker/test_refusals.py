"""What an invocation does not take, and who is told: `perdure.worker.refusals`, as the dispatcher uses it."""

from __future__ import annotations

import pytest

from perdure.schemas.commands import Resolve
from perdure.schemas.entries import CancelChild, Cancelled, Signalled
from perdure.schemas.limits import CANCELLATIONS_MAX, RECEIVED_MAX
from tests.worker.dispatch_scene import ONE, Scene


@pytest.fixture
async def scene() -> Scene:
    """A dispatcher over a store in memory."""
    return Scene()


async def test_what_is_no_awakeable_is_said_and_dropped(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A handler cannot be told any more; the command of that index keeps waiting for its own result."""
    origin, waiting = await scene.admitted(), await scene.admitted()
    await scene.write(waiting, scene.call(waiting, 0))
    await scene.send(origin, Resolve(3, 1, waiting.invocation_id, 0, "", ONE))
    assert await scene.answers(waiting) == []
    assert await scene.owed(origin) == 0
    assert f"command 3 of {origin.invocation_id} is dropped" in caplog.text
    assert "no awakeable, but of type call" in caplog.text


async def test_a_signal_beyond_the_bound_is_said_and_dropped(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """So is a cancellation that goes on to a callee; it would be told again for ever."""
    origin, waiting = await scene.admitted(), await scene.admitted()
    for number in range(RECEIVED_MAX):
        await scene.memory.deliver(waiting.invocation_id, Signalled("go", 1, ONE), once=f"s:{number}")
    for number in range(CANCELLATIONS_MAX):
        await scene.memory.deliver(waiting.invocation_id, Cancelled(1), once=f"x:{number}")
    await scene.send(origin, Resolve(3, 1, waiting.invocation_id, -1, "go", ONE))
    await scene.send(origin, CancelChild(1, 2, waiting.invocation_id))
    assert await scene.owed(origin) == 0
    assert f"command 3 of {origin.invocation_id} is dropped: {waiting.invocation_id} was sent too much" in caplog.text
    assert f"a cancellation is dropped: {waiting.invocation_id} was sent too much" in caplog.text
