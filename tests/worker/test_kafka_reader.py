"""Polling across rebalances: what comes first, what is never lost, and who is told of partitions when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import aiokafka
import aiokafka.codec
import pytest

from perdure.schemas.errors import BrokerError
from perdure.worker import kafka_reader
from perdure.worker.broker import Outgoing, Partition, Record
from perdure.worker.kafka_broker import KafkaBroker
from tests.waiting import PATIENCE_S, wait_until

from .kafka_clients import (
    NOT_UTF8,
    Member,
    Notes,
    broker_for,
    numbers,
    poll,
    poll_until,
    produce_batch,
    quick_config,
    topic_plan,
    values,
)


async def test_resumed_work_comes_before_new_work(bootstrap_servers: str, namespace: str) -> None:
    """However little room there is, a backlog of new records does not delay a resume record."""
    new, resume = topic_plan(f"{namespace}.S", partitions=2), topic_plan(f"{namespace}.S.resume", partitions=2)
    config = quick_config(bootstrap_servers, namespace)
    async with broker_for(config, new, resume) as broker:
        await broker.produce(values(new.name, range(300)))
        await broker.produce(values(resume.name, range(1_000, 1_020)))
        batches: list[list[Record]] = []
        async with asyncio.timeout(PATIENCE_S):
            while sum(len(batch) for batch in batches) < 320:
                batches.append(await poll(broker, records_max=7))
    assert all(len(batch) <= 7 for batch in batches)
    for batch in batches:
        assert [r.partition.topic for r in batch] == sorted((r.partition.topic for r in batch), reverse=True)
    in_order = numbers(r for batch in batches for r in batch)
    assert sorted(in_order) == [*range(300), *range(1_000, 1_020)]
    # They were fetched together, unless the first fetch went out between the two produce calls.
    behind = in_order.index(1_000)
    assert max(in_order.index(n) for n in range(1_000, 1_020)) < behind + 60


async def test_polls_that_are_cancelled_lose_nothing(bootstrap_servers: str, namespace: str) -> None:
    """A poll may be cancelled at any moment: every record comes exactly once and in order."""
    topic = f"{namespace}.S"
    count = 2_000
    got: list[int] = []

    async def polling(broker: KafkaBroker, records_max: int) -> None:
        records = await poll(broker, records_max=records_max)
        got.extend(numbers(records))

    async with broker_for(quick_config(bootstrap_servers, namespace), topic_plan(topic)) as broker:
        producing = asyncio.create_task(_produce_slowly(broker, topic, count))
        turns = 0
        async with asyncio.timeout(PATIENCE_S):
            while len(got) < count:
                task = asyncio.create_task(polling(broker, 1 + turns % 50))
                for _ in range(turns % 40):
                    await asyncio.sleep(0)
                turns += 1
                if turns % 3:
                    task.cancel()
                await asyncio.wait([task])
        await producing
    assert got == list(range(count))


async def test_the_listener_hears_of_every_change(bootstrap_servers: str, namespace: str) -> None:
    """Assigned when they come, revoked when the broker is left; each time all of them."""
    plan = topic_plan(f"{namespace}.S", partitions=3)
    notes = Notes()
    broker = broker_for(quick_config(bootstrap_servers, namespace, assignment="group"), plan)
    broker.listen(notes)
    async with broker:
        await wait_until(lambda: broker.health().assigned == 3, description="all partitions are assigned")
    partitions = tuple(Partition(plan.name, n) for n in range(3))
    assert notes.events == [("assigned", partitions), ("revoked", partitions)]


@pytest.mark.parametrize("assignment", ["group", "manual"])
async def test_a_successor_starts_at_the_commit(bootstrap_servers: str, namespace: str, assignment: str) -> None:
    """What was committed while leaving is not read again, what was not is."""
    plan = topic_plan(f"{namespace}.S")
    config = quick_config(bootstrap_servers, namespace, assignment=assignment)
    async with broker_for(config, plan) as broker:
        await broker.produce(values(plan.name, range(10)))
        await poll_until(broker, lambda got: len(got) >= 10)
        await broker.commit({Partition(plan.name, 0): 4, Partition("never held", 0): 1})
    async with broker_for(config, plan) as broker:
        records = await poll_until(broker, lambda got: len(got) >= 6)
    assert numbers(records) == [4, 5, 6, 7, 8, 9]


async def test_members_come_and_go_while_records_flow(bootstrap_servers: str, namespace: str) -> None:
    """Every record is seen, and what is committed in the end is everything, each member committing its own."""
    plan = topic_plan(f"{namespace}.S", partitions=4)
    config = quick_config(bootstrap_servers, namespace, assignment="group")
    first, second, third = (Member(config, plan) for _ in range(3))

    async def work(member: Member, until: asyncio.Event) -> None:
        async with member.broker:
            while not until.is_set():
                await member.step()
                if len(member.seen) % 5 == 0:
                    # Refused while the group rebalances: the records come again.
                    try:
                        await member.commit()
                    except BrokerError:
                        continue

    def seen() -> set[int]:
        return {n for member in (first, second, third) for n in numbers(member.seen)}

    async with asyncio.TaskGroup() as tasks, broker_for(config) as source:
        producing = tasks.create_task(_produce_slowly(source, plan.name, 1_500, pause_s=0.02))
        leave = [asyncio.Event() for _ in range(3)]
        leaving = [tasks.create_task(work(first, leave[0]))]
        await wait_until(lambda: first.broker.health().assigned == 4)
        leaving.append(tasks.create_task(work(second, leave[1])))
        await wait_until(lambda: first.broker.health().assigned == 2 and second.broker.health().assigned == 2)
        leave[1].set()
        await leaving[1]
        leaving.append(tasks.create_task(work(third, leave[2])))
        await wait_until(lambda: first.broker.health().assigned == 2 and third.broker.health().assigned == 2)
        await producing
        await wait_until(lambda: len(seen()) == 1_500, description="every record is seen")
        # One by one: when all leave at once, the embedded broker's next member waits for a leader that is gone.
        leave[0].set()
        await wait_until(lambda: third.broker.health().assigned == 4)
        leave[2].set()
    async with broker_for(config, plan) as broker:
        await broker.produce(values(plan.name, [9_999]))
        assert numbers(await poll_until(broker, lambda got: 9_999 in numbers(got))) == [9_999]


async def test_a_rebalance_ends_a_waiting_poll(bootstrap_servers: str, namespace: str) -> None:
    """A poll that waits for ten minutes returns when its partitions go, instead of waiting out the rebalance."""
    plan = topic_plan(f"{namespace}.S", partitions=2)
    config = quick_config(bootstrap_servers, namespace, assignment="group")
    async with broker_for(config, plan) as first:
        await wait_until(lambda: first.health().assigned == 2)
        waiting = asyncio.create_task(poll(first, wait_ms=600_000))
        async with broker_for(config, plan) as second:
            await wait_until(lambda: second.health().assigned == 1)
            assert await asyncio.wait_for(waiting, PATIENCE_S) == []
            await wait_until(lambda: first.health().assigned == 1)


async def test_a_listener_that_hangs_or_fails_is_left_behind(
    bootstrap_servers: str, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The rebalance goes on without it, and the log says so."""

    class Careless(Notes):
        async def assigned(self, partitions: Sequence[Partition]) -> None:
            raise ValueError("mine")

        async def revoked(self, partitions: Sequence[Partition]) -> None:
            await asyncio.Event().wait()

    plan = topic_plan(f"{namespace}.S", partitions=2)
    config = quick_config(bootstrap_servers, namespace, assignment="group", rebalance_timeout_ms=2_400)
    first = broker_for(config, plan)
    first.listen(Careless())
    async with first:
        await wait_until(lambda: first.health().assigned == 2)
        async with broker_for(config, plan) as second:
            await wait_until(lambda: second.health().assigned == 1)
    assert "the listener failed over partitions assigned; the rebalance goes on" in caplog.text
    assert "the listener took too long over partitions revoked; the rebalance goes on" in caplog.text


async def test_no_commit_while_the_group_rebalances(bootstrap_servers: str, namespace: str) -> None:
    """A commit that would cross the JoinGroup is refused at once; it is offered again afterwards."""
    plan = topic_plan(f"{namespace}.S")
    async with broker_for(quick_config(bootstrap_servers, namespace, assignment="group"), plan) as broker:
        await wait_until(lambda: broker.health().reachable)
        with pytest.raises(BrokerError, match=r"Try again|rebalances"):
            await broker.commit({Partition(plan.name, 0): 0})


async def _produce_slowly(broker: KafkaBroker, topic: str, count: int, *, pause_s: float = 0) -> None:
    for start in range(0, count, 25):
        await broker.produce(values(topic, range(start, min(start + 25, count))))
        await asyncio.sleep(pause_s)


@pytest.mark.parametrize("codec", [0, 1, 4], ids=["plain", "gzip", "zstd"])
async def test_header_names_that_are_not_utf8_are_read(bootstrap_servers: str, namespace: str, codec: int) -> None:
    """In order and without a gap, with the records around them, however few are taken at a time."""
    plan = topic_plan(f"{namespace}.S", partitions=2)
    batch = [Outgoing(plan.name, b"k", b"%d" % number, (("fine", b"1"), ("none", None))) for number in range(9)]
    batch[4] = batch[4]._replace(headers=(("fine", b"1"), (NOT_UTF8, b"2"), ("none", None)))
    batch[5] = batch[5]._replace(key=None, value=None, headers=((NOT_UTF8, None),))
    read: list[Record] = []
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        await wait_until(lambda: broker.health().ok)
        await produce_batch(bootstrap_servers, batch, partition=1, codec=codec)
        await produce_batch(bootstrap_servers, [Outgoing(plan.name, None, b"9")], partition=1)
        await broker.produce(values(plan.name, range(10, 40)))
        async with asyncio.timeout(PATIENCE_S):
            while len({(r.partition, r.offset) for r in read}) < 40:
                read += await poll(broker, records_max=3)
        assert broker.health().ok
        assert broker.health().consumer_restarts <= 1
    # The reader that met it was replaced, and what it had handed out came again.
    held = {r.offset: r for r in read if r.partition.number == 1}
    assert sorted(held) == list(range(len(held)))
    assert [held[offset]._replace(partition=Partition("", 0), offset=0, timestamp_ms=0) for offset in range(9)] == [
        Record(Partition("", 0), 0, 0, sent.key, sent.value, sent.headers) for sent in batch
    ]
    assert [held[offset].timestamp_ms for offset in range(9)] == [1_700_000_000_000 + at for at in range(9)]
    again = [r.offset for r in read if r.partition.number == 1]
    assert all(later == before + 1 or later == 0 for before, later in itertools.pairwise(again))


@pytest.mark.servers
async def test_what_a_transaction_aborted_stays_away(bootstrap_servers: str, namespace: str) -> None:
    """Also where it stands in one fetch with a name that is not UTF-8."""
    plan = topic_plan(f"{namespace}.S")
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        await wait_until(lambda: broker.health().ok)
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id=namespace) as producer:
        for value in (b"1", b"2"):
            await producer.begin_transaction()
            await producer.send_and_wait(plan.name, value, partition=0)
            await (producer.abort_transaction() if value == b"1" else producer.commit_transaction())
    await produce_batch(bootstrap_servers, [Outgoing(plan.name, None, b"3", ((NOT_UTF8, b""),))])
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        read = await poll_until(broker, lambda got: 3 in numbers(got))
    assert numbers(read) == [2, 3]


async def test_after_a_while_all_partitions_are_read_at_once_again(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that cannot be decoded makes reading careful, until there was none for long."""
    monkeypatch.setattr(kafka_reader, "CAREFUL_MS", 200)
    plan = topic_plan(f"{namespace}.S")
    bad = [Outgoing(plan.name, None, b"1", ((NOT_UTF8, b""),))]
    async with broker_for(quick_config(bootstrap_servers, namespace), plan) as broker:
        await wait_until(lambda: broker.health().ok)
        await produce_batch(bootstrap_servers, bad)
        assert numbers(await poll_until(broker, bool)) == [1]
        assert broker._reader is not None
        assert broker._reader.careful
        while broker._reader.careful:
            assert await poll(broker, wait_ms=20) == []
        await broker.produce(values(plan.name, [2]))
        assert numbers(await poll_until(broker, bool)) == [2]
        await broker.commit({Partition(plan.name, 0): 2})
        await produce_batch(bootstrap_servers, bad)
        assert numbers(await poll_until(broker, bool)) == [1]


async def test_what_cannot_be_decoded_blocks_only_its_partition(
    bootstrap_servers: str, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose compression nobody here knows stops one partition, is reported, and costs the others nothing."""
    plan = topic_plan(f"{namespace}.S", partitions=3)
    config = quick_config(bootstrap_servers, namespace)
    packed = [Outgoing(plan.name, b"k", b"v" * 1_000)]
    async with broker_for(config, plan) as broker:
        await wait_until(lambda: broker.health().ok)
        await produce_batch(bootstrap_servers, packed, partition=1, codec=4)
        monkeypatch.setattr(aiokafka.codec, "cramjam", None)
        await broker.produce(values(plan.name, range(300)))
        healthy = await poll_until(broker, lambda got: len(got) >= 150 and "is left alone" in caplog.text)
        expected = {n for n in range(300) if n in numbers(healthy)}
        await broker.produce(values(plan.name, range(300, 600)))
        await poll_until(broker, lambda got: len(set(numbers(got)) - expected) >= 150)
        assert broker.health().assigned == 3
    assert {r.partition.number for r in healthy} == {0, 2}
    assert f"partition 1 of {plan.name} is left alone" in caplog.text
