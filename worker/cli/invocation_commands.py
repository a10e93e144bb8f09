"""`perdure invocations list` and `perdure invocations show`; the group of what operates them, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .control_commands import add_controls
from .failures import reported
from .filters import (
    AtMost,
    OfFailure,
    OfHandler,
    OfKey,
    OfService,
    OfStatus,
    OlderThan,
    YoungerThan,
    read_filter,
)
from .flags import App, AsJson, InvocationIdText, Namespace, RedisUrl, settings_with
from .output import note, print_fields, print_json, print_table, time_text

if TYPE_CHECKING:
    from perdure.journal.inspection import InvocationView
    from perdure.journal.listing import InvocationPage
    from perdure.journal.redis_store import RedisStore

COLUMNS = ("id", "target", "key", "status", "attempts", "failures", "entries", "admitted", "worker", "last failure")

group = typer.Typer(help="Look at invocations, and operate them.", no_args_is_help=True)
add_controls(group)


@group.command("list")
@reported
def list_invocations(
    status: OfStatus = None,
    service: OfService = None,
    handler: OfHandler = None,
    key: OfKey = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    failure: OfFailure = None,
    limit: AtMost = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before said that it goes on.")] = None,
    as_json: AsJson = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """List invocations status by status, the newest of each first."""
    from perdure.journal.listing import list_page
    from perdure.worker.clock import SystemClock

    from .reading import look

    chosen = read_filter(status, service, handler, key, older_than, younger_than, failure)
    settings = settings_with(redis_url=redis_url, namespace=namespace)

    async def question(store: RedisStore) -> InvocationPage:
        return await list_page(store, chosen, now_ms=SystemClock().now_ms(), limit=limit, cursor=cursor)

    page = look(settings, question)
    views = page.invocations
    if as_json:
        print_json([view.to_json() for view in views])
    else:
        print_table(COLUMNS, [_cells(view) for view in views])
    if page.cursor is not None:
        note(f"There may be more: --cursor {page.cursor}")


@group.command("show")
@reported
def show_invocation(
    invocation_id: InvocationIdText,
    as_json: AsJson = False,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Show one invocation."""
    from .opening import opened_view, sealer_of
    from .reading import find_invocation, look

    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    sealer = sealer_of(settings)
    view = opened_view(look(settings, lambda store: find_invocation(store, invocation_id)), sealer)
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
    return (view.id, view.target, view.key, view.status, *counts, admitted, view.worker, view.last_failure)
