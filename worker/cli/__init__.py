"""The command `perdure`: typer's side of it. One module per group of commands.

Law: nothing heavy is imported before a command runs, so that `perdure --help` is quick; each command imports what it
needs. Every error that is expected is one message on stderr: exit code 2 for what the user typed or set, 1 otherwise.
"""

from __future__ import annotations

import typer

from .completion_commands import awakeable, promise, signal
from .dead_commands import group as dead
from .development import dev
from .diagnosis import doctor
from .invocation_commands import group as invocations
from .journal_commands import group as journal
from .sending import call, send
from .state_commands import group as state
from .topic_commands import group as topics
from .worker_command import worker

app = typer.Typer(
    name="perdure",
    help="Durable execution for Python on Kafka and Redis. Settings come from PERDURE_... variables and from flags.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables would show secrets; ours are plain, and expected errors have none.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("dev")(dev)
app.command("worker")(worker)
app.command("send")(send)
app.command("call")(call)
app.add_typer(invocations, name="invocations")
app.add_typer(journal, name="journal")
app.add_typer(awakeable, name="awakeable")
app.add_typer(signal, name="signal")
app.add_typer(promise, name="promise")
app.add_typer(state, name="state")
app.add_typer(dead, name="dead")
app.add_typer(topics, name="topics")
app.command("doctor")(doctor)


def main() -> None:
    """Run the command with the process's arguments; never returns."""
    app()
