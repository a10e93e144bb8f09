"""`perdure doctor`."""

from __future__ import annotations

import asyncio
import os

import typer

from .failures import FAILED, reported
from .flags import AsJson, BootstrapServers, Namespace, OptionalTarget, RedisUrl, settings_with
from .output import clean, print_json


@reported
def doctor(
    target: OptionalTarget = None,
    as_json: AsJson = False,
    bootstrap_servers: BootstrapServers = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Look at Kafka, Redis, topics and settings; say what is wrong and what mends it. Exit code 1 if anything is."""
    from perdure.worker.application import load_application
    from perdure.worker.doctor import examine

    settings = settings_with(bootstrap_servers=bootstrap_servers, redis_url=redis_url, namespace=namespace)
    application = None if target is None else load_application(target)
    findings = asyncio.run(examine(settings, application, target=target or "MODULE:APP", names=os.environ))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        colours = {"ok": typer.colors.GREEN, "advice": typer.colors.YELLOW, "problem": typer.colors.RED}
        for finding in findings:
            # typer leaves the colours out where nobody could see them.
            typer.secho(f"{finding.level:<8}", fg=colours[finding.level], nl=False)
            typer.echo(f"{finding.what:<12}{clean(finding.found)}")
            if finding.mend:
                typer.echo(f"{'':<20}mend it: {clean(finding.mend)}")
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(FAILED)
