"""The one place that touches aiokafka: a consumer, a producer and an administrator that speak our types and errors.

Law: nothing here decides. Each call is bounded in time, each error of aiokafka's becomes a `BrokerError`, and closing
never hangs. What is started again when, is `kafka_broker`'s to say. aiokafka's defaults are spelled out where they
matter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import aiokafka
import aiokafka.errors as kafka_errors
from aiokafka import codec
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import OffsetAndMetadata

from perdure.schemas.errors import BrokerError, RecordTooLargeError

from .broker import Outgoing, Partition, Record
from .deadlines import Deadlines
from .kafka_batches import Batches, Codecs, readable
from .kafka_closing import (
    client_of,
    close_client,
    commit_once,
    consumer_ended,
    producer_ended,
    retrieve,
    stop_consumer,
    stop_producer,
)
from .kafka_config import FETCH_BYTES_MAX, MANUAL, POLL_INTERVAL_MS_MAX, ClusterView, KafkaConfig
from .kafka_connection import UnreadableRecordsError, connection, failure, is_closed_by_the_loop, too_large, unread
from .kafka_offsets import OffsetQuestion
from .kafka_replication import least_in_sync
from .kafka_starting import start_client, start_consumer
from .kafka_topic_ids import TopicsRequest, mark
from .kafka_view import refused, view_of
from .topics import TopicPlan

_UNPACKING = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode}

_UNDECODABLE = (ValueError, LookupError, RuntimeError, TypeError)
"""What aiokafka's decoder, ours and the compression libraries raise for bytes that they do not understand."""

OnPartitions = Callable[[Sequence[Partition]], Awaitable[None]]


class Consumer:
    """One aiokafka consumer, from `start` to `close`; not to be used again after either failed."""

    def __init__(self, config: KafkaConfig, *, revoked: OnPartitions, assigned: OnPartitions) -> None:
        self._config = config
        self._listener = _Listener(revoked, assigned)
        self._client = aiokafka.AIOKafkaConsumer(
            group_id=config.group_id,
            # One, because aiokafka sends a JoinGroup for each.
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=config.session_timeout_ms,
            heartbeat_interval_ms=config.heartbeat_interval_ms,
            rebalance_timeout_ms=config.rebalance_timeout_ms,
            max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
            fetch_max_wait_ms=config.fetch_max_wait_ms,
            max_partition_fetch_bytes=config.partition_fetch_bytes_max,
            fetch_max_bytes=max(FETCH_BYTES_MAX, config.partition_fetch_bytes_max),
            check_crcs=True,
            **connection(config, request_timeout_ms=config.request_timeout_ms),
        )

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: Nothing answered.
        """
        async with _translated("connect a consumer to Kafka", self._config.request_timeout_ms):
            await start_consumer(self._client, kafka_errors.for_code)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group for `topics`; `revoked` and `assigned` tell how that goes, from aiokafka's own task."""
        self._client.subscribe(topics=list(topics), listener=self._listener)

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Take exactly `partitions`, from their committed offsets on; tells nobody."""
        self._client.assign([aiokafka.TopicPartition(*partition) for partition in partitions])

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Fetch these held partitions from these offsets on, whatever is committed."""
        for partition, offset in offsets.items():
            self._client.seek(aiokafka.TopicPartition(*partition), offset)

    async def ask(self, question: OffsetQuestion, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Ask the brokers about offsets of any partitions, held or not (`kafka_offsets`).

        Raises:
            BrokerError: It was refused or not answered in time.
        """
        asked = [aiokafka.TopicPartition(*partition) for partition in partitions]
        async with _translated("look up offsets", self._config.request_timeout_ms):
            return {Partition(*tp): offset for tp, offset in (await question(self._client, asked)).items()}

    async def take(
        self, *, records_max: int, wait_ms: int = 0, partitions: Iterable[Partition] | None = None
    ) -> list[Record]:
        """Return what was fetched, at most `records_max`; with `wait_ms` 0 without ever suspending.

        Never call it while a rebalance goes on: aiokafka would wait for its end. Cancelling it loses nothing.

        Args:
            records_max: At least 1.
            wait_ms: How long to wait for the first record.
            partitions: Only of these, which must be held; `None` means all. What is there of others stays there.

        Raises:
            UnreadableRecordsError: Records of some partition could not be decoded.
            BrokerError: Reading is refused, aiokafka's coordination has ended, or this was closed meanwhile.
        """
        chosen = [aiokafka.TopicPartition(*partition) for partition in partitions or ()]
        if partitions is not None and not chosen:
            return []
        try:
            fetched = await self._client.getmany(*chosen, timeout_ms=wait_ms, max_records=records_max)
        except (kafka_errors.CorruptRecordException, kafka_errors.UnsupportedCodecError) as error:
            raise UnreadableRecordsError.of(error) from error
        except kafka_errors.KafkaError as error:
            raise BrokerError(f"Records cannot be read: {error!r}. Look at the topics' access rules.") from error
        except kafka_errors.ConsumerStoppedError as error:
            raise BrokerError("The Kafka consumer was closed meanwhile: read from its successor.") from error
        except _UNDECODABLE as error:
            raise unread(error) from error
        return [_record(Partition(*tp), r) for tp, records in fetched.items() for r in records]

    async def salvage(self, partition: Partition, *, records_max: int) -> list[Record]:
        """Fetch and return what comes next in one partition, with whatever bytes the names of headers hold.

        For where `take` raises. Like `take` it moves on behind what it returns; cancelling it loses nothing. Returns
        `[]` when the partitions were assigned anew meanwhile.

        Raises:
            UnreadableRecordsError: Not even so can anything be read of what comes next.
            BrokerError: The fetch was refused or not answered in time.
        """
        tp, held = aiokafka.TopicPartition(*partition), self._client.assignment()
        async with _translated(f"fetch from {partition.topic} once more", self._config.request_timeout_ms):
            position = await self._client.position(tp)
            fetched, aborted = await self._fetch(tp, position)
        if self._client.assignment() is not held:
            return []
        batches = Batches(fetched, codecs=Codecs(calc_crc32c, _UNPACKING))
        following = PartitionRecords(tp, batches, aborted, position, None, None, True, READ_COMMITTED)
        try:
            records = readable(following, records_max)
        except _UNDECODABLE as error:
            raise UnreadableRecordsError.of(error) from error
        self._client.seek(tp, following.next_fetch_offset)
        return [_record(partition, r) for r in records]

    async def _fetch(self, tp: aiokafka.TopicPartition, position: int) -> tuple[bytes, Any]:
        client, size = client_of(self._client), self._config.partition_fetch_bytes_max
        leader = client.cluster.leader_for_partition(tp)
        if leader is None or leader < 0:
            raise kafka_errors.LeaderNotAvailableError(tp)
        wanted = [(tp.topic, [(tp.partition, position, size)])]
        request = FetchRequest(self._config.fetch_max_wait_ms, 1, FETCH_BYTES_MAX, READ_COMMITTED, wanted)
        answer = await client.send(leader, request)
        ((_, [(_, code, _, *details)]),) = answer.topics
        if code != kafka_errors.NoError.errno:
            raise kafka_errors.for_code(code)(tp)
        # What transactions aborted stands in one of two places; version 4 is the first that tells.
        return details[-1], details[2 if answer.API_VERSION >= 11 else -2]

    async def commit(self, offsets: Mapping[Partition, int], topic_ids: Mapping[str, str]) -> None:
        """Commit `offsets`, marked with their topics' ids; those of partitions that are not held are left out.

        Raises:
            BrokerError: It was refused or not answered in time.
        """
        member = self._config.assignment != MANUAL
        held = self._client.assignment()
        marks = {topic: mark(topic_id) for topic, topic_id in topic_ids.items()}
        wanted = ((aiokafka.TopicPartition(*partition), offset) for partition, offset in offsets.items())
        committed = {tp: OffsetAndMetadata(offset, marks.get(tp.topic, "")) for tp, offset in wanted if tp in held}
        if committed:
            async with _translated("commit offsets", self._config.commit_timeout_ms):
                await commit_once(self._client, committed, member=member)

    def last_fetch_ms(self) -> int | None:
        """When a fetch was last answered, on this machine's wall clock: to see that it changes."""
        times = [self._client.last_poll_timestamp(tp) for tp in self._client.assignment()]
        return max((time for time in times if time is not None), default=None)

    def ended(self, *, joining: bool) -> str | None:
        """Why nothing will ever come again, if so: aiokafka's own tasks died or, where it is `joining`, stand still."""
        return consumer_ended(self._client, joining=joining)

    async def close(self) -> None:
        """Leave the group and close, or abandon what does not close in time."""
        await stop_consumer(self._client, self._config.stop_timeout_ms)


class Producer:
    """One aiokafka producer, from `start` to `close`.

    Without idempotence: the embedded broker has none, and every receiver drops duplicates by id. So a batch that nobody
    acknowledges expires, where an idempotent one would be retried for ever.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._deadlines = Deadlines()
        self._client = aiokafka.AIOKafkaProducer(
            acks="all",
            enable_idempotence=False,
            linger_ms=0,
            max_request_size=config.request_bytes_max,
            max_batch_size=min(config.batch_bytes_max, config.request_bytes_max),
            **connection(config, request_timeout_ms=config.produce_timeout_ms),
        )

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: Nothing answered.
        """
        async with _translated("connect a producer to Kafka", self._config.produce_timeout_ms):
            await start_client(self._client.start())

    async def produce(self, outgoing: Sequence[Outgoing]) -> None:
        """Send all, in order per partition, and return when all are acknowledged.

        Raises:
            RecordTooLargeError: One is over a limit; others may have been sent.
            BrokerError: One was refused, or not acknowledged in time.
        """
        sent: list[asyncio.Future[Any]] = []
        try:
            with self._deadlines.within(self._config.produce_timeout_ms / 1000):
                for record in outgoing:
                    sent.append(await self._send(record))  # noqa: PERF401 # what was sent must be known after a failure
                for acknowledged in sent:
                    await acknowledged
        except kafka_errors.MessageSizeTooLargeError as error:
            raise RecordTooLargeError(too_large(outgoing, self._config)) from error
        except (kafka_errors.KafkaError, OSError) as error:
            raise failure("produce records", self._config.produce_timeout_ms, error) from error
        finally:
            for future in sent:
                # Nobody waits for the rest after a failure; asyncio would report their errors as never retrieved.
                retrieve(future) if future.done() else future.add_done_callback(retrieve)

    async def _send(self, record: Outgoing) -> asyncio.Future[Any]:
        headers = list(record.headers)
        if record.key is not None or record.value is not None:
            wanted = record.partition
            if wanted is not None and wanted not in await self._client.partitions_for(record.topic):
                wanted = None
            future = await self._client.send(record.topic, record.value, record.key, wanted, headers=headers)
        else:
            # aiokafka's send() refuses a record without key and value, which Kafka knows and a dead letter may be.
            batch = self._client.create_batch()
            batch.append(timestamp=None, key=None, value=None, headers=headers)
            batch.close()
            partitions = await self._client.partitions_for(record.topic)
            future = await self._client.send_batch(batch, record.topic, partition=min(partitions))
        assert isinstance(future, asyncio.Future)
        return future

    def ended(self) -> bool:
        """Whether aiokafka's own task died, so that every later `produce` fails (its issue 1017)."""
        return producer_ended(self._client)

    async def close(self) -> None:
        """Send what is buffered and close, or abandon what does not close in time."""
        await stop_producer(self._client, self._config.stop_timeout_ms)


class Admin:
    """Looks at topics and creates them; never makes a broker create one by itself."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._client = AIOKafkaClient(**connection(config, request_timeout_ms=config.probe_timeout_ms))

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: Nothing answered.
        """
        async with _translated(f"reach Kafka at {self._config.bootstrap_servers}", self._config.probe_timeout_ms):
            try:
                await start_client(self._client.bootstrap())
            except kafka_errors.KafkaConnectionError:
                # It logged why, and tells only that: ask one of the servers again, for the reason.
                host, port, _ = self._client.hosts[0]
                settings = connection(self._config, request_timeout_ms=self._config.probe_timeout_ms)
                del settings["bootstrap_servers"], settings["metadata_max_age_ms"]
                (await create_conn(host, port, **settings)).close()
                raise

    async def describe(self, topics: Sequence[str], *, rights: bool = False) -> ClusterView:
        """Ask a broker which of `topics` exist; with `rights` also what the user may do, of those forbidden nothing.

        Raises:
            BrokerError: None answered, or one may not be described.
        """
        # aiokafka's own describe_topics would have a broker with auto-creation create what is asked for.
        async with _translated("look at the topics", self._config.probe_timeout_ms):
            older = MetadataRequest(list(topics), allow_auto_topic_creation=False)
            request = TopicsRequest(topics, otherwise=older, rights=rights)
            answer = await self._client.send(self._client.get_random_node(), request)
            for code, topic in refused(answer, rights=rights):
                raise kafka_errors.for_code(code)(topic)
        return view_of(answer)

    async def least_in_sync(self, topics: Sequence[str]) -> Mapping[str, int]:
        """See `kafka_replication.least_in_sync`."""
        async with _translated("look at the topics' settings", self._config.probe_timeout_ms):
            return await least_in_sync(self._client, DescribeConfigsRequest, topics)

    async def create(self, plans: Sequence[TopicPlan]) -> list[str]:
        """Create topics; one that exists is left as it is.

        Returns:
            The names of those that were created.

        Raises:
            BrokerError: One could not be created; others may have been.
        """
        controller = self._client.cluster.controller
        node = controller.nodeId if controller else self._client.get_random_node()
        requests: list[Any] = [(p.name, p.partitions, p.replication_factor, [], list(p.config)) for p in plans]
        async with _translated("create topics", self._config.probe_timeout_ms):
            answer = await self._client.send(
                node, CreateTopicsRequest(requests, timeout=self._config.probe_timeout_ms, validate_only=False)
            )
            created = []
            for topic, code, *message in answer.topic_errors:
                if code == kafka_errors.NoError.errno:
                    created.append(topic)
                elif code != kafka_errors.TopicAlreadyExistsError.errno:
                    raise kafka_errors.for_code(code)(topic, *message)
        return created

    async def close(self) -> None:
        """Close the connections."""
        await close_client(self._client)


class _Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is not typed
    """aiokafka's listener, calling ours."""

    def __init__(self, revoked: OnPartitions, assigned: OnPartitions) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Iterable[aiokafka.TopicPartition]) -> None:
        """Called on the coordination task before joining again."""
        await self._revoked([Partition(*tp) for tp in sorted(revoked)])

    async def on_partitions_assigned(self, assigned: Iterable[aiokafka.TopicPartition]) -> None:
        """Called on the coordination task after joining."""
        await self._assigned([Partition(*tp) for tp in sorted(assigned)])


def _record(partition: Partition, r: Any) -> Record:
    return Record(partition, r.offset, r.timestamp, r.key, r.value, r.headers)


@contextlib.asynccontextmanager
async def _translated(action: str, timeout_ms: int) -> AsyncIterator[None]:
    """Bound a call in time, and turn what aiokafka raises into a `BrokerError`."""
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            yield
    except (RuntimeError, OSError) as error:
        if not (isinstance(error, kafka_errors.KafkaError | OSError) or is_closed_by_the_loop(error)):
            raise
        raise failure(action, timeout_ms, error) from error
