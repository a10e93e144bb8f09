"""Reading dead letters again: what the record was, why it is there, and putting it back where it came from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from perdure.schemas.errors import ConflictError, UsageError

from .broker import Outgoing, Partition, Record, stray_names
from .dead_letters import FIRST_ABOUT, LEFT_OUT
from .kafka import Consumer
from .kafka_admin import describe_cluster
from .kafka_config import KafkaConfig
from .kafka_offsets import ends
from .topics import dead_letter_topic

OURS: Final = "perdure-"
"""Names of headers that letters have behind those of the record begin so."""

_STRAY: Final = re.compile(r"perdure-header-(\d+)-name")

TAKE_MS: Final = 500
"""How long one look waits for records; the topic's end is known, so that nothing is waited for in vain."""

LOOKS_MAX: Final = 40
"""Looks without a record before it is given up: transactions of others may have left holes."""

BEYOND_LOOKS_MAX: Final = 2
"""Likewise behind the end that the broker tells: the embedded one counts only the first record of its last batch."""


class Letter(NamedTuple):
    """A dead letter.

    Attributes:
        partition: Of the dead-letter topic.
        offset: Likewise.
        at_ms: When it was written.
        about: What is told of it, by name without `perdure-`: the reason, and where the record was.
        record: The record as it was; its partition and offset are those of the letter where they are not told.
    """

    partition: int
    offset: int
    at_ms: int
    about: Mapping[str, str]
    record: Record

    @property
    def reason(self) -> str:
        """Why it is there."""
        return self.about.get("reason", "")

    @property
    def source(self) -> str:
        """`topic/partition/offset` of the record."""
        (topic, number), offset, *_ = self.record
        return f"{topic}/{number}/{offset}"


def opened(letter: Record) -> Letter:
    """Take a letter apart.

    Args:
        letter: A record of the dead-letter topic; one that no worker wrote is a record without a reason.
    """
    headers = list(letter.headers)
    first = max((at for at, (name, _) in enumerate(headers) if name == FIRST_ABOUT), default=len(headers))
    told = headers[first:] if all(name.startswith(OURS) for name, _ in headers[first:]) else []
    own = headers[: len(headers) - len(told)]
    while told and own and (at := _stray(own)) is not None:
        _, raw = own.pop()
        own[at] = ((raw or b"").decode("utf-8", "surrogateescape"), own[at][1])
    about = {name.removeprefix(OURS): (raw or b"").decode("utf-8", "replace") for name, raw in told}
    place = Partition(about.get("topic", letter.partition.topic), _number(about, "partition", letter.partition.number))
    record = Record(
        place,
        _number(about, "offset", letter.offset),
        _number(about, "timestamp", letter.timestamp_ms),
        letter.key,
        letter.value,
        tuple(own),
    )
    return Letter(letter.partition.number, letter.offset, letter.timestamp_ms, about, record)


def _stray(own: Sequence[tuple[str, bytes | None]]) -> int | None:
    """Of which header the last one holds the name: of one whose name could be shown with replacements only."""
    *rest, (name, raw) = own
    found = _STRAY.fullmatch(name)
    if found is None or raw is None or int(found[1]) >= len(rest):
        return None
    shown = raw.decode("utf-8", "replace")
    return int(found[1]) if rest[int(found[1])][0] == shown != raw.decode("utf-8", "surrogateescape") else None


def _number(about: Mapping[str, str], name: str, otherwise: int) -> int:
    text = about.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def requeued(letter: Letter) -> Outgoing:
    """The record as it was, for its own topic and partition.

    Raises:
        ConflictError: It is not known where it was, the letter is without it, or it has headers that cannot be written.
    """
    topic, number = letter.record.partition
    place = f"{letter.partition}/{letter.offset}"
    if "topic" not in letter.about:
        raise ConflictError(f"The dead letter {place} does not say which topic it comes from: no worker wrote it.")
    if left_out := letter.about.get(LEFT_OUT.removeprefix(OURS)):
        raise ConflictError(
            f"The dead letter {place} is without its record ({left_out}), which was too large for the dead letters: it "
            f"stands at {letter.source} as long as that topic keeps it. Produce it anew, smaller."
        )
    if stray_names(letter.record.headers):
        raise ConflictError(
            f"The record of the dead letter {place} has header names that are not UTF-8, for which it would be refused "
            "again: produce it without them."
        )
    return Outgoing(topic, letter.record.key, letter.record.value, letter.record.headers, partition=number)


async def newest(config: KafkaConfig, namespace: str, *, letters_max: int) -> list[Letter]:
    """The newest dead letters, newest first.

    Raises:
        BrokerError: Kafka did not answer.
    """
    async with _reading(config, namespace) as (consumer, bounds):
        begin = {each: max(first, end - letters_max) for each, (first, end) in bounds.items()}
        found = await _take(consumer, {each: (begin[each], end) for each, (_, end) in bounds.items()})
    return sorted(found, key=lambda letter: (letter.at_ms, letter.partition, letter.offset), reverse=True)[:letters_max]


async def chosen(config: KafkaConfig, namespace: str, places: Sequence[tuple[int, int]]) -> list[Letter]:
    """The letters at these partitions and offsets, in that order.

    Raises:
        BrokerError: Kafka did not answer.
        UsageError: There is none at one of them.
    """
    letters: list[Letter] = []
    async with _reading(config, namespace) as (consumer, bounds):
        for number, offset in places:
            partition = Partition(dead_letter_topic(namespace), number)
            first, end = bounds.get(partition, (0, -1))
            found: list[Letter] = []
            if first <= offset and partition in bounds:
                looks_max = LOOKS_MAX if offset < end else BEYOND_LOOKS_MAX
                found = await _take(consumer, {partition: (offset, offset + 1)}, looks_max=looks_max)
            # What comes first may be a later one, where that offset is none.
            found = [letter for letter in found if letter.offset == offset]
            if not found:
                raise UsageError(
                    f"There is no dead letter {number}/{offset}: choose from those of `perdure dead list`."
                )
            letters += found
    return letters


@contextlib.asynccontextmanager
async def _reading(
    config: KafkaConfig, namespace: str
) -> AsyncIterator[tuple[Consumer, Mapping[Partition, tuple[int, int]]]]:
    topic = dead_letter_topic(namespace)
    count = (await describe_cluster(config, [topic])).topics.get(topic, 0)
    partitions = [Partition(topic, number) for number in range(count)]
    consumer = Consumer(config, revoked=_nothing, assigned=_nothing)
    try:
        if partitions:
            await consumer.start()
        first = await consumer.ask(_beginnings, partitions) if partitions else {}
        last = await consumer.ask(ends, partitions) if partitions else {}
        yield consumer, {each: (first.get(each, 0), last.get(each, 0)) for each in partitions}
    finally:
        await consumer.close()


async def _nothing(_: Sequence[Partition]) -> None:
    pass


async def _beginnings(client: Any, partitions: list[Any]) -> dict[Any, int]:
    found: dict[Any, int] = await client.beginning_offsets(partitions)
    return found


async def _take(
    consumer: Consumer, wanted: Mapping[Partition, tuple[int, int]], *, looks_max: int = LOOKS_MAX
) -> list[Letter]:
    """The letters from each first offset up to the one before the second, and what comes along behind it."""
    left = {partition: bounds for partition, bounds in wanted.items() if bounds[0] < bounds[1]}
    if not left:
        return []
    consumer.assign(left)
    consumer.seek({partition: first for partition, (first, _) in left.items()})
    found: list[Letter] = []
    idle = 0
    while left and idle < looks_max:
        records = await consumer.take(records_max=500, wait_ms=TAKE_MS, partitions=list(left))
        idle = 0 if records else idle + 1
        for record in records:
            bounds = left.get(record.partition)
            if record.partition in wanted:
                found.append(opened(record))
            if bounds is not None and record.offset >= bounds[1] - 1:
                del left[record.partition]
    return found
