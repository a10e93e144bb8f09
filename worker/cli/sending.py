"""`perdure send` and `perdure call`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .failures import reported
from .flags import App, AsJson, BootstrapServers, Namespace, RedisUrl, settings_with
from .output import note, print_json

if TYPE_CHECKING:
    from perdure.worker.client_handle import Handle

Handler = Annotated[str, typer.Argument(metavar="SERVICE/HANDLER", help="Such as SubscriptionService/add.")]
Argument = Annotated[
    str | None, typer.Argument(metavar="[JSON]", help="The argument; - reads it from stdin; nothing: there is none.")
]
IdempotencyKey = Annotated[str | None, typer.Option(help="A name of your own: sending it again does nothing.")]
Key = Annotated[str | None, typer.Option(help="Which object or workflow, where the handler is of one.")]
Headers = Annotated[list[str] | None, typer.Option("--header", help="name=value, for the handler. Repeatable.")]


@reported
def send(
    target: Handler,
    argument: Argument = None,
    key: Key = None,
    id: Annotated[str | None, typer.Option(help="An invocation id of your own making; likewise.")] = None,
    idempotency_key: IdempotencyKey = None,
    delay: Annotated[str | None, typer.Option(help="Start later: 10s, 5m, 2h, 1d.")] = None,
    header: Headers = None,
    reply_to: Annotated[str | None, typer.Option(help="A topic that the outcome is produced to.")] = None,
    as_json: AsJson = False,
    bootstrap_servers: BootstrapServers = None,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Have a handler run, and print the invocation's id once Kafka has acknowledged it."""
    from perdure.worker.client import Client

    from .opening import codec_of
    from .values import read_duration, read_headers

    settings = settings_with(bootstrap_servers=bootstrap_servers, redis_url=redis_url, namespace=namespace, app=app)
    codec = codec_of(settings)
    value = _argument(argument)
    headers = read_headers(header or [])
    wait = None if delay is None else read_duration(delay, flag="--delay")

    async def run() -> Handle[Any]:
        async with Client(settings, payload_codec=codec) as client:
            return await client.send(
                target,
                value,
                key=key,
                id=id,
                idempotency_key=idempotency_key,
                delay=wait,
                headers=headers,
                reply_to=reply_to,
            )

    handle = asyncio.run(run())
    invocation_id = handle.invocation_id
    if as_json:
        print_json({"id": invocation_id, "already_accepted": handle.already_accepted})
        return
    typer.echo(invocation_id)
    if handle.already_accepted:
        done = "nothing was sent" if reply_to is None else f"its outcome goes to {reply_to}, too"
        note(f"It was accepted before; {done}.")
    if sys.stdout.isatty():
        note(f"Look at it with: perdure journal show {invocation_id}")


@reported
def call(
    target: Handler,
    argument: Argument = None,
    key: Key = None,
    idempotency_key: IdempotencyKey = None,
    header: Headers = None,
    timeout: Annotated[str, typer.Option(help="How long to wait: 500ms, 10s, 5m.")] = "30s",
    bootstrap_servers: BootstrapServers = None,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Have a handler run, wait, and print its result as JSON."""
    from perdure.worker.client import Client

    from .opening import codec_of
    from .values import print_value, read_duration, read_headers

    settings = settings_with(bootstrap_servers=bootstrap_servers, redis_url=redis_url, namespace=namespace, app=app)
    codec = codec_of(settings)
    value = _argument(argument)
    headers = read_headers(header or [])
    patience = read_duration(timeout, flag="--timeout")

    async def run() -> Any:
        async with Client(settings, payload_codec=codec) as client:
            return await client.call(
                target, value, timeout=patience, key=key, idempotency_key=idempotency_key, headers=headers
            )

    result = asyncio.run(run())
    print_value(result)


def _argument(text: str | None) -> Any:
    from perdure.worker.envelope import NOTHING

    from .values import read_value

    return NOTHING if text is None else read_value(text)
