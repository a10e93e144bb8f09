"""Every Redis key: its name, its type, who writes it. PURE.

```
key (ns = namespace, s = slot)    type        holds
ns:{s}:invocation:<id>            hash        target, status, epoch, token, worker, length, failures, times, outcome
ns:{s}:journal:<id>               stream      the entries, ids <position>-<epoch>
ns:{s}:due                        sorted set  everything with a deadline; score = when, in ms of Redis's clock
ns:{s}:status:<status>            sorted set  ids by status; score = since when, for completed until when it is kept
ns:{s}:object|queue|state|promises:<...>      objects and workflows
ns:settings                       hash        what is fixed when a namespace is made: slots, format
ns:starts                         hash        <group>/<topic>: the offsets at which a subscription to its end began
ns:offsets                        hash        <group>/<topic id>/<partition>: how far a consumer group has read
ns:services                       hash        what workers said of each service: its kind, its handlers
ns:workers, ns:worker:<id>        zset, hash  live workers by heartbeat, and what each says of itself
ns:barrier:<worker>               string      the committer's tiny write before it asks for durability
```

Channels: `ns:hints:<worker>` (an id: something was appended for you), `ns:outcome:<client>` (an outcome).

Every key of an invocation and of the object it belongs to carries the hash tag `{s}`: one slot, one node, one script.
"""

from __future__ import annotations

from typing import NamedTuple

from perdure.schemas.ids import InvocationId, id_of_workflow, place_of_object, slot_of

STATUSES = ("scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused", "completed")

# Members of `due` are `<kind>:<invocation id>[:<command index>]`. Kinds, each with what falls due:
#   lease   the attempt's right to append ends      retry   a failed invocation may run again
#   ready   nobody claimed it: produce it again     start   a delayed invocation begins
#   sleep   a durable timer fires                   wake    a suspended attempt has a step to try again
#   reply   an outcome is not yet acknowledged by its reply topic or its callers
#   send    the entry at a position has not reached yet what it is for
#   cascade a killed invocation has callees to kill


RECENT_MAX = 10_000
"""Invocations whose keys are remembered: a megabyte or two. Each append asks for the same ones again."""


class InvocationKeys(NamedTuple):
    """The keys that scripts about one invocation are given, in the order of their KEYS."""

    slot: int
    invocation: bytes
    journal: bytes
    due: bytes
    status_prefix: bytes


class Keys:
    """The key names of one namespace. Pure; cheap to call."""

    def __init__(self, namespace: str, *, slots: int) -> None:
        self.namespace = namespace
        self.slots = slots
        self._recent: dict[str, InvocationKeys] = {}
        self._prefixes = tuple(f"{namespace}:{{{slot}}}:".encode() for slot in range(slots))

    def prefix(self, slot: int) -> bytes:
        """What every key of the slot begins with."""
        return self._prefixes[slot]

    def of(self, invocation_id: str) -> InvocationKeys:
        """The keys of one invocation. Those of the ones that were asked for lately are remembered."""
        keys = self._recent.get(invocation_id)
        if keys is None:
            if len(self._recent) >= RECENT_MAX:
                self._recent.clear()
            keys = self._recent[invocation_id] = self._of(invocation_id)
        return keys

    def _of(self, invocation_id: str) -> InvocationKeys:
        slot = slot_of(invocation_id, self.slots)
        prefix = self._prefixes[slot]
        raw = invocation_id.encode()
        return InvocationKeys(
            slot, prefix + b"invocation:" + raw, prefix + b"journal:" + raw, prefix + b"due", prefix + b"status:"
        )

    def object(self, target: str, kind: str) -> bytes:
        """A key of one object or workflow, `Service/key`: `object`, `queue`, `state` or `promises`."""
        return self._prefixes[self.slot_of_target(target)] + f"{kind}:{target}".encode("utf-8", "surrogatepass")

    def slot_of_target(self, target: str) -> int:
        """The slot of everything that belongs to an object or workflow, `Service/key`."""
        service, _, key = target.partition("/")
        return place_of_object(service, key) % self.slots

    def state_beside(self, invocation_id: str, target: str) -> bytes:
        """The state of the object that an invocation belongs to: in the invocation's own slot even without one."""
        return self._prefixes[self.of(invocation_id).slot] + f"state:{target}".encode("utf-8", "surrogatepass")

    def run_of(self, target: str) -> tuple[InvocationId, bytes]:
        """The one run that a workflow of that name has: its id, and the key of its hash."""
        service, _, key = target.partition("/")
        run = id_of_workflow(service, key)
        return run, self.of(run).invocation

    def due(self, slot: int) -> bytes:
        """The slot's deadlines."""
        return self._prefixes[slot] + b"due"

    def status(self, slot: int, status: str) -> bytes:
        """The slot's index of one status."""
        return self._prefixes[slot] + b"status:" + status.encode()

    @property
    def settings(self) -> str:
        """What is fixed when the namespace is made."""
        return f"{self.namespace}:settings"

    @property
    def starts(self) -> str:
        """Where subscriptions began that begin at the end of a topic."""
        return f"{self.namespace}:starts"

    @property
    def offsets(self) -> str:
        """How far consumer groups have read."""
        return f"{self.namespace}:offsets"

    @property
    def services(self) -> str:
        """What workers said of each service."""
        return f"{self.namespace}:services"

    @property
    def workers(self) -> str:
        """Live workers by their last heartbeat."""
        return f"{self.namespace}:workers"

    def worker(self, worker: str) -> str:
        """What one worker says of itself."""
        return f"{self.namespace}:worker:{worker}"

    def barrier(self, worker: str) -> str:
        """The committer's tiny write."""
        return f"{self.namespace}:barrier:{worker}"

    def hints(self, worker: str) -> str:
        """The channel on which a worker hears of entries that others appended."""
        return f"{self.namespace}:hints:{worker}"

    def outcomes(self, client: str) -> str:
        """The channel on which a client hears of outcomes."""
        return f"{self.namespace}:outcome:{client}"
