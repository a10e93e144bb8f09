"""`make demo`: kill a worker in the middle of a payment, and watch the invocation finish elsewhere.

Starts a real Valkey and a Kafka-protocol broker, two worker processes of `examples/subscriptions.py` under their
supervisor, and produces orders as any Kafka producer would. As soon as Redis holds the payment of one order, the worker
that runs it gets SIGKILL. What is printed then is read from Redis and from the ledger; exit code 1 if any of it is not
as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import redis.asyncio
from aiokafka import AIOKafkaProducer

from examples.demo_evidence import PAYMENT_STEP, Evidence, Worker, problems
from examples.demo_screen import Screen
from examples.ledger import VARIABLE, Ledger
from examples.subscriptions import AddRequest, application
from perdure import PerdureError, Settings
from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace
from perdure.journal.redis_store import RedisStore
from perdure.schemas.entries import Run
from perdure.schemas.ids import InvocationId, new_invocation_id
from perdure.schemas.records import Invocation
from perdure.worker.clock import system_random
from perdure.worker.embedded import EmbeddedServers, embedded_servers
from perdure.worker.kafka_admin import create_topics
from perdure.worker.lifeline import lifeline
from perdure.worker.topics import plan_topics, service_topic

NAMESPACE = "demo"
SERVICE = "SubscriptionService"
ORDERS = (
    AddRequest(user_id="ada", credit_card="4111111111111111", subscriptions=["news"]),
    AddRequest(user_id="bob", credit_card="5500005555555559", subscriptions=["music", "films"]),
    AddRequest(user_id="cy", credit_card="340000000000009", subscriptions=["news", "films"]),
)
VICTIM = AddRequest(
    user_id="dora",
    credit_card="4111111111111111",
    subscriptions=["music", "news", "films"],
    # The first one, so that there is time to be killed in after the payment.
    refusals={"music": 2},
)

PATIENCE_S = 120.0
"""For the whole story, which takes about ten seconds on an idle laptop."""

LOOK_S = 0.003
"""Between two looks at the journal of the order whose worker is to be killed."""

STOP_S = 15.0
"""For the workers to leave."""


Seen = TypeVar("Seen")


class DemoError(Exception):
    """The story could not be told to its end."""


class Order(NamedTuple):
    """An order on its way."""

    id: InvocationId
    request: AddRequest


async def main(arguments: Sequence[str]) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="keep servers and workers until Ctrl-C, to look further")
    parser.add_argument("--application", default="examples.subscriptions:application", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="perdure-demo-") as folder:
        os.environ[VARIABLE] = str(Path(folder) / "ledger.sqlite")
        async with embedded_servers(data_dir=Path(folder)) as servers:
            settings = _settings(servers)
            screen.servers(settings)
            log_path = Path(folder) / "workers.log"
            async with _workers(options.application, settings, log_path) as supervisor:
                try:
                    found = await _while_running(supervisor, _story(settings, screen))
                except (TimeoutError, DemoError, PerdureError) as error:
                    screen.broken(str(error) or f"It did not end within {PATIENCE_S:.0f} s.", log_path)
                    return 1
                screen.further(settings, found.id, stay=options.stay)
                if options.stay:
                    await screen.until_interrupted()
    return screen.verdict(problems(found))


def _settings(servers: EmbeddedServers) -> Settings:
    return Settings.load(
        namespace=NAMESPACE,
        worker_id=NAMESPACE,
        redis_url=servers.redis_url,
        bootstrap_servers=servers.bootstrap_servers,
        # Short, because the embedded broker makes newcomers wait for half of it.
        kafka_session_timeout_ms=1_000,
        kafka_fetch_max_wait_ms=10,
        topic_partitions=4,
        grace_s=5.0,
    )


@contextlib.asynccontextmanager
async def _workers(target: str, settings: Settings, log_path: Path) -> AsyncIterator[Process]:
    """Two worker processes and their supervisor, which end with this process however it ends."""
    with lifeline() as descriptor, log_path.open("wb") as log:
        supervisor = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "perdure", "worker", target, "--processes", "2", "--lifeline", str(descriptor)),
            env={**os.environ, **settings.environment()},
            pass_fds=[descriptor],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield supervisor
        finally:
            if supervisor.returncode is None:
                supervisor.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(supervisor.wait(), STOP_S)


async def _while_running(supervisor: Process, story: Coroutine[Any, Any, Evidence]) -> Evidence:
    """Tell the story, unless the workers end before it does."""
    telling = asyncio.create_task(story)
    living = asyncio.create_task(supervisor.wait())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({telling, living}, return_when=asyncio.FIRST_COMPLETED)
        if not telling.done():
            raise DemoError(f"The workers ended with exit code {living.result()}.")
        return telling.result()
    finally:
        telling.cancel()
        living.cancel()
        await asyncio.wait({telling, living})


async def _story(settings: Settings, screen: Screen) -> Evidence:
    config = settings.redis_config
    namespace = await open_namespace(config, settings.namespace)
    keys = Keys(settings.namespace, slots=namespace.slots)
    await create_topics(
        settings.kafka_config(),
        plan_topics(
            settings.namespace, application.services, partitions=settings.topic_partitions, replication_factor=1
        ),
    )
    client = redis.asyncio.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
    async with client, connected_store(config, keys, name="perdure-demo") as store:

        async def live() -> list[Worker]:
            return [await _worker(client, keys, name) for name in await client.zrange(keys.workers, 0, -1)]

        workers = await _until(lambda: _two(live))
        screen.workers(workers)
        others = await _produce(settings, ORDERS)
        await _until(lambda: _completed(store, others))
        screen.completed([order.request.user_id for order in others])
        (victim,) = await _produce(settings, [VICTIM])
        killed = await _kill_after_payment(store, victim, live)
        screen.killed(victim.id, killed)
        await _until(lambda: _completed(store, [victim]))
        journal = await store.read_journal(victim.id)
        evidence = Evidence(victim.id, victim.request, killed, journal, Ledger().effects(victim.id))
        screen.evidence(evidence, {worker.name: worker.pid for worker in [*workers, *await live()]})
        return evidence


async def _worker(client: redis.asyncio.Redis, keys: Keys, name: Any) -> Worker:
    """What a worker says of itself in Redis; pid 0 where it has just gone."""
    pid: Any = await client.hget(keys.worker(name), "pid")
    return Worker(name, int(pid or 0))


async def _produce(settings: Settings, requests: Sequence[AddRequest]) -> list[Order]:
    """Produce a record for each request, the way any producer in any language would."""
    entropy = system_random()
    orders = [Order(new_invocation_id(SERVICE, None, entropy), request) for request in requests]
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    try:
        for order in orders:
            record = Invocation(handler="add", id=order.id, argument=order.request.model_dump(mode="json"))
            value = record.model_dump_json(exclude_defaults=True).encode()
            await producer.send_and_wait(service_topic(settings.namespace, SERVICE), value)
    finally:
        await producer.stop()
    return orders


async def _kill_after_payment(store: RedisStore, order: Order, live: Callable[[], Awaitable[list[Worker]]]) -> Worker:
    """Wait until the journal holds the payment, then kill the worker that runs the order."""

    async def paid() -> bool:
        entries = await store.read_journal(order.id)
        return any(isinstance(entry, Run) and entry.name == PAYMENT_STEP for _, _, entry in entries)

    by_name = {worker.name: worker for worker in await live()}
    await _until(paid)
    summary = await store.read_invocation(order.id)
    worker = by_name.get("" if summary is None else summary.fields.get("worker", ""))
    if worker is None:
        raise DemoError(f"No worker runs {order.id}, though its payment is recorded: {summary}")
    os.kill(worker.pid, signal.SIGKILL)
    return worker


async def _two(live: Callable[[], Awaitable[list[Worker]]]) -> list[Worker]:
    workers = await live()
    return workers if len(workers) >= 2 else []


async def _completed(store: RedisStore, orders: Sequence[Order]) -> bool:
    summaries = [await store.read_invocation(order.id) for order in orders]
    return all(summary is not None and summary.fields.get("status") == "completed" for summary in summaries)


async def _until(look: Callable[[], Awaitable[Seen]]) -> Seen:
    """Look until there is something to see; the caller bounds it."""
    while not (seen := await look()):  # noqa: ASYNC110  # it changes in another process
        await asyncio.sleep(LOOK_S)
    return seen


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except KeyboardInterrupt:
        sys.exit(130)
