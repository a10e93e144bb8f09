"""What waits for the barrier where there are several nodes, over a store on one: who asks together passes together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.journal.barrier import Barrier
from perdure.journal.cluster_store import ClusterStore
from perdure.journal.connected_store import locator
from perdure.journal.keys import Keys
from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_scripts import script_texts
from perdure.journal.store import Claimed, Lease
from perdure.journal.wire import Wire
from perdure.schemas.commands import Send
from perdure.schemas.entries import Entry
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId

from .store_contract import LEASE_MS, SLOTS, admission

CALLEE = InvocationId("inv_" + "0" * 27)
CALLS = 20


class Scripted(Barrier):
    """A barrier that does what a test wants, and counts."""

    def __init__(self, config: RedisConfig, keys: Keys) -> None:
        super().__init__(config, "w", keys, replicas=0)
        self.passes = 0
        self.moved = 0
        self.error: StoreError | None = None

    @property
    def lag_ms(self) -> int:
        """See `Barrier.lag_ms`."""
        return 0

    @property
    def changes(self) -> int:
        """See `Barrier.changes`."""
        return self.moved

    async def pass_(self) -> int:
        """See `Barrier.pass_`."""
        self.passes += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.moved


@pytest.fixture
def barrier(redis_url: str, namespace: str) -> Scripted:
    """Passed at once."""
    return Scripted(RedisConfig.from_url(redis_url), Keys(namespace, slots=SLOTS))


@pytest.fixture
async def store(redis_url: str, namespace: str, barrier: Scripted) -> AsyncIterator[ClusterStore]:
    """A store that acknowledges behind it."""
    config = RedisConfig.from_url(redis_url)
    async with Wire(locator(config), script_texts(), name="test") as wire:
        await wire.wait_connected()
        yield ClusterStore(wire, Keys(namespace, slots=SLOTS), barrier)


async def calling(store: ClusterStore) -> Lease:
    """One that runs and has sent something `CALLS` times."""
    claimed = await store.admit(admission(), lease_ms=LEASE_MS)
    assert isinstance(claimed, Claimed)
    sent: list[Entry] = [Send(at, 5, "S", "h", None, CALLEE, "", (), 0, b"1") for at in range(CALLS)]
    await store.append(claimed.lease, sent, after=1, seq=1, progress=False)
    return claimed.lease


async def owed(store: ClusterStore, lease: Lease) -> int:
    """How many entries of a journal are not acknowledged."""
    summary = await store.read_invocation(lease.invocation_id)
    assert summary is not None, "it was admitted"
    return int(summary.fields["outgoing"])


async def test_who_asks_during_one_pass_shares_the_next(store: ClusterStore, barrier: Scripted) -> None:
    """The first one begins a pass, and all others, which came behind its beginning, have one together."""
    lease, as_of = await calling(store), store.losses
    sent = range(2, 2 + CALLS)
    await asyncio.gather(*(store.acknowledge(lease.invocation_id, sent=[at], as_of=as_of) for at in sent))
    assert await owed(store, lease) == 0
    assert barrier.passes == 2


async def test_what_nothing_vouches_for_is_not_acknowledged(store: ClusterStore, barrier: Scripted) -> None:
    """It stays due, also for those that had waited for the same pass; the next time it may be."""
    lease, as_of = await calling(store), store.losses
    barrier.error = StoreError("the replica is away")
    await asyncio.gather(*(store.acknowledge(lease.invocation_id, sent=[at], as_of=as_of) for at in (2, 3, 4)))
    assert await owed(store, lease) == CALLS
    barrier.error = None
    await store.acknowledge(lease.invocation_id, sent=[2, 3, 4], as_of=as_of)
    assert await owed(store, lease) == CALLS - 3


async def test_a_barrier_of_another_server_vouches_for_nothing(store: ClusterStore, barrier: Scripted) -> None:
    """It was connected to anew, or slots have moved, after what is to be acknowledged was done."""
    lease, as_of = await calling(store), store.losses
    barrier.moved += 1
    await store.acknowledge(lease.invocation_id, sent=[2], as_of=as_of)
    assert await owed(store, lease) == CALLS
    assert barrier.passes == 0
    await store.acknowledge(lease.invocation_id, sent=[2], as_of=store.losses)
    assert await owed(store, lease) == CALLS - 1


async def test_what_kafka_has_and_kills_wait_for_nothing(store: ClusterStore, barrier: Scripted) -> None:
    """The one rests upon no node; the others come one after the other, and somebody's object waits for them."""
    lease = await calling(store)
    await store.acknowledge(lease.invocation_id, sent=[2])
    await store.acknowledge(lease.invocation_id, cascade=True, as_of=store.losses)
    assert await owed(store, lease) == CALLS - 1
    assert barrier.passes == 0
