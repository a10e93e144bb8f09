"""What a subscription brings: records of a topic that is not ours, those of one key one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perdure import Context, Service

from .steps import RETRY, step

FEED_TOPIC: Final = "elsewhere"
FEED_GROUP: Final = "chaos-feed"


@dataclass(frozen=True)
class Item:
    """A record's value.

    Attributes:
        tag: Of this try to produce it, and no other.
        key: The record's.
        ms: How long its step takes.
    """

    tag: str
    key: str
    ms: int = 0


@dataclass(frozen=True)
class Taken:
    """The outcome of a record.

    Attributes:
        tag: The record's.
        executions: The step that its handler saw.
        key: The record's.
        partition: Where it stands.
        offset: Likewise.
    """

    tag: str
    executions: list[str]
    key: str
    partition: int
    offset: int


feed = Service("Feed", invocation_retry_policy=RETRY)


@feed.handler()
async def take(ctx: Context, item: Item) -> Taken:
    """Work, and say which record it was."""
    source = ctx.request().source
    if source is None or source.key != item.key.encode():
        raise ValueError(f"{item.tag} has the key {item.key!r} and is given as {source}")
    seen = [await step(ctx, "take", item.ms)]
    return Taken(item.tag, seen, item.key, source.partition, source.offset)
