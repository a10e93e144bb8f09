"""PURE. Which record an invocation was made of, for its handler, and as it is kept with the invocation.

`topic/partition/offset/timestamp[/key]`: no topic has a slash in its name. Invocations of earlier versions have no
timestamp, and those that other invocations called have another text altogether.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

from .broker import Record

NO_TIMESTAMP: Final = -1
"""Kafka's own: the record has no timestamp, or it was not kept."""


class RecordSource(NamedTuple):
    """Where the record stands that an invocation was made of.

    Attributes:
        topic: Its topic.
        partition: Its partition's number.
        offset: Its offset.
        timestamp_ms: Its timestamp, in milliseconds since the epoch; -1 where there is none.
        key: Its key, where it came by a subscription and had one.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None = None

    @property
    def place(self) -> str:
        """`topic/partition/offset`, for people."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def source_of(record: Record, *, with_key: bool = False) -> str:
    """What is kept of a record's place; `read_source` reads it."""
    (topic, number), offset, timestamp_ms, key, *_ = record
    if with_key and key is not None:
        return f"{topic}/{number}/{offset}/{timestamp_ms}/{base64.urlsafe_b64encode(key).decode()}"
    return f"{topic}/{number}/{offset}/{timestamp_ms}"


def read_source(text: str) -> RecordSource | None:
    """What `source_of` wrote; `None` where the invocation was not made of a record."""
    topic, *places = text.split("/")
    try:
        match places:
            case [number, offset]:
                return RecordSource(topic, int(number), int(offset), NO_TIMESTAMP)
            case [number, offset, timestamp_ms]:
                return RecordSource(topic, int(number), int(offset), int(timestamp_ms))
            case [number, offset, timestamp_ms, key]:
                return RecordSource(topic, int(number), int(offset), int(timestamp_ms), base64.urlsafe_b64decode(key))
            case _:
                pass
    except (ValueError, binascii.Error):
        pass
    return None
