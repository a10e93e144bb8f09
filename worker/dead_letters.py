"""Dead letters: records that could not be understood, or whose invocations failed for good, with the reason.

Law: the record's key, value and headers as they are; what is told about it are headers behind its own.
"""

from __future__ import annotations

from typing import Final

from perdure.journal.store import Store
from perdure.schemas.entries import Failure, Input
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import REASON_CHARACTERS_MAX, shorten

from .broker import Headers, Outgoing, Record, stray_names
from .payload_codec import PayloadCodec
from .record_source import RecordSource, read_source
from .sealing import Sealer

FIRST_ABOUT: Final = "perdure-reason"
"""The first of the headers that letters have behind those of the record."""

LEFT_OUT: Final = "perdure-left-out"
"""Of a letter whose topic would not take the record whole: what is not in it."""


def unreadable_letter(record: Record, reason: str, *, topic: str) -> Outgoing:
    """The letter for a record that cannot be understood."""
    (of_topic, number), offset, timestamp_ms, key, value, headers = record
    about = _about(reason, RecordSource(of_topic, number, offset, timestamp_ms))
    return Outgoing(topic, key, value, (*_legible(headers), *about))


def pointing_letter(letter: Outgoing) -> Outgoing:
    """The same letter without the record, for a topic that does not take it whole: where it stands, and why."""
    headers = letter.headers
    first = max((at for at, (name, _) in enumerate(headers) if name == FIRST_ABOUT), default=len(headers))
    left_out = f"key of {len(letter.key or b'')} bytes, value of {len(letter.value or b'')} bytes, {first} headers"
    return letter._replace(key=None, value=None, headers=(*headers[first:], (LEFT_OUT, left_out.encode())))


async def failure_letter(
    store: Store, invocation_id: InvocationId, failure: Failure, *, topic: str, codec: PayloadCodec | None
) -> Outgoing | None:
    """The letter for a record whose invocation failed; `None` where nothing is known of the record.

    A value that was null is empty in it.

    Raises:
        StoreError: Redis refuses to read it.
        SerdeError: The codec cannot open the value.
    """
    found = await store.read_invocation(invocation_id)
    source = None if found is None else read_source(found.fields.get("source", ""))
    entries = await store.read_journal(invocation_id, entries_max=1)
    first = entries[0].entry if entries else None
    if found is None or source is None or not isinstance(first, Input):
        return None
    value = first.value if codec is None else Sealer(codec).open(first.value)
    about = (
        *_about(shorten(failure.message, REASON_CHARACTERS_MAX), source),
        ("perdure-code", str(failure.code).encode()),
        ("perdure-invocation", invocation_id.encode()),
        ("perdure-handler", f"{found.fields['service']}/{found.fields['handler']}".encode()),
    )
    return Outgoing(topic, source.key, value, (*first.headers, *about))


def _about(reason: str, source: RecordSource) -> Headers:
    return (
        (FIRST_ABOUT, reason.encode("utf-8", "replace")),
        ("perdure-topic", source.topic.encode()),
        ("perdure-partition", str(source.partition).encode()),
        ("perdure-offset", str(source.offset).encode()),
        ("perdure-timestamp", str(source.timestamp_ms).encode()),
    )


def _legible(headers: Headers) -> Headers:
    """Put each name that is not UTF-8 into the value of a header of its own, so that any client can read the letter."""
    stray = stray_names(headers)
    shown = ((stray[at].decode("utf-8", "replace") if at in stray else name, v) for at, (name, v) in enumerate(headers))
    return (*shown, *((f"perdure-header-{at}-name", name) for at, name in stray.items()))
