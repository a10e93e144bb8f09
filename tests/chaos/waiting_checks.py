"""Judges what clients do beside asking: visits of desks, runs of workflows, records of a subscription. PURE.

Each check yields a sentence for each violation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

from perdure.schemas.entries import Cancelled, Output, Paused, Run, Success
from tests.process.history import History, Story, violations

from .case import LATE_MS, Case, outcome_of
from .request import CANCELLED, CANCELLED_TEXT, FED, KILLED, KILLED_TEXT, OFFER, PAUSED, RUN, VISITS, Request
from .visits import UNDO

_FAILURES: Final = {CANCELLED: CANCELLED_TEXT, KILLED: KILLED_TEXT}

_ASKED_REASON: Final = "paused by an operator"


def visited(case: Case) -> Iterator[str]:
    """A visit ends as was asked for: with the answer that was sent, cancelled, killed, or as if nothing had been."""
    for request in _of_kind(case, *VISITS):
        if request.tag not in case.outcomes:
            continue
        outcome, failure = case.outcomes[request.tag], _FAILURES.get(request.kind)
        if isinstance(outcome, dict):
            if failure is not None and not request.races:
                yield f"{request.tag} was to be {request.kind}, and ended with {outcome!r}, which nobody let it"
            elif outcome.get("value") != request.value:
                yield f"{request.tag} was answered {request.value!r}, and ended with {outcome!r}"
        elif outcome != failure:
            yield f"{request.tag} was {request.kind}, and ended with {outcome!r}"


def compensated(case: Case) -> Iterator[str]:
    """Who had begun and was cancelled has undone it once; nobody else has undone anything."""
    requests = {request.tag: request for request in _of_kind(case, *VISITS)}
    for story in case.chronicle.stories:
        if story.tag not in requests:
            continue
        runs = [row.entry for row in story.entries if isinstance(row.entry, Run)]
        undone = sum(run.name == UNDO and isinstance(run.outcome, Success) for run in runs)
        # Nobody had claimed it before; then its handler never ran.
        begun = any(row.epoch > 0 for row in story.entries if isinstance(row.entry, Output))
        cancelled = case.outcomes[story.tag] == CANCELLED_TEXT
        if cancelled and begun and undone != 1:
            yield f"{story.tag} was cancelled when it had begun, and has undone it {undone} times"
        if cancelled and not story.of_type(Cancelled):
            yield f"{story.tag} ended as cancelled, and its journal has no cancellation"
        if case.touched_by_loss(story):
            continue
        executed = any(effect.step == UNDO for effect in case.effects[story.invocation_id])
        if executed and not story.of_type(Cancelled):
            yield f"{story.tag} was undone, and its journal has no cancellation"


def accepted(case: Case) -> Iterator[str]:
    """What Redis has taken it keeps, but for a loss: what an insisting client does again finds itself known."""
    for request in case.chronicle.requests:
        for what in {what for what, _ in request.accepted}:
            times = [at_ms for each, at_ms in request.accepted if each == what]
            for before_ms, after_ms in pairwise(times):
                if not _lost(case, before_ms):
                    yield f"{request.tag}: its {what} was taken, and taken again {after_ms - before_ms} ms later"


def paused(case: Case) -> Iterator[str]:
    """Nothing is paused but what a client wanted to be: a client's resumptions hide no other reason."""
    for story in case.chronicle.stories:
        for row in story.entries:
            if isinstance(row.entry, Paused) and (case.kind_of(story), row.entry.reason) != (PAUSED, _ASKED_REASON):
                yield f"{story.tag} was paused: {row.entry.reason}"


def settled(case: Case) -> Iterator[str]:
    """Each key of a workflow has one run, which ends with what its promise was completed with first."""
    offers = {request.key: request for request in _of_kind(case, OFFER)}
    for request in _of_kind(case, RUN):
        if len(set(request.ids)) > 1:
            yield f"{request.tag} was sent {len(request.ids)} times, and is {len(set(request.ids))} invocations"
        offer, outcome = offers.get(request.key), case.outcomes.get(request.tag)
        if request.tag not in case.outcomes:
            continue
        value = outcome.get("value") if isinstance(outcome, dict) else outcome
        if value not in (request.value, offer and offer.value):
            yield f"{request.tag} ended with {outcome!r}, which nobody offered"
        if request.promised and request.promised != value and not _lost(case, request.outcome_ms):
            yield f"{request.tag} ended with {value!r}, and its promise holds {request.promised!r}"
        yield from _first(case, request, offer, value)


def _first(case: Case, request: Request, offer: Request | None, value: Any) -> Iterator[str]:
    """Who was told that his value was the first is right, but for what was lost then or later was lost with it."""
    times = [at_ms for what, at_ms in request.accepted if what == "promise"]
    if times and value != request.value and not _lost(case, times[-1]):
        yield f"{request.tag} ended with {value!r}, and {request.value!r} was its promise's first"
    told = case.outcomes.get(offer.tag) if offer is not None else None
    if offer is None or not isinstance(told, dict):
        return
    times = [offer.sent_ms, *(effect.at_ms for effect in case.effects[case.ids[offer.tag]])]
    if told.get("value") not in ("", value) and not case.lost_around(min(times), max(offer.outcome_ms, *times)):
        yield f"{request.tag} ended with {value!r}, and {told['value']!r} was its promise's first"


def fed(case: Case) -> Iterator[str]:
    """Each record that Kafka has is processed once, those of one key in their order; none is lost."""
    records = {request.tag: request for request in _of_kind(case, FED)}
    for request in records.values():
        if request.acknowledged_ms and request.tag not in case.outcomes:
            yield f"{request.tag}, a record of a subscription, was acknowledged by Kafka and Redis does not know it"
    taken = [_taken(story) for story in case.chronicle.stories if story.tag in records]
    # The same try may stand there twice, since its producer repeats it; the same record may not be taken twice.
    for place, count in Counter((partition, offset) for _, _, partition, offset in taken).items():
        if count > 1:
            yield f"the record at {place} is {count} invocations"
    offsets: dict[tuple[str, int], list[int]] = defaultdict(list)
    places = {invocation_id: (key, partition, offset) for invocation_id, key, partition, offset in taken}
    for effect in case.chronicle.effects:
        if effect.invocation_id in places and effect.execution in case.recorded:
            key, partition, offset = places[effect.invocation_id]
            offsets[key, partition].append(offset)
    for (key, partition), order in offsets.items():
        if not all(before < after for before, after in pairwise(order)):
            yield f"records of {key} in partition {partition} were taken in the order of their offsets {order}"


def fed_stories(case: Case) -> Iterator[str]:
    """What holds for each invocation of a record by itself."""
    for story in _stories(case, FED):
        effects = case.effects[story.invocation_id]
        kept = not case.touched_by_loss(story)
        yield from violations(History([], [story], effects, epochs_kept=kept))


def _taken(story: Story) -> tuple[str, str, int, int]:
    outcome = outcome_of(story)
    if not isinstance(outcome, dict):
        return story.invocation_id, "", -1, -1
    return story.invocation_id, outcome["key"], outcome["partition"], outcome["offset"]


def _stories(case: Case, kind: str) -> Iterable[Story]:
    tags = {request.tag for request in _of_kind(case, kind)}
    return [story for story in case.chronicle.stories if story.tag in tags]


def _of_kind(case: Case, *kinds: str) -> list[Request]:
    return [request for request in case.chronicle.requests if request.kind in kinds]


def _lost(case: Case, at_ms: int) -> bool:
    """Whether that may have been lost which a client was told at that time."""
    return case.lost_around(at_ms - LATE_MS, at_ms)
