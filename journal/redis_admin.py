"""Redis beside the hot path: a namespace's set-up, and what servers say of themselves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from perdure.schemas.errors import SettingsError, StoreError
from perdure.schemas.ids import PLACES

from .durability import ServerFacts, read_facts
from .keys import Keys
from .redis_config import RedisConfig
from .redis_line import Line, Refusal
from .redis_places import cluster_map, locate
from .redis_rights import missing_rights, probes

FORMAT: Final = 1
"""Version of what stands under a namespace's keys; a worker refuses one that it does not know."""

SLOTS_DEFAULT: Final = 64


class NamespaceSettings(NamedTuple):
    """What was fixed when the namespace was made."""

    slots: int
    format: int


async def open_namespace(config: RedisConfig, namespace: str, *, slots: int | None = None) -> NamespaceSettings:
    """Make the namespace if it is new, and return what is in force.

    Args:
        config: The server.
        namespace: Its name.
        slots: How many it must have, at most 1,024; `None` takes what it has, and 64 where it is new.

    Raises:
        SettingsError: It has another number of slots, or was written by a newer version, or the login is wrong.
        StoreError: Redis does not answer or refuses.
    """
    if slots is not None and not 1 <= slots <= PLACES:
        raise SettingsError(f"PERDURE_SLOTS={slots} is not in 1..{PLACES}.")
    key = Keys(namespace, slots=1).settings
    async with opened(config, key) as line:
        await line.ask("HSETNX", key, "slots", SLOTS_DEFAULT if slots is None else slots)
        await line.ask("HSETNX", key, "format", FORMAT)
        found = _settings(namespace, await line.ask("HMGET", key, "slots", "format"))
    if found is None:
        raise StoreError(
            f"The settings of the namespace {namespace!r} vanished from Redis while it was opened: try again."
        )
    if slots is not None and found.slots != slots:
        raise SettingsError(
            f"The namespace {namespace!r} has {found.slots} slots and PERDURE_SLOTS asks for {slots}. Slots are fixed "
            f"when a namespace is made: set PERDURE_SLOTS={found.slots}, or use a new namespace."
        )
    return found


async def read_namespace(config: RedisConfig, namespace: str) -> NamespaceSettings | None:
    """Return what is in force without making anything; `None` where the namespace is not there yet.

    Raises:
        SettingsError: It was written by a newer version, or the login is wrong.
        StoreError: Redis does not answer or refuses.
    """
    key = Keys(namespace, slots=1).settings
    async with opened(config, key) as line:
        return _settings(namespace, await line.ask("HMGET", key, "slots", "format"))


async def every_servers_facts(config: RedisConfig) -> list[tuple[RedisConfig, ServerFacts]]:
    """Ask the server, or each primary of a cluster, what it is and how it persists.

    Raises:
        SettingsError: The login is wrong.
        StoreError: One of them does not answer.
    """
    if not config.cluster:
        node = await locate(config)
        return [(node, await server_facts(node))]
    nodes = [config.at(place) for place in (await cluster_map(config)).primaries]
    return [(node, await server_facts(node)) for node in nodes]


async def server_facts(config: RedisConfig) -> ServerFacts:
    """Ask one server what it is and how it persists. What an ACL or a managed service hides is `None` in the answer.

    Raises:
        SettingsError: The login is wrong.
        StoreError: Redis does not answer.
    """
    names = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "stream-node-max-bytes")
    async with opened(config) as line:
        # One by one: a refusal of one name says nothing of the others.
        info, *pairs = await line.ask_all([("INFO",), *[("CONFIG", "GET", name) for name in names]])
    fields: dict[str, str] = {}
    if isinstance(info, bytes):
        split = (text.partition(":") for text in info.decode().splitlines() if not text.startswith("#"))
        fields = {name: value for name, _, value in split}
    settings = {pair[0].decode(): pair[1].decode() for pair in pairs if isinstance(pair, list) and pair}
    return read_facts(fields, settings)


async def forbidden(config: RedisConfig, namespace: str, *, waitaof: bool, cluster: bool) -> list[str]:
    """Say which of the rights that are needed the user lacks, as `redis_rights.missing_rights` does; changes nothing.

    Args:
        config: The server.
        namespace: Whose keys and channels.
        waitaof: Whether the server knows WAITAOF.
        cluster: Whether it is a cluster's node.

    Raises:
        SettingsError: The login is wrong.
        StoreError: Redis does not answer.
    """
    asked = probes(namespace, waitaof=waitaof, cluster=cluster)
    async with opened(config) as line:
        begun, *answers, ended = await line.ask_all([("MULTI",), *[right.command for right in asked], ("DISCARD",)])
    refused = [name for name, answer in (("multi", begun), ("discard", ended)) if _denied(answer)]
    return [f"+{name}" for name in refused] or missing_rights(asked, answers)


def _denied(answer: object) -> bool:
    return isinstance(answer, Refusal) and answer.kind == "no permission"


@contextlib.asynccontextmanager
async def opened(config: RedisConfig, key: str | bytes | None = None) -> AsyncIterator[Line]:
    """A line for a few questions.

    Args:
        config: What is configured.
        key: What the questions are about: decides which node of a cluster is asked; `None`: any.

    Raises:
        SettingsError: The login is wrong.
        StoreError: There is nobody, or it refuses.
    """
    node = await locate(config, key.encode() if isinstance(key, str) else key)
    line = Line(node, name="perdure-admin")
    try:
        await line.connect()
        yield line
    finally:
        await line.close()


def _settings(namespace: str, reply: list[bytes | None]) -> NamespaceSettings | None:
    slots, version = reply
    if slots is None or version is None:
        return None
    if int(version) > FORMAT:
        raise SettingsError(
            f"The namespace {namespace!r} has format {int(version)}, and this version of perdure knows up to {FORMAT}: "
            "upgrade it."
        )
    return NamespaceSettings(int(slots), int(version))
