"""What the demo prints. Constants here are words; every fact is handed in."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.demo_evidence import Evidence, Worker
from examples.ledger import Ledger
from perdure import Settings
from perdure.journal.inspection import duration_text, rows_of
from perdure.journal.keys import Keys

WIDTH_MIN = 140
"""Columns of the journal's table; a log file has no width of its own."""

PREVIEW_BYTES_MAX = 100
"""Of a payload in the journal's table: three lines of it."""


class Screen:
    """The terminal, or the log of a CI run."""

    def __init__(self) -> None:
        narrow = Console()
        self._console = Console(width=max(narrow.width, WIDTH_MIN), highlight=False)

    def servers(self, settings: Settings) -> None:
        """The servers run."""
        self._say(f"Valkey at {settings.redis_url_masked}, a Kafka-protocol broker at {settings.bootstrap_servers}.")

    def workers(self, workers: Sequence[Worker]) -> None:
        """The workers run."""
        names = " and ".join(f"{worker.name} (pid {worker.pid})" for worker in workers)
        self._say(f"Workers: {names}.")

    def completed(self, users: Sequence[str]) -> None:
        """Orders that nothing happened to."""
        self._say(f"{len(users)} orders produced and completed: {', '.join(users)}.")

    def killed(self, invocation_id: str, worker: Worker) -> None:
        """A worker was killed."""
        self._say(
            f"The payment of another one, {invocation_id}, is in the journal: SIGKILL for {worker.name} "
            f"(pid {worker.pid}), which runs it.",
            style="bold red",
        )

    def evidence(self, evidence: Evidence, pids: Mapping[str, int]) -> None:
        """What became of the order."""
        self._attempts(evidence, pids)
        self._effects(evidence)
        self._journal(evidence)

    def further(self, settings: Settings, invocation_id: str, *, stay: bool) -> None:
        """Commands with which to look further."""
        port = settings.redis_config.port
        keys = Keys(settings.namespace, slots=settings.slots).of(invocation_id)
        command = Path(sys.executable).with_name("perdure")
        shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
        redis_url = settings.redis_url.get_secret_value()
        self._say("To look further:" if stay else "To look further, while `python -m examples.demo --stay` runs:")
        for line in (
            f"export PERDURE_REDIS_URL={redis_url} PERDURE_NAMESPACE={settings.namespace}",
            f"{shown} invocations list",
            f"{shown} journal show {invocation_id}",
            f"redis-cli -p {port} XRANGE '{keys.journal.decode()}' - +",
            f"redis-cli -p {port} HGETALL '{keys.invocation.decode()}'",
            f"sqlite3 {Ledger().path} 'SELECT * FROM effects'",
        ):
            self._say(f"  {line}")

    async def until_interrupted(self) -> None:
        """Return at Ctrl-C or SIGTERM."""
        self._say("Servers and workers go on until Ctrl-C.")
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            await stop.wait()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def broken(self, reason: str, log_path: Path) -> None:
        """The story could not be told."""
        self._say(f"The demo broke off: {reason}", style="bold red")
        if log_path.exists():
            self._console.print(Text(log_path.read_text(errors="replace")[-4_000:]), soft_wrap=True)

    def verdict(self, problems: Sequence[str]) -> int:
        """Say whether all is as it should be; returns the exit code."""
        for problem in problems:
            self._say(f"NOT SO: {problem}", style="bold red")
        if not problems:
            self._say("Charged once, nothing completed was repeated, finished by another worker.", style="bold green")
        return 1 if problems else 0

    def _attempts(self, evidence: Evidence, pids: Mapping[str, int]) -> None:
        table = self._table("Which attempt ran where", "attempt", "worker", "pid", "steps it recorded", "failures")
        for attempt, worker in sorted(evidence.attempts.items()):
            died = f"{worker} (killed)" if worker == evidence.killed.name else worker
            steps = ", ".join(evidence.steps_of(attempt))
            pid = pids.get(worker, "?")
            table.add_row(*map(Text, (str(attempt), died, str(pid), steps, str(evidence.failures_of(attempt)))))
        self._console.print(table)

    def _effects(self, evidence: Evidence) -> None:
        table = self._table("What the outside world saw (the ledger)", "effect", "tries", "took place", "by processes")
        for name, (asked, done) in evidence.tries.items():
            pids = list(dict.fromkeys(str(effect.pid) for effect in evidence.effects if effect.name == name))
            table.add_row(*map(Text, (name, str(asked), str(done), ", ".join(pids))))
        self._console.print(table)

    def _journal(self, evidence: Evidence) -> None:
        table = self._table("The journal", "#", "attempt", "type", "name", "took", "result", "failure")
        for row in rows_of(evidence.journal, bytes_max=PREVIEW_BYTES_MAX):
            took = "" if row.duration_ms is None else duration_text(row.duration_ms)
            cells = (str(row.position), str(row.attempt), row.type, row.name, took, row.result, row.failure)
            table.add_row(*map(Text, cells))
        self._console.print(table)

    def _table(self, title: str, *columns: str) -> Table:
        table = Table(title=title, title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        return table

    def _say(self, text: str, *, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)
