"""`perdure topics create`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from .failures import reported
from .flags import AsJson, BootstrapServers, Namespace, Target, settings_with
from .output import print_json, print_table

group = typer.Typer(help="Look after Kafka's topics.", no_args_is_help=True)


@group.command("create")
@reported
def create(
    target: Target,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="For each topic of a service (PERDURE_TOPIC_PARTITIONS).")
    ] = None,
    replication_factor: Annotated[
        int | None, typer.Option(help="Copies; -1 is the cluster's default (PERDURE_TOPIC_REPLICATION_FACTOR).")
    ] = None,
    as_json: AsJson = False,
    bootstrap_servers: BootstrapServers = None,
    namespace: Namespace = None,
) -> None:
    """Create the topics that an application needs; those that exist are left as they are."""
    from perdure.worker.application import load_application
    from perdure.worker.kafka_admin import create_topics
    from perdure.worker.topics import plan_topics

    settings = settings_with(
        bootstrap_servers=bootstrap_servers,
        namespace=namespace,
        topic_partitions=partitions,
        topic_replication_factor=replication_factor,
    )
    plans = plan_topics(
        settings.namespace,
        load_application(target).services,
        partitions=settings.topic_partitions,
        replication_factor=settings.topic_replication_factor,
    )
    found = asyncio.run(create_topics(settings.kafka_config(client_id="perdure-command"), plans))
    if as_json:
        print_json({"created": found.created, "existing": found.existing})
        return
    rows = [(plan.name, "created" if plan.name in found.created else "existed") for plan in plans]
    print_table(("topic", "what happened"), rows)
