"""PURE. Which topic a name means: Kafka gives each topic an id when it is created, and a namesake another one.

aiokafka knows no version of Metadata that tells ids. `TopicsRequest` stands in for its request where a broker has the
version, and is encoded and decoded here.

Law: no id is guessed. Where a broker tells none, nothing is concluded from it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final, NamedTuple, TypeVar

_METADATA: Final = 3
_VERSION: Final = 10
"""The first one with ids: Kafka 2.8."""
_UNKNOWN: Final = bytes(16)
_MARK: Final = "topic-id "
_NOT_TOLD: Final = -(2**31)

_HEADER = struct.Struct(">hhi")
_T = TypeVar("_T")


def mark(topic_id: str) -> str:
    """Return what is committed beside an offset, to tell which topic it is an offset of."""
    return _MARK + topic_id


def of_former_topic(metadata: str, topic_id: str) -> bool:
    """Whether an offset was committed for another topic than that of the id; those of others than us are believed."""
    return metadata.startswith(_MARK) and metadata != mark(topic_id)


class TopicPartition(NamedTuple):
    """One partition, in the order in which aiokafka's answers have it: brokers by their numbers."""

    error_code: int
    number: int
    leader: int
    replicas: Sequence[int]
    in_sync: Sequence[int]


class Topic(NamedTuple):
    """One topic, or why it is not told: what aiokafka's answers hold, and the id in hexadecimal, if there is one.

    `operations` are the bits of what the user may do, and `None` where it was not asked for.
    """

    error_code: int
    name: str
    is_internal: bool
    partitions: Sequence[TopicPartition]
    topic_id: str | None
    operations: int | None


class Answer(NamedTuple):
    """What a broker says of itself and of topics, under the names of aiokafka's answers."""

    brokers: list[tuple[int, str, int, str | None]]
    cluster_id: str | None
    topics: list[Topic]

    @classmethod
    def decode(cls, buffer: BytesIO) -> Answer:
        """Read it from behind the header of an answer."""
        _number(buffer, ">i")
        brokers = _array(buffer, _broker)
        cluster_id = _string(buffer)
        _number(buffer, ">i")
        return cls(brokers, cluster_id, _array(buffer, _topic))


class TopicsRequest:
    """Asks for topics and creates none; as aiokafka's clients send it.

    Args:
        topics: Their names.
        otherwise: aiokafka's request, for a broker that does not have the version with ids.
        rights: Whether to ask what the user may do with each, too.
    """

    def __init__(self, topics: Sequence[str], *, otherwise: Any, rights: bool = False) -> None:
        self._topics = topics
        self._otherwise = otherwise
        self._rights = rights

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Any:
        """Return what goes to a broker with these versions."""
        lowest, highest = versions.get(_METADATA, (0, 0))
        return (
            _Encoded(self._topics, self._rights) if lowest <= _VERSION <= highest else self._otherwise.prepare(versions)
        )


class _Encoded:
    RESPONSE_TYPE: Final = Answer

    def __init__(self, topics: Sequence[str], rights: bool) -> None:
        self._topics = topics
        self._rights = rights

    def build_request_header(self, correlation_id: int, client_id: str) -> _Bytes:
        name = client_id.encode()
        return _Bytes(
            _HEADER.pack(_METADATA, _VERSION, correlation_id) + struct.pack(">h", len(name)) + name + _NO_TAGS
        )

    def encode(self) -> bytes:
        wanted = (_UNKNOWN + _compact(name.encode()) + _NO_TAGS for name in self._topics)
        # Nothing is created, and of the cluster's own rights nothing is told.
        options = bytes((False, False, self._rights))
        return _length(len(self._topics)) + b"".join(wanted) + options + _NO_TAGS

    def parse_response_header(self, buffer: BytesIO) -> _Header:
        header = _Header(_number(buffer, ">i"))
        _skip_tags(buffer)
        return header


class _Bytes(NamedTuple):
    content: bytes

    def encode(self) -> bytes:
        return self.content


class _Header(NamedTuple):
    correlation_id: int


_NO_TAGS: Final = b"\0"


def _broker(buffer: BytesIO) -> tuple[int, str, int, str | None]:
    node, host, port, rack = _number(buffer, ">i"), _string(buffer), _number(buffer, ">i"), _string(buffer)
    _skip_tags(buffer)
    return node, host or "", port, rack


def _topic(buffer: BytesIO) -> Topic:
    code, name, topic_id = _number(buffer, ">h"), _string(buffer), buffer.read(len(_UNKNOWN))
    internal, partitions, operations = bool(_number(buffer, ">b")), _array(buffer, _partition), _number(buffer, ">i")
    _skip_tags(buffer)
    known_id = None if topic_id == _UNKNOWN else topic_id.hex()
    return Topic(code, name or "", internal, partitions, known_id, None if operations == _NOT_TOLD else operations)


def _partition(buffer: BytesIO) -> TopicPartition:
    code = _number(buffer, ">h")
    number, leader, _epoch = (_number(buffer, ">i") for _ in range(3))
    replicas, in_sync, _offline = (_array(buffer, lambda some: _number(some, ">i")) for _ in range(3))
    _skip_tags(buffer)
    return TopicPartition(code, number, leader, replicas, in_sync)


def _number(buffer: BytesIO, form: str) -> int:
    number: int
    (number,) = struct.unpack(form, buffer.read(struct.calcsize(form)))
    return number


def _varint(buffer: BytesIO) -> int:
    number = shift = 0
    while True:
        part = _number(buffer, ">B")
        number |= (part & 0x7F) << shift
        if part < 0x80:
            return number
        shift += 7


def _length(number: int) -> bytes:
    number += 1
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))


def _compact(content: bytes) -> bytes:
    return _length(len(content)) + content


def _string(buffer: BytesIO) -> str | None:
    length = _varint(buffer) - 1
    return None if length < 0 else buffer.read(length).decode()


def _array(buffer: BytesIO, item: Callable[[BytesIO], _T]) -> list[_T]:
    return [item(buffer) for _ in range(_varint(buffer) - 1)]


def _skip_tags(buffer: BytesIO) -> None:
    for _ in range(_varint(buffer)):
        _varint(buffer)
        buffer.read(_varint(buffer))
