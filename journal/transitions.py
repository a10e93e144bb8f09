"""What the transitions of a store are given and what they answer: plain values. PURE."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from perdure.schemas.entries import Command, Completion, Entry, Input, Outcome, Positioned, Signalled
from perdure.schemas.errors import DecodeError
from perdure.schemas.ids import InvocationId, is_invocation_id
from perdure.schemas.limits import QUEUE_MAX

RETENTION_MS = 3_600_000
"""How long outcomes and journals are kept where nothing else is said."""


class Lease(NamedTuple):
    """One attempt's right to append: the fence is `epoch` and `token` together.

    The token is random, so that two attempts stay apart even when a failover lost an epoch.
    """

    invocation_id: InvocationId
    epoch: int
    token: str
    worker: str
    target: str = ""
    """`Service/key` of the object or workflow that the invocation belongs to; empty for services."""


class Caller(NamedTuple):
    """Who is told an outcome in its own journal: the command that waits, and the position that it stands at."""

    invocation_id: InvocationId
    command_index: int
    position: int

    def __str__(self) -> str:
        """As it travels."""
        return f"{self.invocation_id}:{self.command_index}:{self.position}"


# As the envelope demands of records.
_CALLER: Final = re.compile("([^:]*):([0-9]{1,9}):([0-9]{1,9})")


def caller_of(text: str) -> Caller:
    """Read what `str(caller)` wrote.

    Raises:
        DecodeError: It is not that.
    """
    found = _CALLER.fullmatch(text)
    if found is None or not is_invocation_id(found[1]):
        raise DecodeError(f"{text!r:.200} is not a caller: it needs an invocation id, a command index and a position.")
    return Caller(InvocationId(found[1]), int(found[2]), int(found[3]))


class Admission(NamedTuple):
    """What admission writes. Empty strings and 0 mean "none".

    Attributes:
        mode: `exclusive` where it waits for its object, `main` for a workflow's one run, else empty. The id of a run
            is `id_of_workflow`; that of any invocation with a key is in the place of its object.
        caller: A `Caller` that is told the outcome.
        queue_max: How many may wait for one object.
        behind: An id that must be known before this one may join the queue of their object.
        retention_ms: How long the outcome is kept where it does not come from an attempt: it was killed, say.
        journal_retention_ms: How long the journal is then.
    """

    invocation_id: InvocationId
    service: str
    handler: str
    key: str | None
    input: Input
    token: str
    worker: str
    not_before_ms: int = 0
    reply_to: str = ""
    waiter: str = ""
    idempotency_key: str = ""
    source: str = ""
    mode: str = ""
    caller: str = ""
    queue_max: int = QUEUE_MAX
    behind: str = ""
    retention_ms: int = RETENTION_MS
    journal_retention_ms: int = RETENTION_MS

    @property
    def target(self) -> str:
        """`Service/key` of its object or workflow; empty where it has none."""
        return "" if self.key is None else f"{self.service}/{self.key}"


class Restart(NamedTuple):
    """An invocation that begins with what another one has done already; what is not said here is as in `Admission`.

    Attributes:
        invocation_id: Of the new one, in the place of the other.
        kept: What follows the input.
    """

    invocation_id: InvocationId
    service: str
    handler: str
    key: str | None
    input: Input
    kept: Sequence[Command | Completion | Signalled] = ()
    mode: str = ""
    source: str = ""
    queue_max: int = QUEUE_MAX
    retention_ms: int = RETENTION_MS
    journal_retention_ms: int = RETENTION_MS

    @property
    def target(self) -> str:
        """`Service/key` of its object; empty where it has none."""
        return "" if self.key is None else f"{self.service}/{self.key}"


State = Mapping[str, bytes]
"""An object's whole state: the payload of each name."""


class Claimed(NamedTuple):
    """Admitted, and this worker holds its first lease. `state` is `None` where it is large, or there is no object."""

    lease: Lease
    state: State | None = None


class Scheduled(NamedTuple):
    """Admitted, and starts later by itself."""


class Queued(NamedTuple):
    """Admitted, and waits for its object."""


class Full(NamedTuple):
    """Nothing was written: too many wait for the object, or for the outcome, already. Try again later."""


class Duplicate(NamedTuple):
    """Known before. `outcome` is the recorded one where it is completed."""

    status: str
    outcome: Outcome | None


Admitted = Claimed | Scheduled | Queued | Full | Duplicate


class Claim(NamedTuple):
    """Everything that an attempt starts from. `entries` are complete, oldest first.

    `lost` is how many attempts in a row, without progress between them, ended with their worker.
    """

    lease: Lease
    service: str
    handler: str
    key: str | None
    idempotency_key: str
    failures: int
    admitted_at_ms: int
    entries: Sequence[Positioned]
    mode: str = ""
    state: State | None = None
    source: str = ""
    lost: int = 0


SUSPECT_AFTER: Final = 3
"""An invocation that was lost with its worker so often in a row may be what kills workers. A worker runs such ones one
at a time, so that it is known who takes the next worker down. Twice is bad luck: a deployment by SIGKILL, a machine."""

LOST_DELAY_MS: Final = 1_000
LOST_DELAY_MS_MAX: Final = 60_000
"""Before a suspect is tried again, doubling: meanwhile its victims get on."""


def lost_delay_ms(lost: int) -> int:
    """How long an invocation waits that was lost so often in a row; 0: it goes on at once elsewhere."""
    if lost < SUSPECT_AFTER:
        return 0
    return min(LOST_DELAY_MS_MAX, LOST_DELAY_MS << min(lost - SUSPECT_AFTER, 16))


class Appended(NamedTuple):
    """The journal's length, and its entries past `after` unless they are exactly the caller's own."""

    length: int
    tail: Sequence[Positioned] | None


class ResumeDue(NamedTuple):
    """Produce a resume record for this epoch."""

    invocation_id: InvocationId
    epoch: int
    service: str


class ReplyDue(NamedTuple):
    """Produce the outcome to these topics and tell these callers, then acknowledge it."""

    invocation_id: InvocationId
    topics: Sequence[str]
    outcome: Outcome
    callers: Sequence[Caller] = ()


class OutgoingDue(NamedTuple):
    """The entry at that position has not reached what it is for; send it, then acknowledge it."""

    invocation_id: InvocationId
    position: int
    entry: Entry


class CascadeDue(NamedTuple):
    """It was killed: kill its callees that have not answered, then acknowledge that."""

    invocation_id: InvocationId


class HintDue(NamedTuple):
    """Something was appended to an invocation that this worker runs."""

    worker: str
    invocation_id: InvocationId


Due = ResumeDue | ReplyDue | OutgoingDue | CascadeDue | HintDue


def hastened(due: Due) -> str:
    """The member of `due` that `Store.hasten` moves; empty where others have been told already."""
    match due:
        case ResumeDue(invocation_id):
            return f"ready:{invocation_id}"
        case ReplyDue(invocation_id):
            return f"reply:{invocation_id}"
        case CascadeDue(invocation_id):
            return f"cascade:{invocation_id}"
        case OutgoingDue(invocation_id, position):
            return f"send:{invocation_id}:{position}"
        case HintDue():
            return ""


ALWAYS_MS = 2**53 - 1
"""For `Store.sweep`: leases are ended whenever it is executed. The largest whole number of Lua."""


class Swept(NamedTuple):
    """What a sweep found, how long until the slot's next deadline (`None`: there is none), the store's time.

    A lease that ended and is held is no deadline.
    """

    due: Sequence[Due]
    next_in_ms: int | None
    at_ms: int
    unreadable: Sequence[str] = ()
    """Why something that is due could not be read; it falls due again later, and holds up nothing else."""


class Follow(NamedTuple):
    """How the next invocation of an object is claimed by the worker that completes the one before it.

    `at_ms` is now, for display.
    """

    token: str
    lease_ms: int
    at_ms: int


class Concluded(NamedTuple):
    """Who has to be told the outcome that was recorded, and who has the object next, ready to be claimed.

    `length` is the journal's: what was written with the outcome stands at its end. `claim` is there where the next one
    was claimed with it, and goes before `following`. `due` is what callers have to do whose journals have the outcome
    already, by the same transition.
    """

    topics: Sequence[str]
    callers: Sequence[Caller]
    following: ResumeDue | None
    length: int
    claim: Claim | None = None
    due: Sequence[Due] = ()


class Delivery(NamedTuple):
    """What became of something that came from outside.

    Attributes:
        result: `delivered`; `known`: it was before; `completed`: too late; `unknown`: no such invocation; `gap`: the
            store lost what it is an answer to; `unchanged`: nothing to do in that status; `full`: its object's queue,
            or what it was brought already; `no-awakeable`: another command has that index.
        due: What is to be done now. Repeated by `due` itself if it is not.
        status: Before, where it is `unchanged`; the type of the command that is no awakeable.
    """

    result: str
    due: Sequence[Due] = ()
    status: str = ""


class Answered(NamedTuple):
    """What became of several answers to one invocation's commands.

    Attributes:
        results: One each, as in `Delivery`.
        due: As there.
    """

    results: Sequence[str]
    due: Sequence[Due]


class Promise(NamedTuple):
    """A durable promise: its outcome, and who completed it."""

    outcome: Outcome
    by: str


class Status(NamedTuple):
    """An invocation's status, and its outcome once it has one."""

    status: str
    outcome: Outcome | None
    told: bool = True
    """Whether who asked will be told; `False` where too many wait already."""


class Summary(NamedTuple):
    """One invocation for listings: the fields of its hash, as text."""

    invocation_id: InvocationId
    fields: dict[str, str]


class Memory(NamedTuple):
    """The memory of a server that holds invocations. `bytes_max` is 0 where it has no bound."""

    used_bytes: int
    bytes_max: int

    @property
    def share(self) -> float:
        """How much of it is in use; 0 where it has no bound."""
        return self.used_bytes / self.bytes_max if self.bytes_max else 0.0

    def describe(self) -> str:
        """`91 % of its maxmemory of 104857600 bytes`."""
        return f"{self.share:.0%} of its maxmemory of {self.bytes_max} bytes"


class ShedPlace(NamedTuple):
    """How far `Store.shed` has come: a score of the index of completed invocations, and how many have it."""

    score: int
    seen: int


class Shed(NamedTuple):
    """How many journals were removed, and where to go on; `None`: these were the last ones."""

    removed: int
    place: ShedPlace | None


class Place(NamedTuple):
    """Where an invocation stands in the index of its status: newest first, which is by falling score and id."""

    score: int
    invocation_id: str


class Listed(NamedTuple):
    """One row of a page; no summary where the invocation is gone since."""

    place: Place
    summary: Summary | None
