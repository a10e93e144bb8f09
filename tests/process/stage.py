"""Everything that a test with worker processes uses: the servers, the processes, what was sent, what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import STATUSES, Keys
from perdure.journal.redis_admin import open_namespace, opened
from perdure.journal.redis_store import RedisStore
from perdure.schemas.entries import AttemptFailed
from perdure.schemas.errors import BrokerError, SettingsError, StoreError
from perdure.worker.broker import Outgoing
from perdure.worker.kafka_admin import create_topics
from perdure.worker.sender import Sender
from perdure.worker.server_process import ServerProcess
from perdure.worker.settings import Settings
from perdure.worker.topics import consumed_topics, plan_topics, service_topic
from tests.servers.lane import LANE
from tests.standing import lag
from tests.waiting import PATIENCE_S, wait_until

from .application import LET_GO, SERVICE, Act, Plan
from .effects import DIRECTORY_VARIABLE, Effect, Effects
from .history import History, Story, violations
from .worker_process import LOG_TAIL_CHARACTERS, WorkerProcess

INVOCATIONS_MAX = 10_000
SLOTS = 8
PARTITIONS = 4

# A lease that no test waits for: what goes on elsewhere was handed over. A stalled machine loses none of them, either.
LONG_LEASE_S = "300"

# What is not ended or waiting for an operator; all of it must be gone at the end of a test.
UNFINISHED = tuple(status for status in STATUSES if status not in ("completed", "paused"))


class Stage:
    """One namespace on real servers, and its workers.

    Args:
        settings: Where the servers are; what workers and the test itself use.
        store: On that Redis.
        directory: For effects and logs.
        chance: Seeded, for what a test leaves to chance.
    """

    def __init__(self, settings: Settings, *, store: RedisStore, directory: Path, chance: random.Random) -> None:
        self.settings = settings
        self.store = store
        self.effects = Effects(directory)
        self.chance = chance
        self.workers: list[WorkerProcess] = []
        self.acknowledged: list[str] = []
        self._directory = directory
        # What it cannot send within that time after a kill is dropped and sent again by the test.
        config = dataclasses.replace(settings.kafka_config(client_id="test"), stop_timeout_ms=100)
        self._sender = Sender(config)
        self._may_send = asyncio.Event()
        self._may_send.set()

    async def __aenter__(self) -> Stage:
        await self._sender.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.gather(*(worker.close() for worker in self.workers))
        for worker in self.workers:
            # Shown by pytest where the test failed.
            print(f"--- {worker.log_path.name} ({worker.pid})\n{worker.log()[-LOG_TAIL_CHARACTERS:]}")  # noqa: T201
        await self._sender.__aexit__(None, None, None)

    async def start(self, *flags: str, **variables: str) -> WorkerProcess:
        """Start a worker with these flags, and `PERDURE_...` variables over the stage's own; not ready yet."""
        environment = {
            **self.settings.environment(),
            DIRECTORY_VARIABLE: str(self._directory),
            **{f"PERDURE_{name.upper()}": value for name, value in variables.items()},
        }
        log_path = self._directory / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess(environment, log_path=log_path, flags=flags)
        self.workers.append(worker)
        await worker.start()
        return worker

    async def start_ready(self, *flags: str, **variables: str) -> WorkerProcess:
        """As `start`, and wait until it has its partitions."""
        worker = await self.start(*flags, **variables)
        await worker.ready()
        return worker

    async def start_two(self, **variables: str) -> list[WorkerProcess]:
        """Start two workers at once, and wait until both have their partitions."""
        workers = [await self.start(**variables), await self.start(**variables)]
        for worker in workers:
            await worker.ready()
        return workers

    async def worker_of(self, tag: str, step: str) -> WorkerProcess:
        """The worker that last began that step."""
        pid = (await self.executed(tag, step))[-1].pid
        (worker,) = [worker for worker in self.workers if worker.pid == pid]
        return worker

    async def create_topics(self) -> None:
        """Create the application's topics, so that records can be sent before a worker runs."""
        await self.create_topics_as(self.settings)

    async def create_topics_as(self, settings: Settings) -> None:
        """Create them as somebody else."""
        plan = plan_topics(self.settings.namespace, [SERVICE], partitions=PARTITIONS, replication_factor=1)
        await create_topics(settings.kafka_config(client_id="test"), plan)

    async def send(self, tag: str, *acts: Act, handler: str = "perform", named: bool = False) -> None:
        """Produce a record and return once Kafka has acknowledged it.

        Args:
            tag: The record's own.
            acts: What the invocation is to do.
            handler: Which one.
            named: Whether the tag is its idempotency key, too; else the invocation's id comes from its place in Kafka.
        """
        envelope = {"handler": handler, "argument": dataclasses.asdict(Plan(tag, list(acts)))}
        if named:
            envelope["idempotency_key"] = tag
        topic = service_topic(self.settings.namespace, SERVICE)
        await self._sender.send(Outgoing(topic, tag.encode(), json.dumps(envelope).encode()))
        self.acknowledged.append(tag)

    async def send_through_outage(self, tag: str, *acts: Act) -> None:
        """As `send`, with a name, and again until it is acknowledged."""
        while True:
            await self._may_send.wait()
            try:
                return await self.send(tag, *acts, named=True)
            except (BrokerError, SettingsError):
                await asyncio.sleep(0.1)

    async def forget_unadmitted_after(self, loss: Callable[[], Awaitable[None]]) -> None:
        """Run `loss`; on a broker without a disk, what was not admitted by then is not waited for any more."""
        await loss()
        if LANE == "embedded":
            acknowledged = set(self.acknowledged)
            await wait_until(self._redis_answers, description="Redis answers")
            admitted = {story.tag for story in await self.stories()}
            self.acknowledged = [tag for tag in self.acknowledged if tag in admitted or tag not in acknowledged]

    async def restart_broker(self, broker: ServerProcess) -> None:
        """Start a broker that was killed. One without a disk gets its topics back before the test sends on.

        Tansu 0.6 acknowledges records of topics that it does not have; where such a topic is created then, its high
        watermark begins at 0, and nobody can read them until as many again were refused. Apache Kafka refuses them.
        """
        if LANE != "embedded":
            await broker.start()
            return
        self._may_send.clear()
        # Its producer would go on with what it has begun as soon as the broker listens.
        await self._sender.__aexit__(None, None, None)
        await broker.start()
        await self.create_topics()
        await self._sender.__aenter__()
        self._may_send.set()

    async def executed(self, tag: str, step: str = "") -> list[Effect]:
        """The executions so far of a tag's steps, or of that one."""
        ids = {story.invocation_id for story in await self.stories() if story.tag == tag}
        return [e for e in self.effects.read() if e.invocation_id in ids and step in ("", e.step)]

    async def executing(self, tag: str, step: str) -> None:
        """Wait until that step has begun."""

        async def begun() -> bool:
            return bool(await self.executed(tag, step))

        await wait_until(begun, description=f"{step} of {tag} has begun")

    def let_go(self) -> None:
        """End every act `hold`, now and from now on."""
        (self._directory / LET_GO).touch()

    async def pause(self, duration_s: float) -> None:
        """Let time pass, where nothing happens that could be waited for."""
        await asyncio.sleep(duration_s)

    async def stories(self) -> list[Story]:
        """Every invocation that Redis holds."""
        found = {}
        for status in STATUSES:
            for summary in await self.store.list_invocations(status, invocations_max=INVOCATIONS_MAX):
                found[summary.invocation_id] = summary
        journals = await asyncio.gather(*(self.store.read_journal(invocation_id) for invocation_id in found))
        return [
            Story(summary.invocation_id, summary.fields["status"], entries)
            for summary, entries in zip(found.values(), journals, strict=True)
            if entries
        ]

    async def story(self, tag: str) -> Story:
        """The invocation of a tag; it must be there."""
        (story,) = [story for story in await self.stories() if story.tag == tag]
        return story

    async def counts(self) -> dict[str, int]:
        """How many invocations have each status."""
        keys = Keys(self.settings.namespace, slots=self.store.slots)
        counts = dict.fromkeys(STATUSES, 0)
        for slot in range(self.store.slots):
            async with opened(self.settings.redis_config, keys.prefix(slot)) as line:
                for status in STATUSES:
                    counts[status] += await line.ask("ZCARD", keys.status(slot, status))
        return counts

    async def finished(self, *, timeout_s: float = PATIENCE_S, offsets: bool = True) -> None:
        """Wait until every record sent has ended and, unless told otherwise, all offsets are committed."""
        last: dict[str, int] = {}

        async def all_ended() -> bool:
            try:
                last.update(await self.counts())
            except StoreError:
                # Between two primaries; the workers wait, too.
                return False
            ended = last["completed"] + last["paused"]
            return ended >= len(self.acknowledged) and not any(last[status] for status in UNFINISHED)

        try:
            await wait_until(all_ended, timeout_s=timeout_s, description="every invocation has ended")
        except AssertionError as error:
            raise AssertionError(f"{error} Of {len(self.acknowledged)} records: {last}") from error
        if offsets:
            await wait_until(self._all_committed, description="all offsets are committed")

    async def check(self, *, paused: Sequence[str] = (), epochs_kept: bool = True) -> None:
        """Fail with every violation in the history so far."""
        history = History(
            acknowledged=self.acknowledged,
            stories=await self.stories(),
            effects=self.effects.read(),
            paused=frozenset(paused),
            epochs_kept=epochs_kept,
        )
        found = violations(history)
        assert not found, f"{len(found)} violations:\n" + "\n".join(found[:20])

    async def check_no_failures(self) -> None:
        """Fail where any attempt was counted as failed."""
        failed = {
            story.tag: [row.entry for row in story.of_type(AttemptFailed)]
            for story in await self.stories()
            if story.of_type(AttemptFailed)
        }
        assert not failed, f"attempts of {len(failed)} invocations failed: {failed}"

    async def until(self, predicate: Callable[[Story], object], *, tag: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until a tag's invocation is there and such."""

        async def such() -> bool:
            return any(story.tag == tag and predicate(story) for story in await self.stories())

        await wait_until(such, timeout_s=timeout_s, description=f"{tag} is such")

    async def _redis_answers(self) -> bool:
        try:
            await self.counts()
        except StoreError:
            return False
        return True

    async def _all_committed(self) -> bool:
        topics = consumed_topics(self.settings.namespace, [SERVICE])
        return not await lag(self.settings.kafka_config(client_id="test"), topics)


@contextlib.asynccontextmanager
async def set_stage(
    redis_url: str, bootstrap_servers: str, namespace: str, *, directory: Path, chance: random.Random, **changes: object
) -> AsyncIterator[Stage]:
    """Set the stage on these servers; `changes` come over the settings of every test."""
    chosen: dict[str, object] = {
        "redis_url": redis_url,
        "bootstrap_servers": bootstrap_servers,
        "namespace": namespace,
        "slots": SLOTS,
        "topic_partitions": PARTITIONS,
        "topic_replication_factor": 1,
        "kafka_fetch_max_wait_ms": 10,
        "kafka_session_timeout_ms": 2_000,
        "lease_s": 2,
        "grace_s": 5,
    }
    settings = Settings.load(**(chosen | changes))
    await open_namespace(settings.redis_config, namespace, slots=SLOTS)
    keys = Keys(namespace, slots=SLOTS)
    async with (
        connected_store(settings.redis_config, keys, name="perdure-test") as store,
        Stage(settings, store=store, directory=directory, chance=chance) as made,
    ):
        yield made
