"""Turning expected errors into one message on stderr and an exit code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer

from perdure.schemas.errors import DefinitionError, PerdureError, SettingsError, TerminalError, UsageError
from perdure.schemas.payloads import SEALED_TEXT

from .output import note

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

FAILED = 1
BAD_INPUT = 2


def reported(command: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Wrap a command so that it ends with a message and exit code 2 (bad input, bad settings) or 1 (anything else).

    Errors of another kind keep their traceback: they are bugs, of ours or of the application that was loaded.
    """

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
        try:
            return command(*arguments, **options)
        except (SettingsError, DefinitionError, UsageError) as error:
            end(str(error), code=BAD_INPUT)
        except TerminalError as error:
            details = "".join(f"\n  {name}: {value}" for name, value in error.metadata.items())
            message = error.message
            if message.startswith(SEALED_TEXT):
                message = "(sealed by its application's payload codec: give --app MODULE:APP to open it)"
            end(f"The invocation failed with code {error.status_code}: {message}{details}", code=FAILED)
        except (PerdureError, TimeoutError) as error:
            end(str(error) or "It took too long.", code=FAILED)

    return run


def end(message: str, *, code: int) -> NoReturn:
    """Say what is wrong on stderr and end the command."""
    # It may quote what somebody else wrote: a failure's message, a name.
    note(f"perdure: {message}")
    raise typer.Exit(code)
