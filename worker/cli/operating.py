"""A client for commands that change something in a namespace that exists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.schemas.errors import StoreError

from .reading import reading_store

if TYPE_CHECKING:
    from perdure.worker.client import Client
    from perdure.worker.settings import Settings

Answer = TypeVar("Answer")

OPERATE_TIMEOUT_S = 120.0
"""For one command, which may mean thousands of invocations: a client waits through an outage, a person does not."""


def operate(settings: Settings, work: Callable[[Client], Coroutine[Any, Any, Answer]]) -> Answer:
    """Have a client do one thing.

    Raises:
        SettingsError: There is no such namespace, or the login is wrong.
        StoreError: Redis does not answer, or there was no answer in time.
    """
    from .opening import codec_of

    # Imported before there is a loop: it is somebody else's code.
    codec = codec_of(settings)

    async def run() -> Answer:
        # A client makes a namespace that is missing, which here is a typing error.
        async with reading_store(settings):
            pass
        from perdure.worker.client import Client

        async with Client(settings, payload_codec=codec) as client:
            try:
                async with asyncio.timeout(OPERATE_TIMEOUT_S):
                    return await work(client)
            except TimeoutError:
                raise StoreError(
                    f"Redis {settings.redis_config.address} did not answer within {OPERATE_TIMEOUT_S:.0f} s. What was "
                    "done stays done: run the command again, or look with `perdure doctor`."
                ) from None

    return asyncio.run(run())
