"""The floor: the append script by itself, sent through `journal/wire.py` without an engine, on the same server."""

from __future__ import annotations

import hashlib
import time

from perdure.journal.connected_store import locator
from perdure.journal.keys import Keys
from perdure.journal.link import Argument
from perdure.journal.lua import script
from perdure.journal.redis_scripts import script_texts
from perdure.journal.wire import Wire, same
from perdure.schemas.codec import encode
from perdure.schemas.entries import Run, Success
from perdure.schemas.ids import new_invocation_id
from perdure.worker.clock import system_random
from perdure.worker.settings import Settings

from .application import PAYLOAD_BYTES
from .deployment import Servers
from .load import STEPS, STEPS_AT_ONCE, ClosedLoop
from .measuring import Measured, Plan, Window, timed_windows

UNITS = {"rate": "appends/s", "rate_alone": "appends/s"}
"""64 at once, and one at a time."""


class Journals:
    """Appends to one journal after another, 100 entries to each, as the scenario `steps` does.

    Args:
        wire: To Redis.
        keys: Of the namespace.
    """

    def __init__(self, wire: Wire, keys: Keys) -> None:
        self.appended = 0
        """How many appends were answered."""
        self._wire = wire
        self._keys = keys
        self._sha = hashlib.sha1(script("append").encode(), usedforsecurity=False).hexdigest().encode()
        result = Success(b'"' + b"x" * (PAYLOAD_BYTES - 2) + b'"')
        self._entry = encode(Run(1_000, "s", time.time_ns() // 1_000_000, 0, result))

    async def write_one(self) -> None:
        """Make a journal, fill it and remove it."""
        keys = self._keys.of(new_invocation_id("Bench", None, system_random()))
        fields: tuple[Argument, ...] = (b"epoch", 1, b"token", b"0123456789abcdef", b"length", 1, b"seq", 0)
        await self._wire.call((b"HSET", keys.invocation, *fields), same)
        head = (b"EVALSHA", self._sha, b"3", keys.invocation, keys.journal, keys.due)
        for number in range(1, STEPS + 1):
            fence = (1, b"0123456789abcdef", number, number, b"0", 0)
            await self._wire.call((*head, *fence, *self._entry), same)
            self.appended += 1
        await self._wire.call((b"UNLINK", keys.invocation, keys.journal), same)


async def floor(servers: Servers, settings: Settings, plan: Plan) -> Measured:
    """Append entries of the same size to as many journals at once; this process is the only client."""
    pids = {"redis": servers.pids()["redis"]}
    async with Wire(locator(settings.redis_config), script_texts(), name="bench-floor") as wire:
        keys = Keys(settings.namespace, slots=settings.slots)
        together = await _windows(Journals(wire, keys), STEPS_AT_ONCE, plan, pids)
        alone = await _windows(Journals(wire, keys), 1, plan, pids)
    windows = [_joined(both, one) for both, one in zip(together, alone, strict=True)]
    return Measured(UNITS, "append", windows, PAYLOAD_BYTES, STEPS_AT_ONCE)


async def _windows(journals: Journals, concurrency: int, plan: Plan, pids: dict[str, int]) -> list[Window]:
    async def count() -> float:
        return journals.appended

    def values(appended: float, seconds: float) -> dict[str, float]:
        return {"rate": appended / seconds}

    async with ClosedLoop(journals.write_one, concurrency).running():
        return await timed_windows(plan, pids, count=count, values=values)


def _joined(together: Window, alone: Window) -> Window:
    """One window with both rates; the costs are those of the first."""
    return Window(
        together.seconds,
        together.operations,
        {"rate": together.values["rate"], "rate_alone": alone.values["rate"]},
        together.cpu_seconds,
        max(together.other_load_cores, alone.other_load_cores),
        together.steal_seconds + alone.steal_seconds,
    )
