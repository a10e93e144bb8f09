"""Code that takes its own process down: between an effect and its entry, or in every attempt."""

from __future__ import annotations

from perdure.schemas.entries import AttemptFailed, Paused

from .application import CRASH_LOOP_ATTEMPTS_MAX, Act
from .stage import Stage


async def test_crash_between_effect_and_entry_repeats_the_step_under_the_same_key(stage: Stage) -> None:
    """The effect happened and its entry was never written: once more, and the outside world can tell that it is."""
    await stage.start_ready("--processes", "2")
    await stage.send("r", Act("step"), Act("die"), Act("step"))
    await stage.finished()
    effects = await stage.executed("r", "1-die")
    assert [effect.attempt for effect in effects] == [1, 2]
    assert len({effect.key for effect in effects}) == 1
    assert len(await stage.executed("r", "0-step")) == 1
    await stage.check()


async def test_crash_loop_ends_paused_and_blocks_nobody(stage: Stage) -> None:
    """What kills its worker in every attempt ends paused with the reason; what ran beside it completes."""
    await stage.start_ready("--processes", "2")
    await stage.send("poison", handler="kill")
    for number in range(10):
        await stage.send(f"r{number}", Act("step", 50), Act("sleep", 100), Act("step", 50))
    await stage.finished()
    poison = await stage.story("poison")
    assert len(poison.of_type(AttemptFailed)) == CRASH_LOOP_ATTEMPTS_MAX + 1
    (paused,) = [row.entry for row in poison.entries if isinstance(row.entry, Paused)]
    assert "taking its worker down" in paused.reason
    assert len(await stage.executed("poison")) == CRASH_LOOP_ATTEMPTS_MAX
    await stage.check(paused=["poison"])
