"""Logging from handlers: `perdure.worker.handler_log`, and `current_context`."""

from __future__ import annotations

import logging

import pytest

from perdure.worker.context import Context, current_context
from perdure.worker.handler_log import HandlerLogFilter, get_logger
from tests.worker.attempt_stage import Stage


@pytest.fixture
def stage() -> Stage:
    """A stage on which every await is replayed."""
    return Stage(always_replay=True)


async def test_a_replay_is_silent(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Each line of the handler is there once, however often its place is passed, and says whose it is."""
    log = get_logger("tests.worker.test_handler_log")

    async def play(ctx: Context) -> None:
        log.info("begins")
        await ctx.run("first", lambda: log.info("in the step"))
        log.info("between")
        await ctx.run("second", lambda: None)
        log.info("ends")

    with caplog.at_level(logging.INFO):
        story = await stage.play(play)
    lines = [record for record in caplog.records if record.name == log.name]
    assert [record.getMessage() for record in lines] == ["begins", "in the step", "between", "ends"]
    assert lines[0].__dict__["handler"] == "play"
    assert lines[0].__dict__["service"] == "Stage"
    assert lines[0].__dict__["attempt"] == 1
    assert lines[1].__dict__["step"] == "first"
    assert {record.__dict__["invocation_id"] for record in lines} == {story.invocation_id}
    assert lines[-1].__dict__["attempt"] == len(story.ends)
    stage.close()


def test_lines_from_elsewhere_pass() -> None:
    """Outside of handlers nothing is dropped and nothing added."""
    record = logging.makeLogRecord({"msg": "hello"})
    before = dict(record.__dict__)
    assert HandlerLogFilter().filter(record)
    assert record.__dict__ == before


def test_a_logger_gets_one_filter() -> None:
    """Asking twice for a logger does not filter twice."""
    get_logger("tests.twice")
    assert len(get_logger("tests.twice").filters) == 1


async def test_the_context_is_at_hand(stage: Stage) -> None:
    """Code below a handler finds its context; in a step there is none, for it must not be used there."""
    seen: list[object] = []

    async def below() -> Context | None:
        return current_context()

    async def play(ctx: Context) -> None:
        assert await below() is ctx
        await ctx.run("step", lambda: seen.append(current_context()))

    await stage.play(play)
    assert seen == [None]
    assert current_context() is None
    stage.close()
