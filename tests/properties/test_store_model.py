"""Memory and Redis side by side: two rival workers, every call sent again at any later time, time that passes.

The store in memory is the model. After each step both have given the same answer and hold the same invocations,
journals, indexes and deadlines (clock readings left aside).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from perdure.journal.memory_store import MemoryStore
from perdure.journal.store import ALWAYS_MS, Appended, Claim, Claimed, Lease, Store, Summary
from perdure.schemas.entries import Entry
from perdure.schemas.errors import FencedError, GapError
from perdure.schemas.ids import InvocationId
from perdure.worker.clock import system_random
from tests.journal.store_contract import (
    MINUTE_MS,
    SLOTS,
    Bench,
    Dump,
    MemoryBench,
    admission,
    output,
    redis_bench,
    run,
    sleep,
)

LEASE_MS = 10 * MINUTE_MS
WORKERS = ("w1", "w2")
IDS = tuple(InvocationId(f"inv_{place}{'0' * 24}") for place in ("000", "001", "002"))

# What names the time at which something was done, and not what was done.
TIMES = re.compile(rb'"at":\d+')
TIME_FIELDS = ("admitted_at", "completed_at")

Call = Callable[[Store], Awaitable[object]]


class Attempt:
    """What a worker believes of one attempt: its lease, what it has seen, how often it wrote."""

    def __init__(self, lease: Lease, length: int) -> None:
        self.lease = lease
        self.length = length
        self.seq = 0
        self.commands = 0


def timeless(dump: Dump, now_ms: int) -> Dump:
    """The dump with deadlines in whole minutes from now, and without other readings of the clock."""
    plain: Dump = {}
    for key, value in dump.items():
        if isinstance(value, dict) and ":invocation:" in key:
            plain[key] = {name: text for name, text in value.items() if name not in TIME_FIELDS}
        elif isinstance(value, list):
            plain[key] = [(*place, kind, TIMES.sub(b"", body)) for *place, kind, body in value]
        elif isinstance(value, dict) and key.endswith("due"):
            plain[key] = {member: max(0, round((score - now_ms) / MINUTE_MS)) for member, score in value.items()}
        elif isinstance(value, dict):
            plain[key] = sorted(value)
        else:
            plain[key] = value
    return plain


class SideBySide(RuleBasedStateMachine):
    """The same calls to two stores."""

    def __init__(self, open_benches: Callable[[AsyncExitStack], Awaitable[Sequence[Bench]]]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.exits = AsyncExitStack()
        self.benches = self.runner.run(self.opened(open_benches))
        self.attempts: list[Attempt] = []
        self.calls: list[Call] = []
        self.tokens = 0

    async def opened(self, open_benches: Callable[[AsyncExitStack], Awaitable[Sequence[Bench]]]) -> Sequence[Bench]:
        """Both benches, open until the end of the example."""
        return await open_benches(self.exits)

    def teardown(self) -> None:
        """Close both."""
        self.runner.run(self.exits.aclose())
        self.runner.close()

    def both(self, call: Call) -> object:
        """Make the call on both; what they answered, which is the same."""
        return self.runner.run(self.answered(call))

    async def answered(self, call: Call) -> object:
        """See `both`."""
        answers = []
        for bench in self.benches:
            await bench.tick()
            try:
                answers.append(await call(bench.store))
            except (FencedError, GapError) as error:
                answers.append(type(error))
        dumps = [timeless(await bench.dump(), await bench.now_ms()) for bench in self.benches]
        told = [await bench.messages() for bench in self.benches]
        assert shown(answers[0]) == shown(answers[1])
        assert dumps[0] == dumps[1]
        assert [shown(message) for message in told[0]] == [shown(message) for message in told[1]]
        return answers[0]

    def call(self, call: Call) -> object:
        """Make a call that may be sent again later."""
        self.calls.append(call)
        return self.both(call)

    def token(self) -> str:
        """A token that nobody had."""
        self.tokens += 1
        return f"t{self.tokens}"

    @rule(
        invocation_id=st.sampled_from(IDS),
        worker=st.sampled_from(WORKERS),
        reply_to=st.sampled_from(["", "", "replies"]),
        waiter=st.sampled_from(["", "c1", "c2"]),
        delay=st.sampled_from([0, 0, 0, 3]),
    )
    def admit(self, invocation_id: InvocationId, worker: str, reply_to: str, waiter: str, delay: int) -> None:
        """A record arrives."""
        asked = admission(invocation_id, token=self.token(), worker=worker, reply_to=reply_to)
        channels = {id(bench.store): bench.keys.outcomes(waiter) if waiter else "" for bench in self.benches}
        starts = {
            id(bench.store): self.runner.run(bench.now_ms()) + delay * MINUTE_MS if delay else 0
            for bench in self.benches
        }

        def act(store: Store) -> Awaitable[object]:
            named = asked._replace(waiter=channels[id(store)], not_before_ms=starts[id(store)])
            return store.admit(named, lease_ms=LEASE_MS)

        if isinstance(answer := self.call(act), Claimed):
            self.attempts.append(Attempt(answer.lease, 1))

    @rule(invocation_id=st.sampled_from(IDS), worker=st.sampled_from(WORKERS), lag=st.sampled_from([0, 0, 0, 1]))
    def resume(self, invocation_id: InvocationId, worker: str, lag: int) -> None:
        """A resume record arrives, at times a stale one."""
        self.claim(invocation_id, worker, lag)

    def claim(self, invocation_id: InvocationId, worker: str, lag: int) -> None:
        """See `resume`."""
        summary = self.runner.run(summary_of(self.benches[0], invocation_id))
        if summary is None:
            return
        epoch, token = int(summary.fields["epoch"]) - lag, self.token()
        claim = self.call(
            lambda store: store.claim(invocation_id, epoch, token=token, worker=worker, lease_ms=LEASE_MS, at_ms=1)
        )
        if isinstance(claim, Claim):
            self.attempts.append(Attempt(claim.lease, len(claim.entries)))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        """An attempt freezes until its lease ended, and the other worker claims its invocation."""
        lease = self.attempt(data).lease
        self.sweep(11)
        self.claim(lease.invocation_id, "w1" if lease.worker == "w2" else "w2", 0)

    def attempt(self, data: st.DataObject) -> Attempt:
        """One of the attempts that somebody believes in; at times a zombie."""
        return self.attempts[data.draw(st.integers(0, len(self.attempts) - 1))]

    def entries(self, attempt: Attempt, data: st.DataObject) -> list[Entry]:
        """Steps and timers at the next indexes."""
        made: list[Entry] = []
        for minutes in data.draw(st.lists(st.sampled_from([0, 0, 1, 5, 20]), max_size=3)):
            made.append(sleep(attempt.commands, minutes * MINUTE_MS) if minutes else run(attempt.commands))
            attempt.commands += 1
        return made

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), progress=st.booleans(), seen=st.sampled_from([0, 0, 0, 0, -1, 5]))
    def append(self, data: st.DataObject, progress: bool, seen: int) -> None:
        """An attempt writes; at times with a wrong idea of the journal's length."""
        attempt = self.attempt(data)
        entries, after, seq = self.entries(attempt, data), max(0, attempt.length + seen), attempt.seq + 1
        answer = self.call(lambda store: store.append(attempt.lease, entries, after=after, seq=seq, progress=progress))
        if isinstance(answer, Appended):
            attempt.seq, attempt.length = seq, answer.length
        else:
            self.attempts.remove(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), way=st.sampled_from(["suspend", "back off", "give_up", "release", "complete"]))
    def leave(self, data: st.DataObject, way: str) -> None:
        """An attempt ends itself, with an outcome or without."""
        attempt = self.attempt(data)
        lease, after, seq = attempt.lease, attempt.length, attempt.seq + 1
        minutes = data.draw(st.integers(1, 5))
        ways: dict[str, Call] = {
            "suspend": lambda store: store.suspend(lease, [], after=after, seq=seq, wake_in_ms=minutes * MINUTE_MS),
            "back off": lambda store: store.back_off(
                lease, [run(0)], after=after, seq=seq, retry_in_ms=minutes * MINUTE_MS, failure="x"
            ),
            "give_up": lambda store: store.give_up(lease, [], after=after, seq=seq, failure="x"),
            "release": lambda store: store.release(lease, [run(0)], after=after, seq=seq),
            "complete": lambda store: store.complete(
                lease,
                [output()],
                after=after,
                seq=seq,
                retention_ms=minutes * MINUTE_MS,
                journal_retention_ms=2 * MINUTE_MS,
                timers=[0, 1],
            ),
        }
        answer = self.call(ways[way])
        if isinstance(answer, Appended):
            attempt.length = answer.length
        else:
            self.attempts.remove(attempt)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def resend(self, data: st.DataObject) -> None:
        """An earlier call arrives again: the last one, or one that a dead connection held back."""
        self.both(self.calls[-data.draw(st.integers(1, min(6, len(self.calls))))])

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """A worker renews one lease."""
        lease = self.attempt(data).lease
        self.call(lambda store: store.renew([lease], lease_ms=LEASE_MS))

    @rule(minutes=st.sampled_from([1, 2, 5, 11]), leases_until_ms=st.sampled_from([ALWAYS_MS, 0]))
    def time_passes(self, minutes: int, leases_until_ms: int) -> None:
        """Time passes, and somebody looks for what is due; at times right after an outage."""
        self.sweep(minutes, leases_until_ms)

    def sweep(self, minutes: int, leases_until_ms: int = ALWAYS_MS) -> None:
        """See `time_passes`."""
        for bench in self.benches:
            self.runner.run(bench.pass_ms(minutes * MINUTE_MS))
        for slot in range(SLOTS):
            self.both(partial(swept, slot=slot, leases_until_ms=leases_until_ms))

    @rule(invocation_id=st.sampled_from(IDS), act=st.sampled_from(["acknowledge", "attach", "expire"]))
    def look(self, invocation_id: InvocationId, act: str) -> None:
        """The outside acts: Kafka acknowledged, a client attached, a worker was found dead."""
        # In the bench's own namespace, which is all that it listens to.
        channels = {id(bench.store): bench.keys.outcomes("attached") for bench in self.benches}
        acts: dict[str, Call] = {
            "acknowledge": lambda store: store.acknowledge(invocation_id, reply=True),
            "attach": lambda store: store.attach(invocation_id, channels[id(store)]),
            "expire": lambda store: store.expire("w2"),
        }
        self.call(acts[act])


async def summary_of(bench: Bench, invocation_id: InvocationId) -> Summary | None:
    """What the model knows of an invocation."""
    return await bench.store.read_invocation(invocation_id)


async def swept(store: Store, slot: int, leases_until_ms: int) -> object:
    """What a sweep found, and the minutes to the next deadline."""
    found = await store.sweep(slot, leases_until_ms=leases_until_ms)
    return found.due, None if found.next_in_ms is None else round(found.next_in_ms / MINUTE_MS)


def shown(answer: object) -> str:
    """An answer as text, without readings of the clock and without the namespace's name."""
    return re.sub(
        r"at_ms=\d+|\"at\":\d+|'\w+:outcome:|'\w+:hints:|'(?:admitted|completed)_at': '\d+'", "", repr(answer)
    )


class Honest(MemoryStore):
    """No bug: what is noticed in the other is the plant."""


class Unfenced(MemoryStore):
    """Planted bug: appends are not fenced."""

    def append(
        self, lease: Lease, entries: Sequence[Entry], *, after: int, seq: int, progress: bool
    ) -> asyncio.Future[Appended]:
        """Append under whatever lease is in force."""
        record = self._record(lease.invocation_id)
        if record is not None and record.token is not None:
            lease = lease._replace(epoch=record.epoch, token=record.token)
        return super().append(lease, entries, after=after, seq=seq, progress=progress)


BOUND = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],
)


def check(
    open_benches: Callable[[AsyncExitStack], Awaitable[Sequence[Bench]]], *, examples_max: int = BOUND.max_examples
) -> None:
    """Run the machine within the bound."""

    class Opened(SideBySide):
        def __init__(self) -> None:
            super().__init__(open_benches)

    run_state_machine_as_test(Opened, settings=settings(BOUND, max_examples=examples_max))


def test_memory_and_redis_are_one_store(redis_url: str) -> None:
    """Whatever two rivals do and however late it arrives, both stores answer and hold the same."""

    async def open_benches(exits: AsyncExitStack) -> Sequence[Bench]:
        name = f"m{system_random().randrange(10**9)}"
        return (MemoryBench(name), await exits.enter_async_context(redis_bench(name, redis_url)))

    check(open_benches)


def test_a_store_without_a_fence_is_noticed() -> None:
    """The property has teeth: a planted bug in `append` is found, and nothing without it."""

    def beside(kind: type[MemoryStore]) -> Callable[[AsyncExitStack], Awaitable[Sequence[Bench]]]:
        async def open_benches(_exits: AsyncExitStack) -> Sequence[Bench]:
            return (MemoryBench("m"), MemoryBench("m", kind))

        return open_benches

    check(beside(Honest))
    with pytest.raises(AssertionError):
        check(beside(Unfenced), examples_max=600)
