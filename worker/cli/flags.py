"""Flags that several commands share, and the settings that they come before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from perdure.worker.settings import Settings

BootstrapServers = Annotated[
    str | None, typer.Option(help="Kafka's host:port, several with commas (PERDURE_BOOTSTRAP_SERVERS).")
]
RedisUrl = Annotated[
    str | None, typer.Option(help="redis://user:password@host:port/db, rediss:// for TLS (PERDURE_REDIS_URL).")
]
Namespace = Annotated[str | None, typer.Option(help="Before every topic and Redis key (PERDURE_NAMESPACE).")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]
Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="Where app(...) is, such as shop.services:app.")]
OptionalTarget = Annotated[
    str | None, typer.Argument(metavar="[MODULE:APP]", help="Where app(...) is, such as shop.services:app.")
]
App = Annotated[
    str | None,
    typer.Option("--app", metavar="MODULE:APP", help="Whose payload codec seals and opens values (PERDURE_APP)."),
]
InvocationIdText = Annotated[str, typer.Argument(metavar="ID", help="An invocation id, inv_...")]
LogLevel = Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR (PERDURE_LOG_LEVEL).")]
LogFormat = Annotated[str | None, typer.Option(help="text or json (PERDURE_LOG_FORMAT).")]


def settings_with(**flags: Any) -> Settings:
    """Read the environment, flags first.

    Raises:
        SettingsError: A value is wrong.
    """
    # Imported here: pydantic takes as long to import as all of typer.
    from perdure.worker.settings import Settings

    return Settings.load(**flags)
