"""The command as a whole, as a process: help, exit codes, what goes to stderr."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import Command

COMMANDS = (
    ["dev"],
    ["worker"],
    ["send"],
    ["call"],
    ["invocations", "list"],
    ["invocations", "show"],
    ["journal", "show"],
    ["topics", "create"],
    ["doctor"],
)


@pytest.mark.process
def test_it_runs_as_a_process() -> None:
    """`python -m perdure --help` is the command; a wrong command is exit code 2."""
    shown = subprocess.run([sys.executable, "-m", "perdure", "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0
    assert "invocations" in shown.stdout
    wrong = subprocess.run([sys.executable, "-m", "perdure", "wroker"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "worker" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.process
def test_help_imports_neither_clients_nor_engine() -> None:
    """The command's own modules leave the heavy ones to the commands that need them."""
    script = (
        "import sys, types\n"
        # The public API imports everything; what is asked here is what the command adds to it.
        "root = types.ModuleType('perdure'); root.__path__ = [sys.argv[1]]; sys.modules['perdure'] = root\n"
        "from perdure.worker.cli import app\n"
        "print(*sorted({'aiokafka', 'redis', 'pydantic', 'rich.table', 'uvloop'} & sys.modules.keys()))\n"
    )
    import perdure

    run = [sys.executable, "-c", script, perdure.__path__[0]]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_every_command_explains_itself(command: list[str], perdure: Command) -> None:
    """Each command has help that begins with what it does."""
    shown = await perdure(*command, "--help")
    assert shown.exit_code == 0
    assert f"Usage: perdure {' '.join(command)}" in shown.stdout


@pytest.mark.parametrize("command", [["worker"], ["topics", "create"], ["doctor"]], ids=" ".join)
async def test_an_application_that_is_not_there_is_exit_code_2(
    command: list[str], clean_environment: None, perdure: Command
) -> None:
    """The message says what could not be found; no traceback, nothing is connected."""
    ended = await perdure(*command, "no_such_module:app")
    assert ended.exit_code == 2
    assert "no_such_module" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_bad_setting_is_named(
    clean_environment: None, perdure: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and the variable's name."""
    monkeypatch.setenv("PERDURE_LEASE_S", "soon")
    ended = await perdure("invocations", "list")
    assert ended.exit_code == 2
    assert "PERDURE_LEASE_S" in ended.stderr
