"""Acknowledgements of a moment: one script for all of them, and an answer for each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from perdure.journal.keys import Keys
from perdure.journal.redis_acknowledging import MEMBERS_MAX
from perdure.journal.redis_store import RedisStore
from perdure.journal.store import ResumeDue
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId, slot_of
from tests.waiting import wait_until

from .store_contract import LEASE_MS, MINUTE_MS, Bench, admission, admitted, calling, new_id, output, sweep_all

SLOTS = 4
OTHERS = 3


class Connection:
    """In the place of a wire: keeps what it is told, and answers when the test says what."""

    def __init__(self, *, one_node: bool = True) -> None:
        self.one_node = one_node
        self.losses = 0
        self.calls: list[tuple[Any, ...]] = []
        self.answers: list[Callable[[Any], None]] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.full = False

    def by_slot(self, keys: Keys) -> Sequence[Connection]:
        """This one for all slots."""
        return [self] * keys.slots

    def call(self, arguments: tuple[Any, ...], convert: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """Keep it."""
        if self.full:
            raise StoreError("too many")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.calls.append(arguments)
        self.futures.append(future)
        self.answers.append(lambda raw: future.set_result(convert(raw)))
        return future

    def call_once(self, arguments: tuple[Any, ...], convert: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """Likewise."""
        return self.call(arguments, convert)

    def told(self, call: int) -> list[str]:
        """The ids that a call was about, in order."""
        arguments = self.calls[call]
        count = int(arguments[2])
        given, ids = list(arguments[3 + count :]), []
        while given:
            ids.append(given[0])
            del given[: 3 + int(given[2])]
        assert len(ids) * 4 == count
        return ids


def store_over(connection: Connection) -> RedisStore:
    """The store."""
    return RedisStore(connection, Keys("t", slots=SLOTS))  # type: ignore[arg-type]  # a stand-in for the wire


def ids(count: int) -> list[InvocationId]:
    """New ones, of more than one slot."""
    while True:
        made = [new_id() for _ in range(count)]
        if len({slot_of(each, SLOTS) for each in made}) > 1:
            return made


async def sent(connection: Connection, calls: int) -> None:
    """Return when so many calls were made."""
    await wait_until(lambda: len(connection.calls) >= calls)


async def test_those_of_a_moment_go_together() -> None:
    """Over one connection, of whatever slots, and each has its own answer."""
    connection = Connection()
    store, three = store_over(connection), ids(3)
    answers = [asyncio.ensure_future(store.acknowledge(each, reply=True, sent=[2, 3])) for each in three]
    await sent(connection, 1)
    assert connection.told(0) == three
    connection.answers[0]([None, [three[0].encode(), b"4", b"Greeter"], None])
    assert await asyncio.gather(*answers) == [None, ResumeDue(three[0], 4, "Greeter"), None]
    later = asyncio.ensure_future(store.acknowledge(three[0], reply=True))
    await sent(connection, 2)
    connection.answers[1]([None])
    assert await later is None


async def test_a_cluster_gets_one_script_for_each_slot() -> None:
    """A script that touched two could not be carried out."""
    connection = Connection(one_node=False)
    store, many = store_over(connection), ids(8)
    answers = [asyncio.ensure_future(store.acknowledge(each, reply=True, as_of=0)) for each in many]
    slots = {slot_of(each, SLOTS) for each in many}
    await sent(connection, len(slots))
    for call in range(len(slots)):
        assert len({slot_of(each, SLOTS) for each in connection.told(call)}) == 1
        connection.answers[call]([None] * len(connection.told(call)))
    assert await asyncio.gather(*answers) == [None] * 8
    assert sorted(itertools.chain(*map(connection.told, range(len(slots))))) == sorted(many)


async def test_what_fills_a_script_does_not_wait() -> None:
    """Nor does what somebody's object waits for; the moment of the first ones is over then."""
    connection = Connection()
    store, (first, second) = store_over(connection), ids(2)
    waiting = [asyncio.ensure_future(store.acknowledge(first, sent=range(MEMBERS_MAX - 1)))]
    await asyncio.sleep(0)
    assert connection.calls == []
    waiting.append(asyncio.ensure_future(store.acknowledge(second, reply=True)))
    await asyncio.sleep(0)
    assert connection.told(0) == [first, second]
    waiting.append(asyncio.ensure_future(store.acknowledge(second, cascade=True)))
    await asyncio.sleep(0)
    assert connection.told(1) == [second]
    connection.answers[0]([None, None])
    connection.answers[1]([None])
    assert await asyncio.gather(*waiting) == [None] * 3


async def test_nothing_is_acknowledged_over_a_loss() -> None:
    """Neither one that comes after it, nor one that lingered; what counts for ever is sent all the same."""
    connection = Connection()
    store, (first, second) = store_over(connection), ids(2)
    lingering = asyncio.ensure_future(store.acknowledge(first, reply=True, as_of=0))
    always = asyncio.ensure_future(store.acknowledge(second, reply=True))
    await asyncio.sleep(0)
    connection.losses = 1
    assert await lingering is None
    assert await store.acknowledge(first, reply=True, as_of=0) is None
    await sent(connection, 1)
    assert connection.told(0) == [second]
    connection.answers[0]([None])
    assert await always is None


async def test_a_lost_connection_answers_none() -> None:
    """As it does for one alone."""
    connection = Connection()
    store = store_over(connection)
    both = [asyncio.ensure_future(store.acknowledge(each, reply=True, as_of=0)) for each in ids(2)]
    await sent(connection, 1)
    connection.futures[0].set_result(None)
    assert await asyncio.gather(*both) == [None, None]


async def test_a_refusal_is_everybodys() -> None:
    """Whether Redis says it, or the connection takes no more; and the end of the connection is one."""
    connection = Connection()
    store = store_over(connection)
    both = [asyncio.ensure_future(store.acknowledge(each, reply=True)) for each in ids(2)]
    await sent(connection, 1)
    connection.futures[0].set_exception(StoreError("refused"))
    for found in await asyncio.gather(*both, return_exceptions=True):
        assert isinstance(found, StoreError)
    connection.full = True
    with pytest.raises(StoreError, match="too many"):
        await store.acknowledge(new_id(), reply=True)
    connection.full = False
    ended = [asyncio.ensure_future(store.acknowledge(each, reply=True)) for each in ids(2)]
    await sent(connection, 2)
    connection.futures[1].cancel()
    for found in await asyncio.gather(*ended, return_exceptions=True):
        assert isinstance(found, asyncio.CancelledError)


async def test_who_gives_up_leaves_the_others() -> None:
    """One of those that wait is cancelled."""
    connection = Connection()
    store = store_over(connection)
    given_up, other = (asyncio.ensure_future(store.acknowledge(each, reply=True)) for each in ids(2))
    await sent(connection, 1)
    given_up.cancel()
    await asyncio.wait([given_up])
    connection.answers[0]([None, None])
    assert await other is None


async def test_each_of_several_has_its_effect_and_its_answer(bench: Bench) -> None:
    """Replies, one that holds an object for the next, one that is unknown and one that is repeated, all at once."""
    leases = [await admitted(bench, reply_to="replies") for _ in range(OTHERS)]
    for lease in leases:
        await bench.store.complete(
            lease, [output()], after=1, seq=1, retention_ms=MINUTE_MS, journal_retention_ms=MINUTE_MS
        )
    holder = await admitted(bench, key="k", mode="exclusive")
    waiting = admission(key="k", mode="exclusive")
    await bench.store.admit(waiting, lease_ms=LEASE_MS)
    await bench.store.append(holder, [calling(0)], after=1, seq=1, progress=True)
    await bench.store.kill(holder.invocation_id, output("killed"))
    both = [leases[0].invocation_id, *(lease.invocation_id for lease in leases), new_id()]
    answers = await asyncio.gather(
        *(bench.store.acknowledge(each, reply=True) for each in both),
        bench.store.acknowledge(holder.invocation_id, cascade=True),
    )
    assert answers == [None] * len(both) + [ResumeDue(waiting.invocation_id, 0, "Greeter")]
    kept = (await bench.dump())["kept"]
    assert isinstance(kept, set)
    for lease in leases:
        assert sum(lease.invocation_id in name for name in kept) == 2, "its hash and its journal"
    await bench.pass_ms(61 * MINUTE_MS)
    await sweep_all(bench)
    left = str(await bench.dump())
    assert not [lease for lease in leases if lease.invocation_id in left]
