"""Answers that nobody waits for: `perdure.worker.answered`."""

from __future__ import annotations

import asyncio

import pytest

from perdure.schemas.errors import StoreError
from perdure.worker.answered import SIDE_FAILED, when_answered


async def test_what_is_to_be_done_is_done_with_the_answer() -> None:
    """Once, when it is there."""
    reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    done: list[int] = []
    when_answered(reply, done.append)
    assert done == []
    reply.set_result(3)
    await asyncio.sleep(0)
    assert done == [3]


@pytest.mark.parametrize("whose", ["the store's", "our own"])
async def test_a_failure_is_logged_and_stops_nothing(whose: str, caplog: pytest.LogCaptureFixture) -> None:
    """The answer's, and that of what is done with it; with where it came from."""
    reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def then(answer: int) -> None:
        raise ValueError(f"no use for {answer}")

    when_answered(reply, then)
    if whose == "our own":
        reply.set_result(3)
    else:
        reply.set_exception(StoreError("Redis is full."))
    await asyncio.sleep(0)
    assert SIDE_FAILED in caplog.text
    assert ("no use for 3" if whose == "our own" else "Redis is full.") in caplog.text


async def test_nothing_is_done_once_the_store_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """Its answers are cancelled, which is nobody's failure."""
    reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    done: list[int] = []
    when_answered(reply, done.append)
    reply.cancel()
    await asyncio.sleep(0)
    assert (done, caplog.text) == ([], "")
