"""Two stores side by side: rival workers, people and callers, every call sent again later, time that passes.

After each step both have given the same answer and hold the same (clock readings left aside).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from perdure.journal.store import ALWAYS_MS, Appended, Claim, Claimed, Lease, Store, Summary
from perdure.schemas.commands import Awakeable, ClearAll, ClearState, Send, SetState
from perdure.schemas.entries import Cancelled, Completion, Entry, Failure, Output, Signalled, Success
from perdure.schemas.errors import FencedError, GapError
from perdure.schemas.ids import InvocationId, id_of_workflow, place_of_object
from tests.journal.store_contract import MINUTE_MS, SLOTS, Bench, Dump, admission, output, run, sleep

LEASE_MS = 10 * MINUTE_MS
WORKERS = ("w1", "w2")
TARGET, FLOW = "Greeter/k", "Greeter/w"


def _in_place(place: int, number: int) -> InvocationId:
    return InvocationId(f"inv_{place:03x}{number:024x}")


# Who there is: two of a service, four that want one object, one shared handler of it, a workflow's run and a handler.
KINDS: dict[InvocationId, dict[str, Any]] = {
    **{_in_place(place, 0): {} for place in (0, 1)},
    **{_in_place(place_of_object("Greeter", "k"), n): {"key": "k", "mode": "exclusive"} for n in range(1, 5)},
    _in_place(place_of_object("Greeter", "k"), 9): {"key": "k"},
    id_of_workflow("Greeter", "w"): {"key": "w", "mode": "main"},
    _in_place(place_of_object("Greeter", "w"), 9): {"key": "w"},
}
IDS = tuple(KINDS)
OF_FLOW = IDS[-2:]
CALLER = f"{IDS[0]}:3:4"
ONE = Success(b"1")
NUMBERS = st.integers(0, 999)

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
            plain[key] = {
                name: TIMES.sub(b"", text.encode()) for name, text in value.items() if name not in TIME_FIELDS
            }
        elif isinstance(value, list) and ":journal:" in key:
            plain[key] = [(*place, kind, TIMES.sub(b"", body)) for *place, kind, body in value]
        elif isinstance(value, dict) and key.endswith("due"):
            plain[key] = {member: max(0, round((score - now_ms) / MINUTE_MS)) for member, score in value.items()}
        elif isinstance(value, dict) and ":status:" in key:
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
        self.admitted: list[InvocationId] = []
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

    def one(self, number: int) -> InvocationId:
        """Mostly one that was admitted, at times any other."""
        known = self.admitted if self.admitted and number % 8 else IDS
        return known[number % len(known)]

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
        caller=st.sampled_from(["", "", CALLER]),
        queue_max=st.sampled_from([1, 2, 9]),
    )
    def record(self, invocation_id: InvocationId, worker: str, **drawn: Any) -> None:
        """A record arrives, or a call."""
        self.admit(invocation_id, worker, **drawn)

    def admit(
        self,
        invocation_id: InvocationId,
        worker: str,
        *,
        reply_to: str = "",
        waiter: str = "",
        delay: int = 0,
        caller: str = "",
        queue_max: int = 9,
    ) -> None:
        """See `record`."""
        kind = KINDS[invocation_id]
        told = {"reply_to": reply_to, "caller": caller}
        asked = admission(invocation_id, token=self.token(), worker=worker, queue_max=queue_max, **told, **kind)
        self.admitted.append(invocation_id)
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

    @initialize(ids=st.lists(st.sampled_from(IDS), min_size=3, max_size=6))
    def begin(self, ids: list[InvocationId]) -> None:
        """Some are there, whatever the example leaves out."""
        for invocation_id in ids:
            self.admit(invocation_id, "w1")

    @rule(number=NUMBERS, worker=st.sampled_from(WORKERS), lag=st.sampled_from([0, 0, 0, 1]))
    def resume(self, number: int, worker: str, lag: int) -> None:
        """A resume record arrives, at times a stale one."""
        self.claim(self.one(number), worker, lag)

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
        """Commands at the next indexes."""
        made: list[Entry] = []
        kinds = ["run", "run", 1, 5, 20, "send", "awakeable"]
        if attempt.lease.target:
            kinds += ["set a", "set b", "set b", "clear a", "clear all"]
        for kind in data.draw(st.lists(st.sampled_from(kinds), max_size=3)):
            index = attempt.commands
            match kind:
                case int():
                    made.append(sleep(index, kind * MINUTE_MS))
                case "send":
                    made.append(Send(index, 5, "S", "h", None, IDS[0], "", (), 0, b"1"))
                case "awakeable":
                    made.append(Awakeable(index, 5))
                case "set a" | "set b":
                    made.append(SetState(index, kind[-1], b"1" if index % 2 else b"\xff"))
                case "clear a":
                    made.append(ClearState(index, "a"))
                case "clear all":
                    made.append(ClearAll(index))
                case _:
                    made.append(run(index))
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
        last = self.entries(attempt, data)
        ways: dict[str, Call] = {
            "suspend": lambda store: store.suspend(lease, [], after=after, seq=seq, wake_in_ms=minutes * MINUTE_MS),
            "back off": lambda store: store.back_off(
                lease, last, after=after, seq=seq, retry_in_ms=minutes * MINUTE_MS, failure="x"
            ),
            "give_up": lambda store: store.give_up(lease, [], after=after, seq=seq, failure="x"),
            "release": lambda store: store.release(lease, last, after=after, seq=seq),
            "complete": lambda store: store.complete(
                lease,
                [*last, output()],
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

    @rule(minutes=st.sampled_from([1, 2, 5, 11, 61]), leases_until_ms=st.sampled_from([ALWAYS_MS, 0]))
    def time_passes(self, minutes: int, leases_until_ms: int) -> None:
        """Time passes, and somebody looks for what is due; at times right after an outage."""
        self.sweep(minutes, leases_until_ms)

    def sweep(self, minutes: int, leases_until_ms: int = ALWAYS_MS) -> None:
        """See `time_passes`."""
        for bench in self.benches:
            self.runner.run(bench.pass_ms(minutes * MINUTE_MS))
        for slot in range(SLOTS):
            self.both(partial(swept, slot=slot, leases_until_ms=leases_until_ms))

    @rule(
        number=NUMBERS,
        act=st.sampled_from(["acknowledge", "acknowledge", "attach", "attach a caller", "expire"]),
        sent=st.lists(st.integers(2, 6), max_size=5),
        cascade=st.booleans(),
    )
    def look(self, number: int, act: str, sent: list[int], cascade: bool) -> None:
        """The outside acts: something was acknowledged, a client attached, a worker was found dead."""
        invocation_id = self.one(number)
        # In the bench's own namespace, which is all that it listens to.
        channels = {id(bench.store): bench.keys.outcomes("attached") for bench in self.benches}
        acts: dict[str, Call] = {
            "acknowledge": lambda store: store.acknowledge(invocation_id, reply=True, sent=sent, cascade=cascade),
            "attach": lambda store: store.attach(invocation_id, channels[id(store)]),
            "attach a caller": lambda store: store.attach(invocation_id, "", caller=CALLER),
            "expire": lambda store: store.expire("w2"),
        }
        self.call(acts[act])

    @rule(number=NUMBERS, entry=st.sampled_from([Signalled("go", 5, ONE), Cancelled(5)]), name=st.integers(1, 3))
    def deliver(self, number: int, entry: Signalled | Cancelled, name: int) -> None:
        """Something comes from outside."""
        invocation_id, once = self.one(number), f"{type(entry).__name__}:{name}"
        self.call(lambda store: store.deliver(invocation_id, entry, once=once))

    @rule(number=NUMBERS, answers=st.lists(st.tuples(st.integers(2, 5), st.integers(1, 4)), min_size=1))
    def answer(self, number: int, answers: list[tuple[int, int]]) -> None:
        """Results of commands come."""
        brought = [(position, Completion(index, 5, ONE)) for position, index in answers]
        self.call(lambda store: store.answer(self.one(number), brought))

    @rule(number=NUMBERS, act=st.sampled_from(["kill", "pause", "pause", "resume", "resume", "purge"]))
    def control(self, number: int, act: str) -> None:
        """Somebody takes matters into their own hands."""
        invocation_id = self.one(number)
        acts: dict[str, Call] = {
            "kill": lambda store: store.kill(invocation_id, Output(5, Failure(500, "killed", {}))),
            "pause": lambda store: store.pause(invocation_id, at_ms=5, reason="look"),
            "resume": lambda store: store.resume(invocation_id, at_ms=5),
            "purge": lambda store: store.purge(invocation_id),
        }
        self.call(acts[act])

    @rule(
        invocation_id=st.sampled_from(OF_FLOW),
        act=st.sampled_from(["await", "await", "complete", "peek"]),
        name=st.sampled_from("pq"),
        number=st.integers(1, 2),
    )
    def promise(self, invocation_id: InvocationId, act: str, name: str, number: int) -> None:
        """Somebody waits for a promise, completes it, looks at it."""
        acts: dict[str, Call] = {
            "await": lambda store: store.await_promise(FLOW, name, invocation_id, number),
            "complete": lambda store: store.complete_promise(FLOW, name, ONE, by=f"b{number}"),
            "peek": lambda store: store.peek_promise(FLOW, name),
        }
        self.call(acts[act])

    @rule(
        of=st.sampled_from([TARGET, FLOW]),
        value=st.sampled_from([None, b"2", b"\x00"]),
        clear=st.booleans(),
        force=st.booleans(),
    )
    def edit(self, of: str, value: bytes | None, clear: bool, force: bool) -> None:
        """Somebody changes state from outside."""
        self.call(lambda store: store.edit_state(of, [("a", value), ("c", b"3")], clear=clear, force=force))
        self.both(lambda store: store.read_state(of))
        self.both(lambda store: store.read_names(of))


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
