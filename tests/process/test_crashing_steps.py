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


async def test_memory_that_is_not_there_fails_an_attempt(stage: Stage) -> None:
    """A handler that takes more than the process may have is paused after its attempts; all else goes on."""
    worker = await stage.start_ready()
    await stage.send("hog", handler="hog")
    for number in range(5):
        await stage.send(f"r{number}", Act("step", 50), Act("sleep", 100), Act("step", 50))
    await stage.finished()
    hog = await stage.story("hog")
    failures = [row.entry for row in hog.entries if isinstance(row.entry, AttemptFailed)]
    assert ["MemoryError" in failure.error for failure in failures] == [True] * CRASH_LOOP_ATTEMPTS_MAX
    assert {effect.pid for effect in stage.effects.read()} == {worker.pid}
    await stage.check(paused=["hog"])


async def test_what_a_handler_does_to_its_process_harms_nobody(stage: Stage) -> None:
    """Streams that are closed, a fork, tasks left behind: all completes, and the worker stops in order."""
    worker = await stage.start_ready()
    await stage.send("vandal", handler="vandalise")
    await stage.executing("vandal", "after")
    for number in range(5):
        await stage.send(f"r{number}", Act("step", 50), Act("sleep", 100), Act("step", 50))
    await stage.finished()
    await stage.check()
    await stage.check_no_failures()
    assert await worker.terminate() == 0
