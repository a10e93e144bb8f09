"""`perdure invocations cancel`, `kill`, `pause`, `resume`, `restart` and `purge`: one, many, or a filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from .failures import FAILED, reported
from .filters import (
    AtMost,
    DryRun,
    Ids,
    OfFailure,
    OfHandler,
    OfKey,
    OfService,
    OfStatus,
    OlderThan,
    Yes,
    YoungerThan,
    read_filter,
)
from .flags import App, AsJson, Namespace, RedisUrl, settings_with
from .output import clean, note, print_json, print_table

if TYPE_CHECKING:
    from perdure.journal.selection import InvocationFilter
    from perdure.worker.client import Client
    from perdure.worker.client_controls import Action, Bulk
    from perdure.worker.settings import Settings

SHOWN_MAX = 20
"""Invocations that are named before somebody is asked."""

HELP: dict[Action, str] = {
    "cancel": "Ask invocations to end: their handlers see a TerminalError 409 and may compensate.",
    "kill": "End invocations at once, without compensation; what they called, too.",
    "pause": "Have invocations wait until they are resumed.",
    "resume": "Let paused invocations go on.",
    "purge": "Forget completed invocations and their journals.",
}


class Request(NamedTuple):
    """What was typed."""

    action: Action
    ids: list[str]
    chosen: InvocationFilter
    limit: int
    yes: bool
    dry_run: bool
    as_json: bool
    keep: int = 0


def add_controls(group: typer.Typer) -> None:
    """Add the commands to the group of `invocations`."""
    for action in HELP:
        group.command(action, help=HELP[action])(reported(_command(action)))
    group.command("restart")(restart)


def _command(action: Action) -> Callable[..., None]:
    def command(
        ids: Ids = None,
        status: OfStatus = None,
        service: OfService = None,
        handler: OfHandler = None,
        key: OfKey = None,
        older_than: OlderThan = None,
        younger_than: YoungerThan = None,
        failure: OfFailure = None,
        limit: AtMost = 1_000,
        yes: Yes = False,
        dry_run: DryRun = False,
        as_json: AsJson = False,
        app: App = None,
        redis_url: RedisUrl = None,
        namespace: Namespace = None,
    ) -> None:
        chosen = read_filter(status, service, handler, key, older_than, younger_than, failure)
        request = Request(action, ids or [], chosen, limit, yes, dry_run, as_json)
        _operate(request, settings_with(redis_url=redis_url, namespace=namespace, app=app))

    return command


@reported
def restart(
    ids: Ids = None,
    keep: Annotated[int, typer.Option(min=0, help="Keep the results of so many commands, from the first one.")] = 0,
    status: OfStatus = None,
    service: OfService = None,
    handler: OfHandler = None,
    key: OfKey = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    failure: OfFailure = None,
    limit: AtMost = 1_000,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Begin new invocations with the input of completed ones."""
    chosen = read_filter(status, service, handler, key, older_than, younger_than, failure)
    request = Request("restart", ids or [], chosen, limit, yes, dry_run, as_json, keep)
    _operate(request, settings_with(redis_url=redis_url, namespace=namespace))


def _operate(request: Request, settings: Settings) -> None:
    from perdure.journal.selection import InvocationFilter
    from perdure.schemas.errors import UsageError

    from .operating import operate

    filtered = request.chosen != InvocationFilter()
    if bool(request.ids) == filtered:
        raise UsageError(
            f"Say which ones to {request.action}: either ids, or flags such as --status paused or --service Shop."
            if not filtered
            else "Give either ids or flags that choose, not both."
        )
    ids = _checked(request.ids)
    if filtered:
        bulk = operate(settings, lambda client: _found(client, request))
        ids = [view.id for view in bulk.chosen]
        if request.dry_run and request.as_json:
            print_json([view.to_json() for view in bulk.chosen])
            return
        _name(bulk, request)
    if request.dry_run:
        for invocation_id in [] if filtered else ids:
            typer.echo(invocation_id)
        return
    if not ids:
        if request.as_json:
            print_json([])
        return
    if not request.yes:
        typer.confirm(f"{request.action} {len(ids)} invocation{'s' * (len(ids) > 1)}?", abort=True, err=True)
    done = operate(settings, lambda client: client.control_each(request.action, ids, keep=request.keep))
    _tell(done, ids, request)
    if done.errors:
        raise typer.Exit(FAILED)


async def _found(client: Client, request: Request) -> Bulk:
    return await client.control_many(request.action, request.chosen, limit=request.limit, dry_run=True)


def _checked(ids: list[str]) -> list[str]:
    from perdure.worker.envelope import checked_id

    return [checked_id(text) for text in dict.fromkeys(ids)]


def _name(bulk: Bulk, request: Request) -> None:
    """Say whom the flags mean: for a dry run on stdout, before asking on stderr."""
    rows = [(view.id, view.target, view.key, view.status, view.last_failure) for view in bulk.chosen]
    if request.dry_run:
        print_table(("id", "target", "key", "status", "last failure"), rows)
    elif not request.yes:
        for row in rows[:SHOWN_MAX]:
            note("  ".join(clean(cell) for cell in row[:4]))
        if len(rows) > SHOWN_MAX:
            note(f"... and {len(rows) - SHOWN_MAX} more")
    if not rows:
        note("No invocation is meant.")
    if bulk.more:
        note(f"There are more than {request.limit}: run it again, or give --limit.")


def _tell(done: Bulk, ids: list[str], request: Request) -> None:
    results = dict(zip([each for each in ids if each not in done.errors], done.results, strict=True))
    rows = []
    for invocation_id in ids:
        if (error := done.errors.get(invocation_id)) is not None:
            rows.append({"id": invocation_id, "changed": False, "error": error})
            continue
        control = results[invocation_id]
        row: dict[str, object] = {"id": invocation_id, "changed": control.changed}
        if control.status:
            row["status"] = control.status
        if request.action == "restart":
            row["new_id"] = control.invocation_id
        rows.append(row)
    if request.as_json:
        print_json(rows)
        return
    print_table(("id", "result"), [(row["id"], row.get("error") or row.get("new_id") or _result(row)) for row in rows])


def _result(row: dict[str, object]) -> str:
    return "done" if row["changed"] else f"nothing to do: {row.get('status')}"
