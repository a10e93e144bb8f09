"""The application's lifespan around a worker, on the lane's Kafka and Redis: `perdure.worker.main`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure.schemas.errors import DefinitionError
from perdure.worker.application import Application, Lifespan, app
from perdure.worker.context import Context
from perdure.worker.main import worker_engine
from perdure.worker.service import Service
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE

DIARY_LINES = ["entered", "called", "left"]


def application_of(diary: list[str], lifespan: Lifespan) -> Application:
    """An application whose handler `Shop/buy` writes down that it was called."""
    shop = Service("Shop")

    @shop.handler()
    async def buy(ctx: Context) -> str:
        diary.append("called")
        return "hat"

    return app([shop], lifespan=lifespan)


async def test_it_is_entered_before_the_first_record_and_left_after_the_last(plain: Deployment) -> None:
    """With the application, once for each worker, though records wait already."""
    diary: list[str] = []
    seen: list[Application] = []

    @contextlib.asynccontextmanager
    async def lifespan(application: Application) -> AsyncIterator[None]:
        seen.append(application)
        diary.append("entered")
        yield
        diary.append("left")

    application = application_of(diary, lifespan)
    async with plain.sender(application), plain.client() as client:
        handle = await client.send("Shop/buy")
        assert diary == []
        async with plain.worker(application):
            assert await handle.result(timeout=PATIENCE) == "hat"
        assert diary == DIARY_LINES
        async with plain.worker(application):
            assert diary == [*DIARY_LINES, "entered"]
    assert [application, application] == seen


async def test_one_that_cannot_be_entered_ends_the_worker(plain: Deployment) -> None:
    """Before it has taken anything; what it raised is seen."""
    diary: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(application: Application) -> AsyncIterator[None]:
        if not diary:
            raise ConnectionError("no database")
        yield

    application = application_of(diary, lifespan)
    async with plain.sender(application), plain.client() as client:
        handle = await client.send("Shop/buy")
        with pytest.raises(ConnectionError, match="no database"):
            async with plain.worker(application):
                raise AssertionError("it works")
        assert diary == []
        diary.append("the database is back")
        async with plain.worker(application):
            assert await handle.result(timeout=PATIENCE) == "hat"


async def test_one_that_is_left_by_a_failure_cannot_hide_it(plain: Deployment) -> None:
    """It sees why the worker ends; that ends with an error all the same, or nobody would start another one."""
    seen: list[BaseException] = []

    @contextlib.asynccontextmanager
    async def lifespan(application: Application) -> AsyncIterator[None]:
        try:
            yield
        except RuntimeError as error:
            seen.append(error)

    async def work() -> None:
        async with plain.worker(application_of([], lifespan)):
            raise RuntimeError("a part of the worker failed")

    with pytest.raises(RuntimeError, match="a part of the worker failed") as caught:
        await work()
    assert seen == [caught.value]


async def test_one_that_is_no_context_manager_is_refused(plain: Deployment) -> None:
    """What a function returns is known when it is called."""
    nothing: Any = lambda application: None  # noqa: E731  # a lambda is what somebody would write
    application = application_of([], nothing)
    with pytest.raises(DefinitionError, match="returned None, which is no async context manager"):
        async with worker_engine(application, plain.settings, plain.around):
            raise AssertionError("it works")
