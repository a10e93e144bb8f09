"""Every bound on what comes from outside, with its reason. Settings may lower or raise those that say so."""

from __future__ import annotations

from typing import Final

RECORD_BYTES_MAX: Final = 1_000_000
"""A record's value: Kafka's own default for a message (`message.max.bytes`) is 1 MiB; less leaves room for headers."""

PAYLOAD_BYTES_MAX: Final = 1_000_000
"""A step's result or an outcome: what the journal can hand on through Kafka in one record."""

HEADERS_MAX: Final = 100
"""Headers of a record: more is an accident, and each one is stored with the invocation."""

HEADERS_BYTES_MAX: Final = 100_000
"""Names and values of a record's headers together: they are read with each attempt, and tracing needs some hundreds."""

NAME_LENGTH_MAX: Final = 200
"""A service, handler or step name: service names become part of topic names, which Kafka ends at 249."""

KEY_LENGTH_MAX: Final = 512
"""An object key or idempotency key, in characters: keys become part of Redis keys."""

JOURNAL_ENTRIES_MAX: Final = 50_000
"""Entries of one journal: replay is linear, and a stream is read whole at each claim. A handler that needs more wants
a loop of invocations."""

JOURNAL_ENTRIES_CEILING: Final = 1_000_000
"""What the setting for that bound can be raised to: each command has an entry, so none has an index from this on."""

JOURNAL_BYTES_MAX: Final = 64_000_000
"""What the results, arguments and values in one journal hold together: each attempt reads it whole, and a worker has a
hundred attempts."""

CHILDREN_MAX: Final = 10_000
"""Calls and sends of one invocation: each is told its end, or killed with it. Who wants more lets its children call
some."""

METADATA_MAX: Final = 50
METADATA_CHARACTERS_MAX: Final = 1_000
"""Entries of a failure's metadata, and characters of each name and value; the rest is cut, as the message is."""

ENTRIES_PER_APPEND_MAX: Final = 500
"""Entries in one append: keeps one script under a millisecond or so, and under Lua's limit on unpacked arguments."""

FAILURE_CHARACTERS_MAX: Final = 8_000
"""A failure's message or stack in the journal; the rest is cut, and the text says so."""

REASON_CHARACTERS_MAX: Final = 1_000
"""Why a record went to the dead letters: it travels in one of its headers, and may quote what the record holds."""

QUEUE_MAX: Final = 10_000
"""Invocations that wait for one object: a day of one a few seconds long. Beyond it admission of its partition waits."""

WAITERS_MAX: Final = 1_000
"""Channels that wait for one outcome; later ones are told to ask again."""


RECEIVED_MAX: Final = 10_000
"""Signals and results of awakeables that one invocation is sent in its life: with what waits for them they fill half of
the longest journal. A handler that gets more wants a loop of invocations."""

RECEIVED_BYTES_MAX: Final = 32_000_000
"""What those hold together: each attempt reads all of it, and one invocation must not fill Redis."""

CANCELLATIONS_MAX: Final = 100
"""Cancellations of one invocation: each interrupts what compensates the last one. Who wants it gone kills it."""


def shorten(text: str, characters_max: int = FAILURE_CHARACTERS_MAX) -> str:
    """`text`, cut to the limit with a note of how much was left out. Lone surrogates are replaced: JSON has none."""
    if len(text) > characters_max:
        text = f"{text[:characters_max]}… ({len(text) - characters_max} characters left out)"
    return text.encode("utf-8", "replace").decode()
