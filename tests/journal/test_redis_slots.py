"""Every script of the store on Redis touches one slot only: on a Redis Cluster its keys are on one node."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis
import pytest

from perdure.journal.keys import Keys
from perdure.journal.redis_store import RedisStore
from perdure.journal.store import Lease
from perdure.schemas.commands import Send, SetState
from perdure.schemas.entries import Cancelled, Completion, Entry, Success
from perdure.schemas.errors import StoreError
from perdure.schemas.ids import InvocationId

from .store_contract import admission, new_id, output, run, sleep

SLOTS = 1024
TAG = re.compile(rb"t:\{(\d+)\}:")
ONE = Success(b"1")


class Recorder:
    """In the place of a `Wire`: keeps what it is told and answers nothing."""

    losses = 0
    one_node = False

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def by_slot(self, keys: Keys) -> Sequence[Recorder]:
        """This one for all slots."""
        return [self] * keys.slots

    def call(self, arguments: tuple[Any, ...], convert: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """Keep the command; the answer is an error."""
        self.calls.append(arguments)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_exception(StoreError("not sent"))
        return answer

    def send(self, packed: bytes, convert: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """Keep the command that was packed."""
        reader = hiredis.Reader()
        reader.feed(packed)
        return self.call(tuple(reader.gets()), convert)


def calls_of(store: RedisStore, lease: Lease) -> Sequence[Callable[[], Awaitable[object]]]:
    """One of each kind that runs a script about one invocation or one object."""
    who, target = lease.invocation_id, "Greeter/k"
    entries: list[Entry] = [
        run(0),
        sleep(1, 5),
        SetState(2, "a", b"1"),
        Send(3, 5, "S", "h", None, who, "", (), 0, b""),
    ]
    key = "k" if lease.target else None
    return [
        lambda: store.admit(admission(who, key=key, mode="exclusive" if key else ""), lease_ms=1),
        lambda: store.claim(who, 1, token="t", worker="w", lease_ms=1, at_ms=1),
        lambda: store.append(lease, entries, after=1, seq=1, progress=True),
        lambda: store.append(lease, [run(0)], after=1, seq=1, progress=True),
        lambda: store.complete(
            lease, [*entries, output()], after=1, seq=1, retention_ms=1, journal_retention_ms=1, timers=[1]
        ),
        lambda: store.suspend(lease, entries, after=1, seq=1, wake_in_ms=1),
        lambda: store.give_up(lease, entries, after=1, seq=1, failure="x"),
        lambda: store.acknowledge(who, reply=True, sent=[2], cascade=True),
        lambda: store.attach(who, "c", caller=f"{who}:1:2"),
        lambda: store.renew([lease], lease_ms=1),
        lambda: store.answer(who, [(1, Completion(3, 4, ONE))]),
        lambda: store.deliver(who, Cancelled(4), once="x:1"),
        lambda: store.kill(who, output()),
        lambda: store.pause(who, at_ms=1, reason="x"),
        lambda: store.resume(who, at_ms=1),
        lambda: store.purge(who),
        lambda: store.peek_promise(target, "p"),
        lambda: store.complete_promise(target, "p", ONE, by="me"),
        lambda: store.await_promise(target, "p", new_id("k"), 3),
        lambda: store.edit_state(target, [("a", b"1")], clear=True),
    ]


@pytest.mark.parametrize("target", ["", "Greeter/k"])
async def test_a_script_stays_in_one_slot(target: str) -> None:
    """Also where an invocation belongs to no object: what it is given names no key of another slot."""
    recorder = Recorder()
    store = RedisStore(recorder, Keys("t", slots=SLOTS))  # type: ignore[arg-type]  # a stand-in for the wire
    who: InvocationId = new_id("k" if target else None)
    for call in calls_of(store, Lease(who, 1, "t", "w", target)):
        with pytest.raises(StoreError, match="not sent"):
            await call()
    for arguments in recorder.calls:
        named = [_text(part) for part in arguments]
        slots = {found[1] for part in named if (found := TAG.match(part))}
        assert len(slots) == 1, named


async def test_a_script_that_writes_more_than_it_is_given_is_given_a_key_that_is_never_there() -> None:
    """A cluster that moves the slot then refuses it as a whole, and not in its middle (ADR 18)."""
    recorder = Recorder()
    keys = Keys("t", slots=SLOTS)
    store = RedisStore(recorder, keys)  # type: ignore[arg-type]  # a stand-in for the wire
    who = new_id("k")
    calls: list[Callable[[], Awaitable[object]]] = [
        *calls_of(store, Lease(who, 1, "t", "w", "Greeter/k")),
        lambda: store.sweep(7),
        lambda: store.shed(7, journals_max=1),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="not sent"):
            await call()
    for arguments in recorder.calls:
        _, sha, count, *rest = [_text(part) for part in arguments]
        named = rest[: int(count)]
        # One writes nothing but its hash, and a step's append nothing but its three keys.
        if (sha, count) not in ((store._shas["attach"], b"1"), (store._shas["append"], b"3")):
            assert any(re.fullmatch(rb"t:\{\d+\}:status:", key) for key in named), (sha, named)


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize(("after", "seq"), [(1, 1), (9, 10), (123_456, 99)])
async def test_a_step_is_sent_as_any_other_entry_is(after: int, seq: int, progress: bool) -> None:
    """The append of one step, which is packed by hand, says what that of several entries says: lease by lease."""
    recorder = Recorder()
    keys = Keys("t", slots=SLOTS)
    store = RedisStore(recorder, keys)  # type: ignore[arg-type]  # a stand-in for the wire
    for lease in (Lease(new_id(), 1, "t", "w"), Lease(new_id(), 12, "token", "w")):
        one, other = run(0), run(1, "x" * 1000)
        for entries in ([one, other], [one], [other]):
            with pytest.raises(StoreError, match="not sent"):
                await store.append(lease, entries, after=after, seq=seq, progress=progress)
        both, first, second = (tuple(map(_text, call)) for call in recorder.calls)
        recorder.calls.clear()
        assert first == both[:-2]
        assert second == both[:-4] + both[-2:]


def _text(part: bytes | str | int) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()
