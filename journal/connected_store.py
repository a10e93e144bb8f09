"""A store on connections of its own: for workers, clients, the command and the supervisor."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator

from .barrier import Barrier
from .cluster_store import ClusterStore
from .cluster_wire import ClusterWire
from .keys import Keys
from .link import Endpoint, Locate
from .redis_config import RedisConfig
from .redis_places import locate
from .redis_scripts import script_texts
from .redis_store import RedisStore
from .wire import Wire


def endpoint(node: RedisConfig, context: ssl.SSLContext | None) -> Endpoint:
    """Turn the configuration of one server into what a `Link` connects to.

    Args:
        node: The server.
        context: Of the configuration: `node.ssl_context()`, which reads files and is made once.
    """
    return Endpoint(node.host, node.port, node.db, node.username, node.password, context)


def locator(config: RedisConfig) -> Locate:
    """What finds the server: the one that is named, the primary that Sentinels know, or any node of a cluster.

    Raises:
        SettingsError: A certificate file cannot be used.
    """
    context = config.ssl_context()

    async def find() -> Endpoint:
        return endpoint(await locate(config), context)

    return find


@contextlib.asynccontextmanager
async def connected_store(
    config: RedisConfig, keys: Keys, *, name: str, barrier: Barrier | None = None
) -> AsyncIterator[RedisStore]:
    """Connect while the block runs. Calls wait while Redis is away: bound them with `asyncio.timeout`.

    Args:
        config: Where Redis is.
        keys: The namespace's.
        name: The connection's name, for `CLIENT LIST`.
        barrier: Of who acknowledges what was sent, as workers do: see `cluster_store`. One server needs none for that.

    Raises:
        SettingsError: A certificate file cannot be used.
    """
    if config.cluster:
        async with ClusterWire(config, script_texts(), name=name) as wires:
            yield RedisStore(wires, keys) if barrier is None else ClusterStore(wires, keys, barrier)
    else:
        async with Wire(locator(config), script_texts(), name=name) as wire:
            yield RedisStore(wire, keys)
