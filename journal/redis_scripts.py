"""What the parts of the store on Redis share: its scripts, its keys, its wire."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from perdure.schemas.errors import StoreError

from .keys import InvocationKeys, Keys
from .link import Argument
from .lua import script
from .transitions import RETENTION_MS, Admission, Restart
from .wire import Wire

T = TypeVar("T")

_SCRIPTS = (
    "admit",
    "claim",
    "append",
    "complete",
    "leave",
    "renew",
    "sweep",
    "acknowledge",
    "attach",
    "expire",
    "deliver",
    "answer",
    "control",
    "promise",
    "state_edit",
    "restart",
    "shed",
)

SWEEP_MEMBERS_MAX = 100
"""Deadlines of one sweep: about a millisecond of Redis's time. More of them: the next sweep follows at once."""

SWEEP_BYTES_MAX = 4_000_000
"""Outcomes and sent entries that one sweep tells: a few of the largest. A hundred of them would fill the connection."""

PAGE_ENTRIES_MAX = 2_000
"""Entries of one page of a journal."""

REPLY_LEASE_MS = 10_000
"""How long what is owed waits for its acknowledgement before another worker sends it again."""

WORKER_LIFE_MS = 6_000
"""A worker without a heartbeat for this long is not counted as alive; only placement hints depend on it."""


def script_texts() -> dict[str, bytes]:
    """The scripts by their SHA-1, for `Wire`."""
    texts = [script(name).encode() for name in _SCRIPTS]
    return {hashlib.sha1(text, usedforsecurity=False).hexdigest(): text for text in texts}


class Wiring(Protocol):
    """Which connection leads to a key: `Wire` where there is one server, `ClusterWire` where there are several."""

    @property
    def losses(self) -> int:
        """How many connections were lost."""

    @property
    def one_node(self) -> bool:
        """Whether all slots are on one server that lets a script touch several of them."""

    def by_slot(self, keys: Keys) -> Sequence[Wire]:
        """The connection for each slot of a namespace; what the list holds may change."""

    def of(self, key: str) -> Wire:
        """The connection for a key that belongs to no slot; to be asked for each command."""


class RedisScripts:
    """Calls scripts about one invocation.

    Scripts derive names of keys that they are not given, all of the same slot. While a Redis Cluster moves a slot, a
    command on a key that is not there fails, also within a script, after others have been carried out. So every
    script that writes more than it is given has the prefix of the status indexes among its KEYS, which is never there:
    nodes refuse such a script as a whole (TRYAGAIN) until the slot has moved.
    """

    def __init__(self, wiring: Wiring, keys: Keys) -> None:
        self._wiring = wiring
        self._wires = wiring.by_slot(keys)
        self._keys = keys
        self._shas = {
            name: hashlib.sha1(script(name).encode(), usedforsecurity=False).hexdigest().encode() for name in _SCRIPTS
        }

    @property
    def slots(self) -> int:
        """How many slots the namespace has."""
        return self._keys.slots

    @property
    def losses(self) -> int:
        """See `Store.losses`."""
        return self._wiring.losses

    def _script(
        self, name: str, keys: InvocationKeys, arguments: tuple[Argument, ...], convert: Callable[[Any], T]
    ) -> asyncio.Future[T]:
        try:
            return self._wires[keys.slot].call((*self._head(name, keys), *arguments), convert)
        except StoreError as error:
            # Where callbacks take the answer they take the refusal, too.
            return answered(error=error)

    def _head(self, name: str, keys: InvocationKeys) -> tuple[Argument, ...]:
        return (b"EVALSHA", self._shas[name], b"4", keys.invocation, keys.journal, keys.due, keys.status_prefix)


def kept_for(asked: Admission | Restart) -> list[Argument]:
    """The fields that say how long an outcome is kept that no attempt records; most invocations need none."""
    fields: list[Argument] = []
    if asked.retention_ms != RETENTION_MS:
        fields += (b"retention", asked.retention_ms)
    if asked.journal_retention_ms != RETENTION_MS:
        fields += (b"journal_retention", asked.journal_retention_ms)
    return fields


def answered(*, error: StoreError | None = None) -> asyncio.Future[Any]:
    """An answer that needs no Redis: none, or this error."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future


async def all_of(replies: Sequence[asyncio.Future[T]]) -> list[T]:
    """Every reply. They are all on their way already; awaiting them in order costs nothing."""
    return [await reply for reply in replies]
