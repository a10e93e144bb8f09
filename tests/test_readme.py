"""The README's examples are executed as they stand there, and what it shows is what there is."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main

from examples.ledger import VARIABLE, Ledger
from perdure import TerminalError
from perdure.schemas.codec import decode
from perdure.schemas.entries import Unknown
from perdure.schemas.ids import slot_of
from perdure.schemas.records import decode_invocation
from perdure.testing import HarnessFactory
from perdure.worker.application import load_application
from perdure.worker.cli import app
from perdure.worker.clock import system_random
from perdure.worker.server_process import free_port
from perdure.worker.settings import Settings
from tests.documents import ROOT, blocks
from tests.waiting import PATIENCE, PATIENCE_S, wait_until

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = {block.title: block.text for block in blocks(README) if block.title}

# The README names ports, so that two terminals agree; other tests may run on this machine.
PORTS = ("26379", "29092")


def with_free_ports(text: str, ports: dict[str, str]) -> str:
    """Return the text with other ports in it."""
    for named, free in ports.items():
        text = text.replace(named, free)
    return text


@pytest.fixture
def ports() -> dict[str, str]:
    """A free port for each one that the README names."""
    return {named: str(free_port(system_random())) for named in PORTS}


@asynccontextmanager
async def terminal(script: str, directory: Path, log: Path, **variables: str) -> AsyncIterator[None]:
    """Run a script as in a terminal of its own until its worker works; ended with Ctrl-C."""
    environment = {**os.environ, **variables}

    def logged() -> str:
        return log.read_text(errors="replace")

    with log.open("wb") as output:
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=directory,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            await wait_until(
                lambda: "partitions are assigned" in logged() or shell.returncode is not None,
                description="the worker reads",
            )
            assert shell.returncode is None, logged()
            yield
        finally:
            if shell.returncode is None:
                os.killpg(shell.pid, signal.SIGINT)
            await asyncio.wait_for(shell.wait(), PATIENCE_S)


async def run(script: str, directory: Path, **variables: str) -> str:
    """Run a script to its end, as in a second terminal; returns what it printed."""
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-eu", "-c", script),
        cwd=directory,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(shell.communicate(), PATIENCE_S)
    assert shell.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.process
@pytest.mark.timeout(300)
async def test_the_quick_start(tmp_path: Path, ports: dict[str, str]) -> None:
    """Both terminals do what the README says (`make setup` has been run by whoever runs this)."""
    ledger = tmp_path / "ledger.sqlite"
    first, second = (with_free_ports(BLOCKS[title], ports) for title in ("first terminal", "second terminal"))
    async with terminal(first, ROOT, tmp_path / "dev.log", **{VARIABLE: str(ledger)}):
        said = await run(second, ROOT)
    assert '"subscriptions":["news","music"]' in said.replace(", ", ",").replace(": ", ":")
    assert "step_failed" in said
    assert "subscription films" in said
    # The declared failures happened, and the card was charged once for each of the two.
    tries = [(effect.name, effect.done) for effect in Ledger(ledger).effects()]
    assert tries.count(("subscribe news", False)) == 2
    assert tries.count(("charge", True)) == 2


@pytest.mark.process
@pytest.mark.timeout(300)
async def test_the_handler_and_its_caller(tmp_path: Path, ports: dict[str, str]) -> None:
    """The handler of the README runs, and the program that calls it gets its answers."""
    for name in ("shop.py", "caller.py"):
        (tmp_path / name).write_text(BLOCKS[name])
    redis, kafka = ports.values()
    command = Path(sys.executable).with_name("perdure")
    dev = f"{command} dev shop:application --redis-port {redis} --kafka-port {kafka} --no-reload"
    places = {"PERDURE_REDIS_URL": f"redis://127.0.0.1:{redis}", "PERDURE_BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka}"}
    async with terminal(dev, tmp_path, tmp_path / "dev.log"):
        said = await run(f"{sys.executable} caller.py", tmp_path, **places)
    assert re.fullmatch(r"parcel [0-9a-f-]{36}\ninv_[0-9a-f]+ parcel [0-9a-f-]{36}\n", said)


def test_the_handler_is_short() -> None:
    """A service with all that it needs takes twenty lines, blank ones aside."""
    assert len([line for line in BLOCKS["shop.py"].splitlines() if line.strip()]) <= 20


async def test_the_object(perdure_harness: HarnessFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object of the README keeps what it is told, for each key, in twenty lines."""
    (tmp_path / "basket.py").write_text(BLOCKS["basket.py"])
    assert len([line for line in BLOCKS["basket.py"].splitlines() if line.strip()]) <= 20
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "basket", raising=False)
    soon = PATIENCE
    async with perdure_harness(load_application("basket:application"), always_replay=True) as env:
        for item in ("tea", "cake"):
            await env.client.call("Basket/add", item, key="ada", timeout=soon)
        assert await env.client.call("Basket/items", key="ada", timeout=soon) == ["tea", "cake"]
        assert await env.client.call("Basket/check_out", key="ada", timeout=soon) == "2 paid"
        with pytest.raises(TerminalError, match="The basket of ben is empty"):
            await env.client.call("Basket/check_out", key="ben", timeout=soon)


def test_records_by_hand_are_records() -> None:
    """The envelope that is shown, and those of the command lines, are understood."""
    for line in (BLOCKS["record"], *re.findall(r"^\$ echo '(\{.*\})' \|", TEXT, re.MULTILINE)):
        assert decode_invocation(line.encode()).handler == "place"


def test_the_journal_is_one() -> None:
    """The journal that is shown has entries that this version writes, in order, under the key that the id asks for."""
    shown = next(block.text for block in blocks(README) if "XRANGE" in block.text)
    command, *lines = shown.splitlines()
    found = re.search(r"demo:\{(\d+)\}:journal:(inv_\w+)", command)
    assert found is not None
    assert int(found[1]) == slot_of(found[2], Settings.model_fields["slots"].default)
    ids, kinds, bodies = lines[::3], lines[1::3], lines[2::3]
    assert [entry_id.split("-")[0] for entry_id in ids] == [str(n) for n in range(1, len(ids) + 1)]
    entries = [decode(kind.encode(), body.encode()) for kind, body in zip(kinds, bodies, strict=True)]
    assert not any(isinstance(entry, Unknown) for entry in entries)


def test_the_commands_are_all_there() -> None:
    """The table of commands has every command, and no other."""
    commands: Any = typer.main.get_command(app)
    names = set()
    for name, command in commands.commands.items():
        names |= {f"{name} {sub}" for sub in command.commands} if hasattr(command, "commands") else {name}
    table = TEXT.split("## The command")[1].split("## ")[0]
    words = [line.split() for line in re.findall(r"`perdure ([^`]*)`", table)]
    shown = {" ".join(word for word in line if re.fullmatch(r"[a-z]+", word)) for line in words}
    assert shown == names


def test_make_demo_is_the_demo() -> None:
    """The command that the README promises runs what `tests/examples/test_demo.py` tests."""
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/python -m examples\.demo$", (ROOT / "Makefile").read_text(), re.MULTILINE)
