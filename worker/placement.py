"""Who looks at which slot: rendezvous hashing over the live workers. PURE.

Each slot goes to the worker with the highest hash of (worker, slot), so that a worker that comes or goes moves only
its own share. Workers may disagree for a moment about who lives: a slot that two look at, or none for a second, is
harmless.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def slots_of(worker: str, *, workers: Sequence[str], slots: int, rank: int = 0) -> frozenset[int]:
    """The slots that `worker` looks at; all of them where it knows of no others.

    Args:
        worker: Whose share.
        workers: All that live, with or without it.
        slots: How many there are.
        rank: 0 for the slots that are its own, 1 for those in which it stands in for another one, and so on.
    """
    rivals = [other for other in workers if other != worker]
    return frozenset(
        slot for slot in range(slots) if sum(_weight(rival, slot) > _weight(worker, slot) for rival in rivals) == rank
    )


def _weight(worker: str, slot: int) -> tuple[bytes, str]:
    # The name breaks a tie, should two hashes ever be equal.
    return hashlib.blake2b(f"{slot}/{worker}".encode(), digest_size=8).digest(), worker
