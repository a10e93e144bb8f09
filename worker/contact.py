"""Whether this worker may end the leases of others: decided by what it has heard, without a clock of its own.

A lease that ended says that its worker was silent. That means something only while Redis could be heard: after an
outage longer than the lease all of them have ended, and whoever looks first would take everybody's work away. So a
worker ends leases only while it has been in contact with Redis for long enough that each live worker has renewed.

The law: all times are the store's own, out of the answers to sweeps. What a sweep may do is decided when it is
*executed*: a command that waited through an outage is sent again as it was, and its permission has lapsed by then.
"""

from __future__ import annotations

from perdure.journal.store import ALWAYS_MS

from .leases import RENEWALS_PER_LEASE

GAP_MS_MIN = 500
"""A silence shorter than this is none, however short the lease: two looks at idle slots (`timers.IDLE_SWEEP_MS`)."""

HOLD_INTERVALS = 2
"""After a silence leases are held for so many intervals of renewal: one in which each worker's renewal comes, and one
for a first try that finds a dead connection (`leases.RETRY_S_MAX`, `renewer.RENEW_TIMEOUT_S`)."""

GAPS_MAX = 10
"""After so many silences in a row leases end nevertheless: renewals had as many chances, and a worker whose event loop
is blocked again and again must not keep a dead one's invocations for ever."""


class Contact:
    """What this worker has heard of the store's clock, and what follows for leases.

    Args:
        lease_ms: How long the leases of this namespace hold.
    """

    def __init__(self, *, lease_ms: int) -> None:
        interval_ms = lease_ms / RENEWALS_PER_LEASE
        self._gap_ms = max(GAP_MS_MIN, int(interval_ms))
        self._hold_ms = int(HOLD_INTERVALS * interval_ms)
        self._heard_ms: int | None = None
        self._held_until_ms = 0
        self._gaps = 0

    @property
    def leases_until_ms(self) -> int:
        """For `Store.sweep`: until when, by the store's clock, a sweep that leaves now may end leases; 0 is never."""
        if self._heard_ms is None or 0 < self._gaps <= GAPS_MAX:
            return 0
        return ALWAYS_MS if self._gaps else self._heard_ms + self._gap_ms

    def heard(self, at_ms: int) -> None:
        """The store answered at `at_ms` of its clock. A clock that was set counts as a silence, in either direction."""
        if self._heard_ms is None or abs(at_ms - self._heard_ms) > self._gap_ms:
            self._gaps += 1
            self._held_until_ms = at_ms + self._hold_ms
        elif at_ms >= self._held_until_ms:
            self._gaps = 0
        self._heard_ms = at_ms
