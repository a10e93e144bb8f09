"""The history of a round as a file: a line of JSON for whatever happened, to be read by people when it is bad."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .chronicle import Chronicle
from .schedule import Strike


def write_down(path: Path, chronicle: Chronicle, schedule: Sequence[Strike]) -> None:
    """Write all that is known of a round. Effects and marks have files of their own beside it."""
    with path.open("w") as file:
        for line in _lines(chronicle, schedule):
            file.write(json.dumps(line, default=str) + "\n")


def _lines(chronicle: Chronicle, schedule: Sequence[Strike]) -> Iterator[dict[str, Any]]:
    for strike in schedule:
        yield {"strike": strike._asdict()}
    for deed in chronicle.deeds:
        yield {"deed": deed._asdict()}
    for request in chronicle.requests:
        yield {"request": dataclasses.asdict(request)}
    for story in chronicle.stories:
        entries = [f"{row.position}-{row.epoch} {row.entry}" for row in story.entries]
        yield {"invocation": story.invocation_id, "tag": story.tag, "status": story.status, "entries": entries}
    for moment, balances in (("before", chronicle.before), ("after", chronicle.after)):
        yield {"accounts": moment, **{account: tuple(balance) for account, balance in balances.items()}}
