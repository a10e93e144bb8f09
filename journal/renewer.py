"""Renewing leases from a thread, where a handler that blocks the event loop cannot stop it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.schemas.errors import StoreError

from .keys import Keys
from .lua import script
from .redis_config import Address, RedisConfig
from .redis_line import Refusal, ThreadLine, Word
from .redis_places import cluster_map_blocking, locate_blocking
from .redis_topology import ClusterMap, cluster_slot
from .store import Lease

RENEW_TIMEOUT_S = 2.0
"""Far below a lease, so that a renewal that hangs is tried again in time: after an outage within the two intervals in
which nobody ends leases."""

RENEWALS_PER_WRITE_MAX = 500
"""Scripts in one write: some milliseconds of Redis's time."""


class ThreadRenewer:
    """Blocking connections that renew leases, one to each server. Not thread-safe: its thread uses and closes it."""

    def __init__(self, config: RedisConfig, keys: Keys) -> None:
        self._config = config
        self._keys = keys
        self._map: ClusterMap | None = None
        self._known: tuple[Address, ...] = ()
        self._lines: dict[Address, _ScriptLine] = {}

    def renew(self, leases: Sequence[Lease], lease_ms: int) -> list[int | None]:
        """Renew all leases; for each the journal's length, or `None` where it is lost.

        Raises:
            SettingsError: The login is wrong.
            StoreError: A server refused, or did not answer within `RENEW_TIMEOUT_S`. All that the others have are
                renewed, and any of the rest may be. Safe to repeat.
        """
        lengths: dict[int, int | None] = {}
        failure: StoreError | None = None
        for line, places in self._shares(leases):
            for start in range(0, len(places), RENEWALS_PER_WRITE_MAX):
                some = places[start : start + RENEWALS_PER_WRITE_MAX]
                try:
                    found = line.renew([leases[place] for place in some], lease_ms)
                except StoreError as error:
                    failure = error
                    break
                lengths.update(zip(some, found, strict=True))
        if failure is not None:
            # Whoever has the keys now is looked for the next time.
            self._forget()
            raise failure
        return [lengths[place] for place in range(len(leases))]

    def close(self) -> None:
        """Close the connections. Safe to repeat."""
        for line in self._lines.values():
            line.close()

    def _shares(self, leases: Sequence[Lease]) -> list[tuple[_ScriptLine, list[int]]]:
        """Which server has which of the leases."""
        if not self._config.cluster:
            if not self._lines:
                self._line_to(locate_blocking(self._config).servers[0])
            return [(line, list(range(len(leases)))) for line in self._lines.values()]
        if self._map is None:
            self._map = cluster_map_blocking(self._config, also=self._known)
            self._known = self._map.primaries
        shares: dict[Address, list[int]] = {}
        for index, lease in enumerate(leases):
            place = self._map.primary(cluster_slot(self._keys.of(lease.invocation_id).due))
            if place is None:
                self._map = None
                raise StoreError(f"Nobody in the {self._config.address} serves the slot of {lease.invocation_id}.")
            shares.setdefault(place, []).append(index)
        return [(self._line_to(place), indexes) for place, indexes in shares.items()]

    def _line_to(self, place: Address) -> _ScriptLine:
        if place not in self._lines:
            self._lines[place] = _ScriptLine(self._config.at(place), self._keys)
        return self._lines[place]

    def _forget(self) -> None:
        self.close()
        self._lines.clear()
        self._map = None


class _ScriptLine:
    """A line to one server that renews leases there."""

    def __init__(self, server: RedisConfig, keys: Keys) -> None:
        self._keys = keys
        self._script = script("renew")
        self._sha: bytes | None = None
        self._line = ThreadLine(server, name="perdure-renewer", reply_timeout_s=RENEW_TIMEOUT_S)

    def close(self) -> None:
        """Close the connection. Safe to repeat."""
        self._line.close()

    def renew(self, leases: Sequence[Lease], lease_ms: int) -> list[int | None]:
        """Renew them; for each the journal's length, or `None` where it is lost.

        Raises:
            SettingsError: The login is wrong.
            StoreError: The server refused one, or did not answer in time.
        """
        replies = self._send(leases, lease_ms)
        if any(isinstance(reply, Refusal) and reply.kind == "no script" for reply in replies):
            # Renewing is repeatable, so those that did find the script do no harm the second time.
            self._sha = None
            replies = self._send(leases, lease_ms)
        for reply in replies:
            if isinstance(reply, Refusal):
                raise reply.to_error(self._line.config)
        return [None if reply < 0 else reply for reply in replies]

    def _send(self, leases: Sequence[Lease], lease_ms: int) -> list[Any]:
        sha = self._sha or self._load()
        commands: list[Sequence[Word]] = []
        for lease in leases:
            keys = self._keys.of(lease.invocation_id)
            names = (keys.invocation, keys.journal, keys.due, keys.status_prefix)
            fence = (lease.invocation_id, lease.epoch, lease.token)
            commands.append(("EVALSHA", sha, len(names), *names, *fence, lease_ms))
        return self._line.ask_all(commands)

    def _load(self) -> bytes:
        (reply,) = self._line.ask_all([("SCRIPT", "LOAD", self._script)])
        if isinstance(reply, Refusal):
            raise reply.to_error(self._line.config)
        sha: bytes = reply
        self._sha = sha
        return sha
