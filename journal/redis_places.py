"""Finding the server that has a key: the one that is named, the primary that Sentinels know, a node of a cluster.

The search is a generator that says whom to ask what, so that the event loop and the thread that renews leases, which
must not wait for each other, search alike.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, Final, TypeVar

from perdure.schemas.errors import SettingsError, StoreError

from .redis_config import Address, RedisConfig
from .redis_line import Command, Line, Refusal, ThreadLine
from .redis_topology import CLUSTER_SLOTS, HEALTHY, ClusterMap, cluster_slot, read_cluster

ASK_TIMEOUT_S: Final = 1.0
"""For one Sentinel or node: there are others to ask, and work waits for the answer."""

T = TypeVar("T")

Search = Generator[tuple[RedisConfig, Sequence[Command]], list[Any] | StoreError, T]
"""Yields a server and what to ask it, is sent the answers or why there are none, and returns what it was after."""


async def locate(config: RedisConfig, key: bytes | None = None) -> RedisConfig:
    """Where to connect to now for a key: a config of one server.

    Args:
        config: What is configured.
        key: Which key of a cluster; `None`: any of its nodes.

    Raises:
        SettingsError: The login is wrong, or the Sentinels do not know the name.
        StoreError: Nobody answers, or nobody serves the key.
    """
    return await _searched(_place(config, key))


async def cluster_map(config: RedisConfig, *, also: Iterable[Address] = ()) -> ClusterMap:
    """Which primary serves what, as a node that sees the cluster well knows it; else as any node does.

    Args:
        config: The cluster.
        also: Further nodes that are known by now: those that are named may have gone.

    Raises:
        SettingsError: The login is wrong.
        StoreError: Nobody answers.
    """
    return await _searched(_cluster(config, also))


def locate_blocking(config: RedisConfig) -> RedisConfig:
    """As `locate`, for threads.

    Raises:
        SettingsError: As `locate`.
        StoreError: As `locate`.
    """
    return _searched_blocking(_place(config, None))


def cluster_map_blocking(config: RedisConfig, *, also: Iterable[Address] = ()) -> ClusterMap:
    """As `cluster_map`, for threads.

    Raises:
        SettingsError: As `cluster_map`.
        StoreError: As `cluster_map`.
    """
    return _searched_blocking(_cluster(config, also))


def _place(config: RedisConfig, key: bytes | None) -> Search[RedisConfig]:
    if config.sentinel is not None:
        return (yield from _primary(config, config.sentinel))
    if not config.cluster:
        return config
    found = yield from _cluster(config, ())
    place = next(iter(found.primaries), None) if key is None else found.primary(cluster_slot(key))
    if place is None:
        raise StoreError(
            f"Redis {config.address} serves {CLUSTER_SLOTS - found.uncovered} of {CLUSTER_SLOTS} cluster slots: look "
            "at `redis-cli --cluster check`."
        )
    return config.at(place)


def _primary(config: RedisConfig, name: str) -> Search[RedisConfig]:
    failures: list[str] = []
    strangers: set[str] = set()
    for place in config.servers:
        answers = yield (
            config.sentinel_at(place),
            [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name), ("SENTINEL", "MASTERS")],
        )
        if isinstance(answers, StoreError):
            failures.append(str(answers))
            continue
        found, primaries = answers
        if isinstance(found, Refusal):
            failures.append(f"{place} is no Sentinel that this user may ask ({found.text}).")
        elif found is not None:
            return config.at(Address(found[0].decode(), int(found[1])))
        elif not isinstance(primaries, Refusal):
            strangers.update(row[row.index(b"name") + 1].decode() for row in primaries)
            failures.append(f"{place} does not know it.")
    if all("does not know" in failure for failure in failures):
        known = ", ".join(sorted(strangers)) or "none"
        raise SettingsError(
            f"The Sentinels of PERDURE_REDIS_URL do not know the primary {name!r} (they know: {known}): mend "
            "sentinel=<name> in it."
        )
    raise StoreError(f"No Sentinel of {config.address} tells where the primary is: {' '.join(failures)}")


def _cluster(config: RedisConfig, also: Iterable[Address]) -> Search[ClusterMap]:
    failures: list[str] = []
    second_best: ClusterMap | None = None
    for place in dict.fromkeys((*config.servers, *also)):
        answers = yield config.at(place), [("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")]
        if isinstance(answers, StoreError):
            failures.append(str(answers))
            continue
        state, slots = answers
        if isinstance(slots, Refusal):
            mend = "take cluster=true out of PERDURE_REDIS_URL." if "disabled" in slots.text else "grant it."
            failures.append(f"{place} refuses ({slots.text}): {mend}")
            continue
        found = read_cluster(slots, asked=place)
        if not isinstance(state, Refusal) and HEALTHY in state:
            return found
        second_best = second_best or found
    if second_best is None:
        raise StoreError(f"No node of the {config.address} answers: {' '.join(failures)}")
    return second_best


async def _searched(search: Search[T]) -> T:
    try:
        node, questions = next(search)
        while True:
            node, questions = search.send(await _ask(node, questions))
    except StopIteration as found:
        value: T = found.value
        return value


async def _ask(node: RedisConfig, questions: Sequence[Command]) -> list[Any] | StoreError:
    line = Line(node, name="perdure-places", reply_timeout_s=ASK_TIMEOUT_S, connect_timeout_s=ASK_TIMEOUT_S)
    try:
        return await line.ask_all(questions)
    except StoreError as error:
        return error
    finally:
        await line.close()


def _searched_blocking(search: Search[T]) -> T:
    try:
        node, questions = next(search)
        while True:
            node, questions = search.send(_ask_blocking(node, questions))
    except StopIteration as found:
        value: T = found.value
        return value


def _ask_blocking(node: RedisConfig, questions: Sequence[Command]) -> list[Any] | StoreError:
    line = ThreadLine(node, name="perdure-places", reply_timeout_s=ASK_TIMEOUT_S)
    try:
        return line.ask_all(questions)
    except StoreError as error:
        return error
    finally:
        line.close()
