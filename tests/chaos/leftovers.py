"""Keys of a namespace that nobody needs any more once everything in it has ended and its retention has passed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from perdure.journal.redis_admin import opened
from perdure.worker.settings import Settings

KEPT = frozenset({"settings", "services", "workers", "offsets"})
"""What a namespace has as long as it is there."""

STATE = "state:"
"""State of objects is kept until somebody clears it."""

PROMISES = "promises:"

GONE = -2
"""What Redis says of the life of a key that is not there."""


async def leftovers(settings: Settings, *, workers: Collection[str]) -> list[str]:
    """Every key of the namespace that should not be there.

    Args:
        settings: Of the namespace.
        workers: The names of those that run: they may have keys of their own.
    """
    async with opened(settings.redis_config) as line:
        keys = await line.ask("KEYS", f"{settings.namespace}:*")
        lives_ms = await line.ask_all([("PTTL", key) for key in keys]) if keys else []
    lives = {key.decode(): life_ms for key, life_ms in zip(keys, lives_ms, strict=True)}
    return sorted(unneeded(lives, namespace=settings.namespace, workers=workers))


def unneeded(lives_ms: Mapping[str, int], *, namespace: str, workers: Collection[str]) -> list[str]:
    """Those keys that are neither the namespace's own, nor a worker's, nor state or promises that may be there. PURE.

    Args:
        lives_ms: Keys, and how long Redis keeps each of them: -1 for ever, -2 not any more.
        namespace: Before each of them.
        workers: The names of those that run.
    """
    found = []
    for key, life_ms in lives_ms.items():
        name = key.removeprefix(f"{namespace}:")
        kind, _, rest = name.partition(":")
        kept = (
            name in KEPT
            or (kind == "worker" and rest in workers)
            # Of a worker that has died, it goes within the hour.
            or (kind == "barrier" and life_ms >= 0)
            or (kind.startswith("{") and rest.startswith(STATE))
            # Of a workflow whose run has expired, completed by who came later: for a day.
            or (kind.startswith("{") and rest.startswith(PROMISES) and life_ms >= 0)
            or life_ms == GONE
        )
        if not kept:
            found.append(key)
    return found
