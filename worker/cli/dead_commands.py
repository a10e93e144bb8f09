"""`perdure dead`: records that became dead letters, and putting them back."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .failures import reported
from .flags import AsJson, BootstrapServers, Namespace, settings_with
from .output import note, print_fields, print_json, print_table, time_text

if TYPE_CHECKING:
    from perdure.worker.letters import Letter
    from perdure.worker.settings import Settings

CLIENT = "perdure-command"

Place = Annotated[str, typer.Argument(metavar="PLACE", help="PARTITION/OFFSET as `dead list` shows it, or an offset.")]

group = typer.Typer(help="Look at dead letters, and put them back.", no_args_is_help=True)


@group.command("list")
@reported
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
) -> None:
    """List dead letters, the newest first."""
    from perdure.worker.letters import newest

    settings = settings_with(bootstrap_servers=bootstrap_servers, namespace=namespace)
    config = settings.kafka_config(client_id=CLIENT)
    letters = asyncio.run(newest(config, settings.namespace, letters_max=limit))
    if as_json:
        print_json([_json(letter) for letter in letters])
        return
    rows = [(_place(letter), time_text(letter.at_ms), letter.source, letter.reason) for letter in letters]
    print_table(("place", "at", "record", "reason"), rows)


@group.command("show")
@reported
def show_letter(
    place: Place, as_json: AsJson = False, bootstrap_servers: BootstrapServers = None, namespace: Namespace = None
) -> None:
    """Show one dead letter: why it is there, and the record."""
    from perdure.journal.inspection import preview

    settings = settings_with(bootstrap_servers=bootstrap_servers, namespace=namespace)
    (letter,) = _chosen(settings, [place])
    if as_json:
        print_json(_json(letter))
        return
    record = letter.record
    fields: list[tuple[str, object]] = [("place", _place(letter)), ("at", time_text(letter.at_ms))]
    fields += [(name, text) for name, text in letter.about.items()]
    fields.append(("record key", None if record.key is None else preview(record.key)))
    fields += [(f"header {name}", preview(raw or b"")) for name, raw in record.headers]
    fields.append(("value", None if record.value is None else preview(record.value, bytes_max=2_000)))
    print_fields(fields)


@group.command("requeue")
@reported
def requeue(
    places: Annotated[list[str], typer.Argument(metavar="PLACE...", help="As `dead list` shows them.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
) -> None:
    """Produce records to their topics again, byte for byte. The letters stay; each requeue is one more record."""
    from perdure.worker.letters import requeued

    settings = settings_with(bootstrap_servers=bootstrap_servers, namespace=namespace)
    letters = _chosen(settings, places)
    records = [requeued(letter) for letter in letters]
    for letter in letters:
        note(f"{_place(letter)}  {letter.source}  {letter.reason[:100]}")
    if dry_run:
        return
    if not yes:
        typer.confirm(f"Produce {len(records)} record{'s' * (len(records) > 1)} again?", abort=True, err=True)

    async def produce() -> None:
        from perdure.worker.sender import Sender

        async with Sender(settings.kafka_config(client_id=CLIENT)) as sender:
            for letter, record in zip(letters, records, strict=True):
                await sender.send(record)
                typer.echo(_place(letter))

    asyncio.run(produce())


def _chosen(settings: Settings, places: list[str]) -> list[Letter]:
    from perdure.worker.letters import chosen

    wanted = [_read(text) for text in places]
    return asyncio.run(chosen(settings.kafka_config(client_id=CLIENT), settings.namespace, wanted))


def _read(text: str) -> tuple[int, int]:
    from perdure.schemas.errors import UsageError

    found = re.fullmatch(r"(?:(\d{1,9})/)?(\d{1,18})", text)
    if found is None:
        raise UsageError(f"{text!r} is not the place of a dead letter: write its offset, or PARTITION/OFFSET.")
    return int(found[1] or 0), int(found[2])


def _place(letter: Letter) -> str:
    return f"{letter.partition}/{letter.offset}"


def _json(letter: Letter) -> dict[str, Any]:
    from perdure.journal.inspection import payload_json

    record = letter.record
    return {
        "place": _place(letter),
        "at_ms": letter.at_ms,
        "about": dict(letter.about),
        "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        "headers": [
            [name.encode("utf-8", "replace").decode(), None if raw is None else raw.decode("utf-8", "replace")]
            for name, raw in record.headers
        ],
        "value": None if record.value is None else payload_json(record.value),
    }
