"""Renewing leases from a thread, where a handler that blocks the event loop cannot stop it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .keys import Keys
from .lua import script
from .redis_admin import Refusal, ThreadLine, Word
from .redis_config import RedisConfig
from .store import Lease

RENEW_TIMEOUT_S = 2.0
"""Far below a lease, so that a renewal that hangs is tried again in time: after an outage within the two intervals in
which nobody ends leases."""

RENEWALS_PER_WRITE_MAX = 500
"""Scripts in one write: some milliseconds of Redis's time."""


class ThreadRenewer:
    """One blocking connection that renews leases. Not thread-safe: its thread creates, uses and closes it."""

    def __init__(self, config: RedisConfig, keys: Keys) -> None:
        self._keys = keys
        self._script = script("renew")
        self._sha: bytes | None = None
        self._line = ThreadLine(config, name="perdure-renewer", reply_timeout_s=RENEW_TIMEOUT_S)

    def renew(self, leases: Sequence[Lease], lease_ms: int) -> list[int | None]:
        """Renew all leases; for each the journal's length, or `None` where it is lost.

        Raises:
            SettingsError: The login is wrong.
            StoreError: Redis refused, or did not answer within `RENEW_TIMEOUT_S`; any of them may have been renewed.
                Safe to repeat.
        """
        lengths: list[int | None] = []
        for start in range(0, len(leases), RENEWALS_PER_WRITE_MAX):
            lengths += self._renew_some(leases[start : start + RENEWALS_PER_WRITE_MAX], lease_ms)
        return lengths

    def close(self) -> None:
        """Close the connection. Safe to repeat."""
        self._line.close()

    def _renew_some(self, leases: Sequence[Lease], lease_ms: int) -> list[int | None]:
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
