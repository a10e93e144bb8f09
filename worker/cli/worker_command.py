"""`perdure worker`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from .failures import reported
from .flags import BootstrapServers, LogFormat, LogLevel, Namespace, RedisUrl, Target, settings_with

PROCESSES_MAX = 256
"""More processes than any one machine's cores: a typo."""

LIFELINE_MARGIN_S = 10.0
"""How much longer than its grace a worker without a supervisor may take to end."""


@reported
def worker(
    target: Target,
    processes: Annotated[
        int, typer.Option(min=1, max=PROCESSES_MAX, help="Worker processes; more than one has a supervisor.")
    ] = 1,
    concurrency: Annotated[
        int | None, typer.Option(help="Attempts that one process runs at once (PERDURE_CONCURRENCY).")
    ] = None,
    bootstrap_servers: BootstrapServers = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    worker_id: Annotated[str | None, typer.Option(help="This process's name (PERDURE_WORKER_ID).")] = None,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
    pulse: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run an application's handlers until SIGTERM or Ctrl-C."""
    from perdure.worker.log_output import configure_logging
    from perdure.worker.settings import unknown_variables

    settings = settings_with(
        concurrency=concurrency,
        bootstrap_servers=bootstrap_servers,
        redis_url=redis_url,
        namespace=namespace,
        log_level=log_level,
        log_format=log_format,
        worker_id=worker_id,
    )
    if lifeline is not None:
        # Before anything else: from here on the process ends with its supervisor.
        from perdure.worker.lifeline import follow_lifeline

        follow_lifeline(lifeline, grace_s=settings.grace_s + LIFELINE_MARGIN_S)
    configure_logging(settings.log_level, settings.log_format)
    if lifeline is None:
        for line in unknown_variables(os.environ):
            typer.echo(f"perdure: {line}", err=True)
    from perdure.worker.application import load_application
    from perdure.worker.event_loop import collect_rarely, leave, run_to_end

    # The supervisor loads it, too: an application that cannot be loaded ends the command before any child starts.
    application = load_application(target)
    if processes > 1:
        from perdure.worker.fleet import run_fleet

        raise typer.Exit(run_to_end(run_fleet(target, settings, processes=processes)))
    from perdure.worker.main import run_worker, surroundings

    around = surroundings()
    if pulse is not None:
        from perdure.worker.lifeline import pulse_to

        around = replace(around, on_beat=pulse_to(pulse))
    collect_rarely()
    raise typer.Exit(leave(run_to_end(run_worker(application, settings, around))))
