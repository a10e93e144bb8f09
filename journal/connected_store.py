"""A store on a connection of its own: for clients, the command and the supervisor."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from .keys import Keys
from .redis_config import RedisConfig
from .redis_scripts import script_texts
from .redis_store import RedisStore
from .wire import Endpoint, Wire


def endpoint(config: RedisConfig) -> Endpoint:
    """Turn the configuration into what `Wire` connects to.

    Raises:
        SettingsError: A certificate file cannot be used.
    """
    return Endpoint(config.host, config.port, config.db, config.username, config.password, config.ssl_context())


@contextlib.asynccontextmanager
async def connected_store(config: RedisConfig, keys: Keys, *, name: str) -> AsyncIterator[RedisStore]:
    """Connect while the block runs. Calls wait while Redis is away: bound them with `asyncio.timeout`.

    Args:
        config: The server.
        keys: The namespace's.
        name: The connection's name, for `CLIENT LIST`.

    Raises:
        SettingsError: A certificate file cannot be used.
    """
    place = endpoint(config)

    async def locate() -> Endpoint:
        return place

    async with Wire(locate, script_texts(), name=name) as wire:
        yield RedisStore(wire, keys)
