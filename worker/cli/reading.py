"""A store to read from, for commands that look and change nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.schemas.errors import InvocationNotFoundError, SettingsError, StoreError

if TYPE_CHECKING:
    from perdure.journal.inspection import InvocationView
    from perdure.journal.redis_store import RedisStore
    from perdure.worker.settings import Settings

Answer = TypeVar("Answer")

READ_TIMEOUT_S = 30.0
"""For one look: a store waits through an outage, a person at a terminal does not."""


@contextlib.asynccontextmanager
async def reading_store(settings: Settings) -> AsyncIterator[RedisStore]:
    """Connect to a namespace that exists.

    Raises:
        SettingsError: There is no such namespace, or the login is wrong.
        StoreError: Redis does not answer.
    """
    from perdure.journal.connected_store import connected_store
    from perdure.journal.keys import Keys
    from perdure.journal.redis_admin import read_namespace

    config = settings.redis_config
    found = await read_namespace(config, settings.namespace)
    if found is None:
        raise SettingsError(
            f"Redis {config.address} has no namespace {settings.namespace!r}: check PERDURE_NAMESPACE and "
            "PERDURE_REDIS_URL, or start a worker, which makes it."
        )
    keys = Keys(settings.namespace, slots=found.slots)
    async with connected_store(config, keys, name="perdure-command") as store:
        yield store


def look(settings: Settings, question: Callable[[RedisStore], Coroutine[Any, Any, Answer]]) -> Answer:
    """Ask the store one thing.

    Raises:
        SettingsError: As `reading_store`.
        StoreError: As `reading_store`, or there was no answer in time.
    """

    async def run() -> Answer:
        async with reading_store(settings) as store:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    return await question(store)
            except TimeoutError:
                raise StoreError(
                    f"Redis {settings.redis_config.address} did not answer within {READ_TIMEOUT_S:.0f} s: try again, "
                    "or look with `perdure doctor`."
                ) from None

    return asyncio.run(run())


async def find_invocation(store: RedisStore, invocation_id: str) -> InvocationView:
    """Return one invocation.

    Raises:
        UsageError: It is no id.
        InvocationNotFoundError: The store knows none of that id.
    """
    from perdure.journal.inspection import view_of
    from perdure.worker.envelope import checked_id

    summary = await store.read_invocation(checked_id(invocation_id))
    if summary is None:
        raise InvocationNotFoundError(
            f"There is no invocation {invocation_id}: its record is not admitted yet, or its retention ended."
        )
    return view_of(summary)
