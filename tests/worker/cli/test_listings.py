"""`perdure invocations` and `perdure journal`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from perdure.schemas.ids import new_invocation_id
from perdure.worker.clock import system_random
from tests.waiting import wait_until

from .conftest import Command
from .test_sending import start_of

pytestmark = pytest.mark.process


async def test_what_happened_can_be_read(worker: asyncio.subprocess.Process, perdure: Command, tmp_path: Path) -> None:
    """Lists, one invocation, its journal as a table, as JSON and as it grows."""
    await start_of(perdure)
    gate = tmp_path / "gate"
    sent = (await perdure("send", "Shop/wait_for", f'"{gate}"')).stdout.strip()
    await wait_until(lambda: list(tmp_path.glob("gate.*")))

    listed = await perdure("invocations", "list", "--status", "running")
    header, row = listed.stdout.splitlines()
    assert header.split("\t")[:4] == ["id", "target", "key", "status"]
    assert row.split("\t")[:4] == [sent, "Shop/wait_for", "", "running"]

    following = asyncio.create_task(perdure("journal", "show", sent, "--follow", "--json"))
    gate.touch()
    lines = [orjson.loads(line) for line in (await following).stdout.splitlines()]
    assert [line["type"] for line in lines] == ["input", "run", "output"]

    shown = await perdure("journal", "show", sent)
    columns, *rows = [line.split("\t") for line in shown.stdout.splitlines()]
    assert columns == ["position", "attempt", "type", "name", "at", "duration", "result", "failure"]
    assert [row[2:4] for row in rows] == [["input", ""], ["run", "wait"], ["output", ""]]
    assert rows[1][6] == str(worker.pid)
    as_json = orjson.loads((await perdure("journal", "show", sent, "--json")).stdout)
    assert as_json == lines

    invocation = await perdure("invocations", "show", sent)
    fields = dict(line.split("\t", 1) for line in invocation.stdout.splitlines())
    assert fields["status"] == "completed"
    assert fields["result"] == str(worker.pid)
    everything = orjson.loads((await perdure("invocations", "list", "--json", "--limit", "100")).stdout)
    assert sent in [view["id"] for view in everything]
    assert {view["status"] for view in everything} == {"completed"}


async def test_what_is_not_there_is_said(places: None, perdure: Command) -> None:
    """A namespace that nobody made, an id that nobody knows, a status that does not exist."""
    unknown = new_invocation_id("Shop", None, system_random())
    for command in (["invocations", "list"], ["invocations", "show", unknown], ["journal", "show", unknown, "-f"]):
        ended = await perdure(*command)
        assert ended.exit_code == 2
        assert "has no namespace" in ended.stderr
    await perdure("send", "Shop/ping")  # makes the namespace, and fails for want of a topic
    for group in ("invocations", "journal"):
        ended = await perdure(group, "show", unknown)
        assert ended.exit_code == 1
        assert unknown in ended.stderr
        assert (await perdure(group, "show", "that")).exit_code == 2
    assert (await perdure("invocations", "list")).stdout.count("\n") == 1
    assert (await perdure("invocations", "list", "--json")).stdout == "[]\n"
    wrong = await perdure("invocations", "list", "--status", "tired")
    assert wrong.exit_code == 2
    assert "backing-off" in wrong.stderr
