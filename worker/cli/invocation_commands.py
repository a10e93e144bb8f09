"""`perdure invocations list` and `perdure invocations show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .failures import reported
from .flags import AsJson, InvocationIdText, Namespace, RedisUrl, settings_with
from .output import print_fields, print_json, print_table, time_text

if TYPE_CHECKING:
    from perdure.journal.inspection import InvocationView
    from perdure.journal.redis_store import RedisStore

LIST_MAX = 10_000
"""More than anyone reads; each one is a hash to fetch."""

COLUMNS = ("id", "target", "status", "attempts", "failures", "entries", "admitted", "worker", "last failure")

group = typer.Typer(help="Look at invocations.", no_args_is_help=True)


@group.command("list")
@reported
def list_invocations(
    status: Annotated[
        list[str] | None, typer.Option(help="Only of this status, such as paused. Repeatable; all without it.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIST_MAX, help="At most so many of each status.")] = 50,
    as_json: AsJson = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """List invocations by status, the newest of each first."""
    from perdure.journal.inspection import view_of
    from perdure.journal.keys import STATUSES
    from perdure.schemas.errors import UsageError

    from .reading import look

    unknown = sorted(set(status or ()) - set(STATUSES))
    if unknown:
        raise UsageError(f"There is no status {unknown[0]!r}: they are {', '.join(STATUSES)}.")
    settings = settings_with(redis_url=redis_url, namespace=namespace)

    async def question(store: RedisStore) -> list[InvocationView]:
        chosen = [name for name in STATUSES if not status or name in status]
        summaries = [s for name in chosen for s in await store.list_invocations(name, invocations_max=limit)]
        # One that moved on between two looks would come twice.
        return list({summary.invocation_id: view_of(summary) for summary in summaries}.values())

    views = look(settings, question)
    if as_json:
        print_json([view.to_json() for view in views])
        return
    print_table(COLUMNS, [_cells(view) for view in views])


@group.command("show")
@reported
def show_invocation(
    invocation_id: InvocationIdText, as_json: AsJson = False, redis_url: RedisUrl = None, namespace: Namespace = None
) -> None:
    """Show one invocation."""
    from .reading import find_invocation, look

    settings = settings_with(redis_url=redis_url, namespace=namespace)
    view = look(settings, lambda store: find_invocation(store, invocation_id))
    if as_json:
        print_json(view.to_json())
        return
    from perdure.journal.inspection import outcome_text

    result, failure = ("", "") if view.outcome is None else outcome_text(view.outcome)
    times = [("admitted", time_text(view.admitted_at_ms)), ("completed", time_text(view.completed_at_ms))]
    names = ("id", "target", "key", "status", "attempts", "failures", "entries", "worker")
    more = [("idempotency key", view.idempotency_key), ("source", view.source), ("last failure", view.last_failure)]
    fields = [(name, getattr(view, name)) for name in names]
    print_fields([*fields, *times, *more, ("result", result), ("failure", failure)])


def _cells(view: InvocationView) -> tuple[object, ...]:
    admitted = time_text(view.admitted_at_ms)
    counts = (view.attempts, view.failures, view.entries)
    return (view.id, view.target, view.status, *counts, admitted, view.worker, view.last_failure)
