"""Flags that choose invocations, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from perdure.journal.selection import InvocationFilter

LIST_MAX = 10_000
"""More than anyone reads; each one is a hash to fetch."""

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Invocation ids, inv_...")]
OfStatus = Annotated[list[str] | None, typer.Option("--status", help="Only of this status: paused, ... Repeatable.")]
OfService = Annotated[str | None, typer.Option("--service", help="Only of this service, object or workflow.")]
OfHandler = Annotated[str | None, typer.Option("--handler", help="Only of this handler.")]
OfKey = Annotated[str | None, typer.Option("--key", help="Only of this key of an object or workflow.")]
OlderThan = Annotated[str | None, typer.Option(help="Only admitted longer ago: 10m, 2h, 1d.")]
YoungerThan = Annotated[str | None, typer.Option(help="Only admitted since: 10m, 2h, 1d.")]
OfFailure = Annotated[str | None, typer.Option("--failure", help="Only with this text in the last failure.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which.")]
AtMost = Annotated[int, typer.Option("--limit", min=1, max=LIST_MAX, help="At most so many.")]


def read_filter(
    status: list[str] | None,
    service: str | None,
    handler: str | None,
    key: str | None,
    older_than: str | None,
    younger_than: str | None,
    failure: str | None,
) -> InvocationFilter:
    """Read the flags.

    Raises:
        UsageError: A status or an age is wrong.
    """
    from perdure.journal.selection import InvocationFilter

    from .values import read_duration

    return InvocationFilter(
        statuses=tuple(status or ()),
        service=service,
        handler=handler,
        key=key,
        older_than=None if older_than is None else read_duration(older_than, flag="--older-than"),
        younger_than=None if younger_than is None else read_duration(younger_than, flag="--younger-than"),
        failure=failure,
    )
