"""The composition root: settings to a running worker process, its signals and its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TypeVar

from perdure.journal.barrier import Barrier
from perdure.journal.connected_store import connected_store
from perdure.journal.durability import durability_problems
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import every_servers_facts, open_namespace
from perdure.journal.redis_store import RedisStore
from perdure.journal.renewer import ThreadRenewer
from perdure.journal.subscriber import Subscriber
from perdure.schemas.errors import DefinitionError, SettingsError, StoreError

from .application import Application
from .attempts import AttemptSettings
from .clock import Clock, SystemClock, system_random
from .engine import Engine, EngineSettings
from .event_loop import STEP_THREADS, end_process
from .handler_timers import prepare_loop
from .kafka_broker import KafkaBroker
from .kafka_offsets import Beginnings, KeptOffsets, Start
from .leases import ThreadRenewal
from .service_kinds import describe_services
from .settings import Settings
from .sources import Feed
from .subscriptions import Subscription, by_group
from .topics import consumed_topics, plan_topics

logger = logging.getLogger(__name__)

T = TypeVar("T")

STOP_MARGIN_S = 8.0
"""After the grace, for cancelled handlers, last words and the clients' farewells. A step that swallows its cancellation
would keep the process for ever; it is ended then, and its lease runs out."""

START_RETRY_S = 1.0
"""Between two looks for a Redis that does not answer while a worker starts."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker takes from its machine. Tests hand in others.

    Attributes:
        clock: Time.
        entropy: Randomness.
        on_ready: Called once, when it works.
        on_beat: Called again and again, while its event loop turns.
    """

    clock: Clock
    entropy: random.Random
    on_ready: Callable[[], None]
    on_beat: Callable[[], None] = lambda: None


def surroundings() -> Surroundings:
    """The machine's own clock and randomness."""
    return Surroundings(SystemClock(), system_random(), lambda: None)


async def run_worker(application: Application, settings: Settings, around: Surroundings | None = None) -> int:
    """Run one worker until SIGTERM or SIGINT; returns the exit code, 0 after an orderly stop.

    What is being executed at the signal gets `grace_s` to end; the rest is handed over at once. A second signal, or
    something that does not end, ends the process without waiting.

    Raises:
        SettingsError: A setting is wrong, or Redis may lose data and that was not allowed explicitly.
    """
    around = surroundings() if around is None else around
    async with worker_engine(application, settings, around) as engine:
        loop = asyncio.get_running_loop()
        stops = 0

        def stop() -> None:
            nonlocal stops
            stops += 1
            if stops > 1:
                os._exit(1)
            logger.info("stopping: what runs has %g s to end", settings.grace_s)
            engine.stop()
            loop.call_later(settings.grace_s + STOP_MARGIN_S, _give_up)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        try:
            around.on_ready()
            await engine.run()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
    return 0


@contextlib.asynccontextmanager
async def worker_engine(application: Application, settings: Settings, around: Surroundings) -> AsyncIterator[Engine]:
    """An engine on real Kafka and Redis, connected while the block runs; its `run` is the caller's to await.

    The application's lifespan is entered before there is a connection, and left after the last one was closed.

    Raises:
        SettingsError: A setting is wrong, or Redis may lose data and that was not allowed explicitly.
        DefinitionError: The application's lifespan returns no async context manager.
        Exception: Whatever the lifespan raises.
    """
    config = settings.redis_config
    groups = by_group(application.subscriptions, settings.namespace)
    worker = settings.worker_id or worker_name(around.entropy)
    fsyncs = await _patiently(lambda: _check_durability(settings), around.clock)
    namespace = await _patiently(
        lambda: open_namespace(config, settings.namespace, slots=_slots(settings)), around.clock
    )
    keys = Keys(settings.namespace, slots=namespace.slots)
    undo = prepare_loop(asyncio.get_running_loop())
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(undo)
        threads = ThreadPoolExecutor(settings.step_threads_max, thread_name_prefix=STEP_THREADS)
        # Not waited for: a thread that blocks for ever must not keep the process.
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        await _enter_lifespan(application, stack)
        barrier = Barrier(config, worker, keys, replicas=settings.replicas, fsync=fsyncs)
        stack.push_async_callback(barrier.close)
        connected = connected_store(config, keys, name=f"perdure-{worker}", barrier=barrier)
        store = await stack.enter_async_context(connected)
        await store.describe(describe_services(application))
        broker = _broker(application, settings, worker, store, around.clock)
        feeds = [
            _feed(group, subscriptions, settings, worker, store, around.clock)
            for group, subscriptions in groups.items()
        ]
        engine = Engine(
            application,
            _engine_settings(settings, worker),
            store=store,
            broker=broker,
            barrier=barrier,
            renewal=ThreadRenewal(
                lambda: ThreadRenewer(config, keys),
                clock=around.clock,
                lease_ms=int(settings.lease_s * 1000),
                block_ms_max=settings.block_ms_max,
                on_beat=around.on_beat,
            ),
            clock=around.clock,
            new_token=lambda: f"{around.entropy.getrandbits(64):016x}",
            threads=threads,
            facts=_facts(application),
            feeds=feeds,
        )
        subscriber = await stack.enter_async_context(Subscriber(config, name=f"perdure-hints-{worker}"))
        await subscriber.subscribe(keys.hints(worker), engine.hint, on_gap=engine.check_all)
        for each in (broker, *(feed.broker for feed in feeds)):
            await stack.enter_async_context(each)
        logger.info("worker %s of namespace %s begins", worker, settings.namespace)
        yield engine


async def _enter_lifespan(application: Application, stack: contextlib.AsyncExitStack) -> None:
    if application.lifespan is None:
        return
    lifespan = application.lifespan(application)
    if not isinstance(lifespan, contextlib.AbstractAsyncContextManager):
        raise DefinitionError(
            f"app(lifespan=...) returned {lifespan!r}, which is no async context manager. Decorate it with "
            "@contextlib.asynccontextmanager."
        )
    await lifespan.__aenter__()

    async def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # It may see why the worker ends, and not hide it: one that failed must not look as if it had been stopped.
        await lifespan.__aexit__(kind, error, trace)

    stack.push_async_exit(leave)


def _give_up() -> None:
    logger.error("something does not end; ending the process without it")
    end_process(1)


def worker_name(entropy: random.Random) -> str:
    """A name for this process that tells people where it runs, and that no other process has."""
    host = "".join(c if c.isalnum() or c in "-_" else "-" for c in socket.gethostname())[:40]
    return f"{host}-{os.getpid()}-{entropy.getrandbits(24):06x}"


def _slots(settings: Settings) -> int | None:
    # Only a number that was asked for must match what the namespace was made with.
    return settings.slots if "slots" in settings.model_fields_set else None


def _broker(application: Application, settings: Settings, worker: str, store: RedisStore, clock: Clock) -> KafkaBroker:
    plan = plan_topics(
        settings.namespace,
        application.services,
        partitions=settings.topic_partitions,
        replication_factor=settings.topic_replication_factor,
    )
    topics = consumed_topics(settings.namespace, application.services)
    config = settings.kafka_config(client_id=f"perdure-{worker}")
    begin = _beginnings({}, config.group_id, store)
    return KafkaBroker(config, topics=topics, plan=plan, clock=clock, begin=begin)


def _beginnings(starts: Mapping[str, Start], group: str, store: RedisStore) -> Beginnings:
    offsets = KeptOffsets(partial(store.keep_offsets, group), partial(store.kept_offsets, group))
    return Beginnings(starts, remember=partial(store.remember_start, group), offsets=offsets)


def _feed(
    group: str,
    subscriptions: Sequence[Subscription],
    settings: Settings,
    worker: str,
    store: RedisStore,
    clock: Clock,
) -> Feed[KafkaBroker]:
    starts = {subscription.topic: subscription.start for subscription in subscriptions}
    broker = KafkaBroker(
        replace(settings.kafka_config(client_id=f"perdure-{worker}"), group_id=group),
        topics=sorted(starts),
        clock=clock,
        begin=_beginnings(starts, group, store),
        produces=False,
    )
    return Feed(group, subscriptions, broker)


def _engine_settings(settings: Settings, worker: str) -> EngineSettings:
    return EngineSettings(
        namespace=settings.namespace,
        worker=worker,
        concurrency=settings.concurrency,
        lease_ms=int(settings.lease_s * 1000),
        grace_ms=int(settings.grace_s * 1000),
        record_bytes_max=settings.record_bytes_max,
        reply_durable=settings.reply_durable,
        attempts=AttemptSettings(
            inactivity_ms=int(settings.inactivity_timeout_s * 1000),
            lease_ms=int(settings.lease_s * 1000),
            always_replay=settings.always_replay,
            strict_arguments=settings.strict_arguments,
            journal_entries_max=settings.journal_entries_max,
            journal_bytes_max=settings.journal_bytes_max,
            payload_bytes_max=settings.payload_bytes_max,
        ),
    )


def _facts(application: Application) -> dict[str, str]:
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "python": platform.python_version(),
        "services": " ".join(application.services),
    }


async def _check_durability(settings: Settings) -> bool:
    """Whether Redis keeps an append-only file, which is then waited for."""
    config = settings.redis_config
    servers = await every_servers_facts(config)
    problems = [
        (server.address, problem)
        for server, facts in servers
        for problem in durability_problems(facts, replicas=settings.replicas, cluster=config.cluster)
    ]
    for address, problem in problems:
        logger.warning("Redis %s: %s Mend it: %s", address, problem.what, problem.mend)
    losing = [(address, problem) for address, problem in problems if problem.loses_data and not problem.passes]
    if losing and settings.require_durable_redis:
        lines = "\n".join(f"- {address}: {problem.what} Mend it: {problem.mend}" for address, problem in losing)
        raise SettingsError(
            f"Redis at {settings.redis_url_masked} may lose what it is told:\n{lines}\n"
            "To run nevertheless, set PERDURE_REQUIRE_DURABLE_REDIS=false."
        )
    return all(facts.aof_enabled is not False for _, facts in servers)


async def _patiently(work: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """Do it as soon as Redis answers: a worker that starts during an outage begins after it."""
    said = False
    while True:
        try:
            return await work()
        except StoreError as error:
            if not said:
                logger.warning("Redis does not answer, the worker waits for it: %s", error)
            said = True
            await clock.sleep(START_RETRY_S)
