"""`perdure.testing`: an application on real servers in the test's own process, one namespace for each test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Protocol

from perdure.journal.connected_store import connected_store
from perdure.journal.inspection import view_of
from perdure.journal.keys import Keys
from perdure.schemas.errors import PerdureError

from .application import Application
from .client import Client
from .clock import SystemClock, system_random
from .engine import Engine
from .harness_servers import ServerAddresses, shared_servers
from .kafka_admin import create_topics
from .main import Surroundings, worker_engine, worker_name
from .options import HandlerOptions, InvocationRetryPolicy
from .settings import Settings
from .topics import plan_topics

ONCE: Final = InvocationRetryPolicy(max_attempts=1, on_max_attempts="kill")
"""What `disable_retries` puts under the options of handlers, services and the application."""

NAMESPACE_PREFIX: Final = "test-"
"""On servers that are not ours, this says what may be thrown away."""

NOTES_MAX: Final = 5
"""Invocations that a failed test is told of: enough to find the cause, few enough to be read."""

NOTES_S: Final = 2.0
"""For asking after them: a test whose Redis is gone must fail with its own error, and soon."""

# Two partitions and eight slots, so that what holds only with one of each is found; more would cost without use.
_QUICK: Final[Mapping[str, object]] = {
    "kafka_assignment": "manual",
    "kafka_fetch_max_wait_ms": 5,
    "topic_partitions": 2,
    "slots": 8,
    # What still runs when the block ends is of no use to anybody.
    "grace_s": 0.0,
    # A handler that stands in a debugger keeps its invocation.
    "block_ms_max": 3_600_000,
}

# The pair is on this machine and will be thrown away, whatever the environment says of production's servers.
_EMBEDDED: Final[Mapping[str, object]] = {
    "kafka_security_protocol": "PLAINTEXT",
    "topic_replication_factor": 1,
    "replicas": 0,
}


@dataclass(frozen=True, slots=True)
class HarnessEnvironment:
    """What a test gets: a worker runs the application, and this is how to reach it.

    Attributes:
        client: Connected; for calls, sends, results and status.
        settings: Those of the worker and the client; for a client, worker or store of the test's own.
    """

    client: Client
    settings: Settings

    @property
    def namespace(self) -> str:
        """Of this harness alone."""
        return self.settings.namespace

    @property
    def redis_url(self) -> str:
        """Where Redis is; with its password, if it has one."""
        return self.settings.redis_url.get_secret_value()

    @property
    def bootstrap_servers(self) -> str:
        """Where Kafka is."""
        return self.settings.bootstrap_servers


class HarnessFactory(Protocol):
    """What the fixture `perdure_harness` gives: `harness`, with the servers of the fixture `perdure_servers`."""

    def __call__(
        self,
        application: Application,
        *,
        always_replay: bool = False,
        disable_retries: bool = False,
        settings: Mapping[str, object] | None = None,
    ) -> AbstractAsyncContextManager[HarnessEnvironment]:
        """See `harness`."""


@contextlib.asynccontextmanager
async def harness(
    application: Application,
    *,
    always_replay: bool = False,
    disable_retries: bool = False,
    settings: Mapping[str, object] | None = None,
    servers: ServerAddresses | None = None,
) -> AsyncIterator[HarnessEnvironment]:
    """Run an application while the block runs: a worker on this event loop, in a namespace that nobody else has.

    What still runs at the end of the block is cancelled. An error that leaves the block has a note for each invocation
    that is paused or waits to be retried, since that is why most tests wait in vain.

    Args:
        application: What `app(...)` made.
        always_replay: Every `await` of a handler leaves memory and replays the journal, so that a handler that diverges
            from it pauses. So does one that calls with other arguments than are recorded, which a worker only tells.
        disable_retries: What fails is not tried again: the invocation fails at once, with the handler's error in the
            message. What handlers, services, the application or `RunOptions` say about retries themselves still holds.
        settings: Settings by their names in `Settings`, over those that the harness chose.
        servers: Where to run; without it, what `shared_servers` answers.

    Raises:
        SettingsError: A setting is wrong, or the embedded servers are not installed.
        ServerProcessError: One of the embedded servers did not start.
        StoreError: Redis does not answer.
        BrokerError: Kafka does not answer.
        ExceptionGroup: The worker failed while the block ran.
    """
    if servers is None:
        servers = await asyncio.to_thread(shared_servers)
    chosen = _settings(servers, {} if settings is None else settings, always_replay=always_replay)
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[tuple[Client, Engine]] = loop.create_future()
    # All of it lives in one task: a fixture's first half and its second one run in different tasks.
    keeper = loop.create_task(_keep(once(application) if disable_retries else application, chosen, begun))
    either: set[asyncio.Future[Any]] = {keeper, begun}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not begun.done():
            keeper.cancel()
            await asyncio.wait({keeper})
    if not begun.done():
        await keeper
    client, engine = begun.result()
    try:
        yield HarnessEnvironment(client, chosen)
    except Exception as error:
        for line in await _unfinished(chosen):
            error.add_note(line)
        raise
    finally:
        engine.stop()
        await keeper


def once(application: Application) -> Application:
    """Return the application with `ONCE` for what its own options leave open."""
    fallback = HandlerOptions(invocation_retry_policy=ONCE)
    handlers = {
        place: replace(handler, options=handler.options.over(fallback))
        for place, handler in application.handlers.items()
    }
    return replace(application, handlers=MappingProxyType(handlers))


def _settings(servers: ServerAddresses, given: Mapping[str, object], *, always_replay: bool) -> Settings:
    entropy = system_random()
    ours: dict[str, object] = {
        "redis_url": servers.redis_url,
        "bootstrap_servers": servers.bootstrap_servers,
        "namespace": f"{NAMESPACE_PREFIX}{entropy.getrandbits(48):012x}",
        "worker_id": worker_name(entropy),
        "always_replay": always_replay,
        "strict_arguments": True,
    }
    return Settings.load(**({**_QUICK, **(_EMBEDDED if servers.embedded else {}), **ours, **given}))


async def _keep(application: Application, settings: Settings, begun: asyncio.Future[tuple[Client, Engine]]) -> None:
    around = Surroundings(SystemClock(), system_random(), lambda: None)
    # The client first: it fails at once where Redis does not answer, and a worker waits for it.
    async with Client(settings) as client:
        plan = plan_topics(
            settings.namespace,
            application.services,
            partitions=settings.topic_partitions,
            replication_factor=settings.topic_replication_factor,
        )
        await create_topics(settings.kafka_config(), plan)
        async with worker_engine(application, settings, around) as engine:
            begun.set_result((client, engine))
            await engine.run()


async def _unfinished(settings: Settings) -> list[str]:
    """A line for each invocation, up to `NOTES_MAX`, that will not have an outcome soon."""
    keys = Keys(settings.namespace, slots=settings.slots)
    try:
        async with (
            asyncio.timeout(NOTES_S),
            connected_store(settings.redis_config, keys, name="perdure-notes") as store,
        ):
            found = [
                view_of(summary)
                for status in ("paused", "backing-off")
                for summary in await store.list_invocations(status, invocations_max=NOTES_MAX)
            ]
    except (PerdureError, TimeoutError):
        return []
    return [f"{view.target} is {view.status} ({view.id}): {view.last_failure}" for view in found[:NOTES_MAX]]
