"""Invocation ids: how they look, which slot they name, and how they are derived.

An id is `inv_` and 27 hexadecimal digits: three name a place (000..3ff), the other 24 are the id's own. The slot of
an invocation in a namespace is `place mod slots`, so an id is valid whatever the number of slots. Derived ids are
frozen for ever: changing a derivation would run redelivered records a second time.

Source: deterministic ids from (topic, partition, offset), as Restate and DBOS do for Kafka records.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import NewType

from .limits import JOURNAL_ENTRIES_CEILING

InvocationId = NewType("InvocationId", str)

PLACES = 1024
"""How many places an id can name; the largest number of slots that a namespace can have."""

_BODY_BYTES = 12
_PATTERN = re.compile(rf"inv_[0-3][0-9a-f]{{{2 + 2 * _BODY_BYTES}}}")


def _from_digest(place: int, digest: bytes) -> InvocationId:
    return InvocationId(f"inv_{place:03x}{digest[:_BODY_BYTES].hex()}")


def _digest(*parts: str) -> bytes:
    # A length before each part keeps ("ab", "c") and ("a", "bc") apart.
    joined = "".join([f"{len(part)}:{part}" for part in parts])
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).digest()


def place_of_object(service: str, key: str) -> int:
    """The place (0..1023) of everything that belongs to one object or workflow key."""
    return int.from_bytes(_digest("object", service, key)[-2:], "big") % PLACES


def _place(service: str, key: str | None, digest: bytes) -> int:
    return int.from_bytes(digest[-2:], "big") % PLACES if key is None else place_of_object(service, key)


def new_invocation_id(service: str, key: str | None, entropy: random.Random) -> InvocationId:
    """A fresh id, in the object's place where there is a key. `entropy` is the caller's source of randomness."""
    digest = entropy.randbytes(32)
    return _from_digest(_place(service, key, digest), digest)


def id_of_record(
    service: str, key: str | None, *, topic: str, partition: int, offset: int, timestamp_ms: int
) -> InvocationId:
    """The id of a record that names none: the same for every delivery of that record.

    The timestamp keeps records apart whose topic was deleted and made anew, which starts at offset 0 again.
    """
    digest = _digest("record", topic, str(partition), str(offset), str(timestamp_ms))
    return _from_digest(_place(service, key, digest), digest)


def id_of_subscribed_record(
    service: str, key: str | None, *, group: str, topic: str, partition: int, offset: int, timestamp_ms: int
) -> InvocationId:
    """The id of what a subscription makes of a record: the same for every delivery of it to that consumer group.

    Args:
        service: Whose handler is invoked.
        key: Of its object, its workflow or its queue, in whose place the id then is.
        group: The subscription's; another one processes the record once more.
        topic: The record's.
        partition: The record's.
        offset: The record's.
        timestamp_ms: The record's; keeps apart what stood at that offset of a topic that was deleted and made anew.
    """
    digest = _digest("subscribed", group, topic, str(partition), str(offset), str(timestamp_ms))
    return _from_digest(_place(service, key, digest), digest)


def id_of_idempotency_key(service: str, handler: str, key: str | None, *, idempotency_key: str) -> InvocationId:
    """The id of every record that carries this idempotency key for this handler (and object key)."""
    digest = _digest("idempotency", service, handler, "" if key is None else f"k{key}", idempotency_key)
    return _from_digest(_place(service, key, digest), digest)


def id_of_call(service: str, key: str | None, *, parent: InvocationId, command_index: int) -> InvocationId:
    """The id of what a handler calls or sends: the same in every replay of the caller."""
    digest = _digest("call", parent, str(command_index))
    return _from_digest(_place(service, key, digest), digest)


def id_of_workflow(service: str, key: str) -> InvocationId:
    """The id of a workflow's one run of `main`."""
    return _from_digest(place_of_object(service, key), _digest("workflow", service, key))


def id_of_restart(original: InvocationId, *, entropy: random.Random) -> InvocationId:
    """A fresh id in the place of another invocation, which is its object's place where it has one."""
    return _from_digest(int(original[4:7], 16), entropy.randbytes(32))


_AWAKEABLE = re.compile(rf"awk_([0-3][0-9a-f]{{{2 + 2 * _BODY_BYTES}}})_(0|[1-9][0-9]{{0,8}})")


def awakeable_id(invocation_id: InvocationId, command_index: int) -> str:
    """The name under which anybody may complete the awakeable at `command_index` of an invocation."""
    return f"awk_{invocation_id[4:]}_{command_index}"


def read_awakeable_id(text: str) -> tuple[InvocationId, int] | None:
    """The invocation and the command index of an awakeable; `None` where `text` cannot be such an id."""
    found = _AWAKEABLE.fullmatch(text)
    if found is None or int(found[2]) >= JOURNAL_ENTRIES_CEILING:
        return None
    return InvocationId(f"inv_{found[1]}"), int(found[2])


def is_invocation_id(text: str) -> bool:
    """Whether `text` has the form of an invocation id."""
    return _PATTERN.fullmatch(text) is not None


def place_of(invocation_id: str) -> int:
    """The place (0..1023) that an id names."""
    return int(invocation_id[4:7], 16)


def slot_of(invocation_id: str, slots: int) -> int:
    """The slot of an invocation in a namespace of `slots` slots."""
    return int(invocation_id[4:7], 16) % slots


def step_key(invocation_id: str, index: int) -> str:
    """The idempotency key of the command at `index`: the same in every attempt, for the outside world to dedupe by."""
    return f"{invocation_id}:{index}"
