"""`perdure journal show`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .failures import reported
from .flags import App, AsJson, InvocationIdText, Namespace, RedisUrl, settings_with
from .output import note, print_json, print_line, print_table, time_text

if TYPE_CHECKING:
    from perdure.journal.inspection import Row
    from perdure.journal.redis_store import RedisStore
    from perdure.schemas.entries import Positioned
    from perdure.worker.sealing import Sealer
    from perdure.worker.settings import Settings

FOLLOW_INTERVAL_S = 0.3
"""Between two looks: quick for an eye, nothing for Redis."""

COLUMNS = ("position", "attempt", "type", "name", "at", "duration", "result", "failure")

group = typer.Typer(help="Look at journals.", no_args_is_help=True)


@group.command("show")
@reported
def show_journal(
    invocation_id: InvocationIdText,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the invocation is completed.")] = False,
    as_json: AsJson = False,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Show what an invocation did: one line for each entry of its journal."""
    from .opening import opened, sealer_of

    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    sealer = sealer_of(settings)
    if follow:
        asyncio.run(_follow(settings, invocation_id, as_json=as_json, sealer=sealer))
        return
    from perdure.journal.inspection import entry_json, rows_of
    from perdure.schemas.ids import InvocationId

    from .reading import find_invocation, look

    async def question(store: RedisStore) -> tuple[str, list[Positioned]]:
        view = await find_invocation(store, invocation_id)
        title = f"{view.target}  {view.status}"
        return title, await store.read_journal(InvocationId(invocation_id))

    title, read = look(settings, question)
    entries = opened(read, sealer)
    if as_json:
        print_json([entry_json(entry) for entry in entries])
        return
    print_table(COLUMNS, [_cells(row) for row in rows_of(entries)], title=title)
    if not entries:
        note("The journal is empty: its retention ended, and the outcome is kept longer (perdure invocations show).")


async def _follow(settings: Settings, invocation_id: str, *, as_json: bool, sealer: Sealer | None) -> None:
    from perdure.journal.inspection import Journal, entry_json
    from perdure.schemas.ids import InvocationId

    from .opening import opened
    from .output import clean
    from .reading import find_invocation, reading_store

    journal = Journal()
    async with reading_store(settings) as store:
        if not as_json:
            print_line(COLUMNS)
        while True:
            # Looked at before its journal: what was completed then has nothing to come.
            view = await find_invocation(store, invocation_id)
            entries = opened(await store.read_journal(InvocationId(invocation_id), after=journal.length), sealer)
            rows = journal.add(entries)
            for entry, row in zip(entries, rows, strict=True):
                if as_json:
                    print_json(entry_json(entry), one_line=True)
                else:
                    print_line([clean(cell) for cell in _cells(row)])
            if view.status == "completed":
                return
            await asyncio.sleep(FOLLOW_INTERVAL_S)


def _cells(row: Row) -> Sequence[object]:
    from perdure.journal.inspection import duration_text

    duration = "" if row.duration_ms is None else duration_text(row.duration_ms)
    attempt = row.attempt or ""
    return (row.position, attempt, row.type, row.name, time_text(row.at_ms), duration, row.result, row.failure)
