"""Judges a round: each check yields a sentence for each violation. PURE.

What holds for each invocation by itself is `tests.process.history`; here is what holds between them, and between them
and what was done to the system. The order of effects is that of their lines, which one file gives to all processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from perdure.schemas.entries import Run, Sleep
from tests.process.history import History, violations

from .case import LATE_MS, Case
from .chronicle import Balance, Chronicle
from .request import CANCELLED, FED, KILLED, VISITS, Request
from .schedule import Kind
from .waiting_checks import accepted, compensated, fed, fed_stories, paused, settled, visited

REACH_MS: Final = 6_000
"""How far from an event an execution may be that it explains. Before: the execution that it cut off may have begun
then. After: a lease and a session have to end, and who wakes goes on until he is refused."""

_STALLS: Final = ("stalled", "blocked")


def judge(chronicle: Chronicle) -> list[str]:
    """Everything that is wrong with a round, in sentences; empty where all guarantees held."""
    case = Case(chronicle)
    checks: tuple[Iterable[str], ...] = (
        _each_by_itself(case),
        _told(case),
        _kept(case),
        _balances(case),
        _order(case),
        _alone(case),
        _explained(case),
        _waited(case),
        _delayed(case),
        visited(case),
        compensated(case),
        accepted(case),
        paused(case),
        settled(case),
        fed(case),
        fed_stories(case),
        (f"left behind: {what}" for what in chronicle.left),
        chronicle.ends,
        [f"{chronicle.dead_letters} records went to the dead letters"] * bool(chronicle.dead_letters),
    )
    return [sentence for check in checks for sentence in check]


def repeats(chronicle: Chronicle) -> int:
    """How many executions are not the one that a journal holds, failures on purpose aside."""
    case = Case(chronicle)
    return sum(not effect.fails and effect.execution not in case.recorded for effect in chronicle.effects)


def _each_by_itself(case: Case) -> Iterator[str]:
    """One outcome for each record and for each call; positions, steps and their repeats, idempotency keys.

    Records of subscriptions have more than one try: `fed` judges them.
    """
    chronicle = case.chronicle
    requests = [request for request in chronicle.requests if request.kind != FED]
    acknowledged = [tag for request in requests if request.acknowledged_ms for tag in request.tags]
    ended = frozenset(request.tag for request in requests if request.kind in (CANCELLED, KILLED))
    clocks_true = not any(deed.kind is Kind.CLOCK for deed in chronicle.deeds)
    apart = {story.invocation_id for story in chronicle.stories if case.kind_of(story) == FED} | chronicle.shed.keys()
    stories = [story for story in chronicle.stories if story.invocation_id not in apart]
    touched = [story for story in stories if case.touched_by_loss(story)]
    ids = {story.invocation_id for story in touched}
    for some, epochs_kept in ((touched, False), ([s for s in stories if s not in touched], True)):
        tags = {story.tag for story in some}
        yield from violations(
            History(
                [tag for tag in acknowledged if tag in tags],
                some,
                [
                    effect
                    for effect in chronicle.effects
                    if (effect.invocation_id in ids) is not epochs_kept and effect.invocation_id not in apart
                ],
                epochs_kept=epochs_kept,
                clocks_true=clocks_true,
                ended=ended,
            )
        )
    for tag in acknowledged:
        if tag not in case.outcomes:
            yield f"{tag} was acknowledged by Kafka and Redis does not know it"
    for request in requests:
        if not request.acknowledged_ms:
            yield f"{request.tag} was never acknowledged"


def _told(case: Case) -> Iterator[str]:
    """Clients were told what is recorded; something else only before a loss."""
    for request in case.chronicle.requests:
        if request.tag not in case.outcomes or not request.awaited:
            continue
        outcome = case.outcomes[request.tag]
        if not request.outcome_ms:
            yield f"nobody was told the outcome of {request.tag}"
        elif request.outcome != outcome and not case.lost_around(request.outcome_ms - LATE_MS, request.outcome_ms):
            yield f"{request.tag}: a client was told {request.outcome!r}, and {outcome!r} is recorded"


def _kept(case: Case) -> Iterator[str]:
    """What has completed stays so, but for a loss; its journal is kept, but where Redis is full."""
    for invocation_id, first_ms, again_ms in case.chronicle.again:
        if not case.lost_around(first_ms, first_ms):
            tag = case.tags.get(invocation_id, invocation_id)
            yield f"{tag} was completed again, {again_ms - first_ms} ms after its outcome"
    if case.chronicle.shed and not any(deed.kind is Kind.REDIS_FULL for deed in case.chronicle.deeds):
        yield f"journals are gone before their retention has passed: {sorted(case.chronicle.shed)}"


def _balances(case: Case) -> Iterator[str]:
    """Each order is one addition, and no addition is lost or made twice."""
    for account, receipts in _receipts(case).items():
        before, after = case.chronicle.before.get(account, Balance()), case.chronicle.after.get(account, Balance())
        places = [place for place, _, _, _ in receipts]
        if places != list(range(before.additions + 1, before.additions + 1 + len(receipts))):
            yield f"{account}: additions have the places {places} after {before.additions}"
        total = before.total
        for place, told, amount, tag in receipts:
            total += amount
            if told != total:
                yield f"{account}: after {tag}, addition {place}, it held {told} and not {total}"
        if after != Balance(before.additions + len(receipts), total):
            yield f"{account} holds {after} and not {Balance(before.additions + len(receipts), total)}"


def _order(case: Case) -> Iterator[str]:
    """A client's orders to one account are done in the order in which Kafka has them.

    A topic that gets another partition has a key's later records somewhere else, once, from a moment on that only the
    producer knows: before it and after it the order holds.
    """
    grown = any(deed.kind is Kind.PARTITIONS for deed in case.chronicle.deeds)
    numbers = {request.tag: request.number for request in case.chronicle.requests if request.kind == "order"}
    for account, receipts in _receipts(case).items():
        done = [numbers[tag] for _, _, _, tag in receipts if tag in numbers]
        if _in_order(done):
            continue
        moments = sorted(done) if grown else []
        if not any(_in_order(n for n in done if n < m) and _in_order(n for n in done if n >= m) for m in moments):
            yield f"{account}: orders were done in the order {done}"


def _alone(case: Case) -> Iterator[str]:
    """Between two recorded steps of one order nobody else has one on the same account; likewise visits of a desk."""
    lines: dict[str, list[str]] = defaultdict(list)
    accounts = {tag: account for request in case.chronicle.requests for tag, (account, _) in request.orders.items()}
    accounts |= {request.tag: request.key for request in case.chronicle.requests if request.kind in VISITS}
    for effect in case.chronicle.effects:
        tag = case.tags.get(effect.invocation_id, "")
        if tag in accounts and effect.execution in case.recorded:
            lines[accounts[tag]].append(tag)
    for account, order in lines.items():
        blocks = Counter([tag for tag, after in pairwise([*order, ""]) if tag != after])
        for tag, count in blocks.items():
            if count > 1:
                yield f"{account}: others worked on it while {tag} held it"


def _explained(case: Case) -> Iterator[str]:
    """An execution that no journal holds was cut off or overtaken by something that was done to its worker."""
    chronicle = case.chronicle
    spans = [(deed.begin_ms, deed.end_ms, deed.pids) for deed in chronicle.deeds]
    spans += [
        (mark.begin_ms, mark.end_ms, (mark.pid,) if mark.pid else ())
        for mark in chronicle.marks
        if mark.kind in _STALLS
    ]
    for effect in chronicle.effects:
        if effect.fails or effect.execution in case.recorded or case.cut_off(effect):
            continue
        if not any(
            begin_ms - REACH_MS <= effect.at_ms <= end_ms + REACH_MS and (not pids or effect.pid in pids)
            for begin_ms, end_ms, pids in spans
        ):
            tag = case.tags.get(effect.invocation_id, effect.invocation_id)
            yield f"{tag}: step {effect.step} was executed as {effect.execution}, not recorded, and nothing explains it"


def _waited(case: Case) -> Iterator[str]:
    """What comes after a durable timer begins so much later than what came before it, by a clock that nobody moves."""
    for story in case.chronicle.stories:
        began: dict[str, list[int]] = defaultdict(list)
        for effect in case.effects[story.invocation_id]:
            began[effect.step].append(effect.at_ms)
        runs = [row.entry for row in story.entries if isinstance(row.entry, Run)]
        for row in story.entries:
            if not isinstance(row.entry, Sleep):
                continue
            index, duration_ms = row.entry.command_index, row.entry.duration_ms
            before = [run.name for run in runs if run.command_index < index]
            after = [run.name for run in runs if run.command_index > index]
            from_ms = max((min(began[name]) for name in before if began[name]), default=None)
            to_ms = min((min(began[name]) for name in after if began[name]), default=None)
            # Two readings, each rounded down.
            if from_ms is not None and to_ms is not None and to_ms - from_ms < duration_ms - 1:
                yield f"{story.tag}: its timer of {duration_ms} ms had fired after {to_ms - from_ms} ms"


def _delayed(case: Case) -> Iterator[str]:
    """A delayed invocation does not begin before its time."""
    for request in case.chronicle.requests:
        if request.tag not in case.ids or not request.not_before_ms:
            continue
        first_ms = min((effect.at_ms for effect in case.effects[case.ids[request.tag]]), default=None)
        if first_ms is not None and first_ms < request.not_before_ms - 1:
            yield f"{request.tag} began {request.not_before_ms - first_ms} ms before its time"


def _receipts(case: Case) -> Mapping[str, list[tuple[int, int, int, str]]]:
    """For each account the additions to it: place, total, amount, tag, in the order of their places."""
    found: dict[str, list[tuple[int, int, int, str]]] = defaultdict(list)
    for request in case.chronicle.requests:
        for tag, (account, amount) in request.orders.items():
            outcome = case.outcomes.get(tag)
            if isinstance(outcome, dict):
                found[account].append((outcome.get("place", 0), outcome.get("total", 0), amount, tag))
    return {account: sorted(receipts) for account, receipts in found.items()}


def _in_order(numbers: Iterable[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


def unanswered(requests: Sequence[Request]) -> int:
    """How many requests nobody was told the outcome of who waits for it."""
    return sum(request.awaited and not request.outcome_ms for request in requests)
