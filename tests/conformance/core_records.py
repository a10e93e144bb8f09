"""Handlers for single properties of what records of subscribed topics bring."""

from __future__ import annotations

from typing import Any

from perdure.worker.object_context import ObjectContext, ObjectSharedContext
from perdure.worker.virtual_object import VirtualObject

KEPT = "kept"

record_cases = VirtualObject("RecordCases")


@record_cases.handler()
async def keep(ctx: ObjectContext, value: Any) -> None:
    """Remember a value with its headers, and the topic and the key of its record."""
    request = ctx.request()
    source = request.source
    assert source is not None
    entry = [value, dict(request.headers), source.topic, (source.key or b"").decode()]
    ctx.set(KEPT, [*(await ctx.get(KEPT) or []), entry])


@record_cases.handler(kind="shared")
async def kept(ctx: ObjectSharedContext) -> list[list[Any]]:
    """Everything that is remembered, in the order of arrival."""
    return await ctx.get(KEPT) or []
