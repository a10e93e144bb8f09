"""What the demo saw, judged: everything here comes from the journal in Redis and from the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from examples.ledger import Effect
from examples.subscriptions import Added, AddRequest
from perdure.schemas.entries import AttemptStarted, Input, Output, Positioned, Run, StepFailed, Success

PAYMENT_STEP = "recurring payment"


class Worker(NamedTuple):
    """One worker process."""

    name: str
    pid: int


class Evidence(NamedTuple):
    """What is known of one invocation.

    Attributes:
        id: Its id.
        request: What was asked for.
        killed: The worker that was killed.
        journal: Every entry, oldest first.
        effects: Every execution that the ledger counted, oldest first.
    """

    id: str
    request: AddRequest
    killed: Worker
    journal: Sequence[Positioned]
    effects: Sequence[Effect]

    @property
    def attempts(self) -> dict[int, str]:
        """The worker of each attempt."""
        workers = {}
        for _, epoch, entry in self.journal:
            if isinstance(entry, Input):
                workers[1] = entry.worker
            elif isinstance(entry, AttemptStarted):
                workers[epoch] = entry.worker
        return workers

    def steps_of(self, attempt: int) -> list[str]:
        """Names of the steps whose results this attempt wrote."""
        return [entry.name for _, epoch, entry in self.journal if epoch == attempt and isinstance(entry, Run)]

    def failures_of(self, attempt: int) -> int:
        """How many failed executions of steps this attempt wrote."""
        return sum(epoch == attempt and isinstance(entry, StepFailed) for _, epoch, entry in self.journal)

    @property
    def result(self) -> Added | None:
        """The result that is recorded."""
        for _, _, entry in self.journal:
            if isinstance(entry, Output) and isinstance(entry.outcome, Success):
                return Added.model_validate_json(entry.outcome.value)
        return None

    @property
    def recorded_payment(self) -> bytes | None:
        """The result of the payment step, as it stands in the journal."""
        for _, _, entry in self.journal:
            if isinstance(entry, Run) and entry.name == PAYMENT_STEP and isinstance(entry.outcome, Success):
                return entry.outcome.value
        return None

    @property
    def tries(self) -> Mapping[str, tuple[int, int]]:
        """For each effect how often it was asked for, and how often it took place."""
        asked = Counter(effect.name for effect in self.effects)
        done = Counter(effect.name for effect in self.effects if effect.done)
        return {name: (asked[name], done[name]) for name in asked}


def problems(evidence: Evidence) -> list[str]:
    """Say what is not as Perdure promises; nothing where all is well."""
    return [*_of_attempts(evidence), *_of_effects(evidence), *_of_result(evidence)]


def _of_attempts(evidence: Evidence) -> list[str]:
    found = []
    first, last = evidence.attempts.get(1), evidence.attempts.get(max(evidence.attempts, default=0))
    if len(evidence.attempts) < 2:
        found.append("There was no second attempt.")
    if first != evidence.killed.name:
        found.append(f"The killed worker {evidence.killed.name} did not run the first attempt, {first} did.")
    elif last == evidence.killed.name:
        found.append(f"The last attempt ran on the dead worker {last}.")
    if PAYMENT_STEP not in evidence.steps_of(1):
        found.append("The payment was not recorded by the first attempt.")
    steps = Counter(name for attempt in evidence.attempts for name in evidence.steps_of(attempt))
    found += [f"The step {name!r} stands {count} times in the journal." for name, count in steps.items() if count > 1]
    return found


def _of_effects(evidence: Evidence) -> list[str]:
    found = []
    asked, done = evidence.tries.get("charge", (0, 0))
    if (asked, done) != (1, 1):
        found.append(f"The card was charged {done} times in {asked} tries.")
    chargers = {effect.pid for effect in evidence.effects if effect.name == "charge"}
    found += [f"Process {pid} charged the card, too." for pid in sorted(chargers - {evidence.killed.pid})]
    for name in evidence.request.subscriptions:
        mine = [effect for effect in evidence.effects if effect.name == f"subscribe {name}"]
        refused = sum(not effect.done for effect in mine)
        before = sum(effect.done for effect in mine if effect.pid == evidence.killed.pid)
        after = sum(effect.done for effect in mine) - before
        recorded_before = f"subscription {name}" in evidence.steps_of(1)
        # What the kill cut between the effect and its entry may be done again: so much is promised, and no more.
        if before > 1 or after != (0 if recorded_before else 1):
            found.append(f"{name} was added {before} times before the kill and {after} times after it.")
        if refused != evidence.request.refusals.get(name, 0):
            found.append(f"The provider of {name} refused {refused} times.")
    return found


def _of_result(evidence: Evidence) -> list[str]:
    result = evidence.result
    if result is None:
        return ["There is no successful outcome in the journal."]
    found = []
    if result.subscriptions != evidence.request.subscriptions:
        found.append(f"The outcome names {result.subscriptions}, and {evidence.request.subscriptions} were ordered.")
    if evidence.recorded_payment != f'"{result.payment}"'.encode():
        found.append(f"The outcome's payment {result.payment} is not the recorded one ({evidence.recorded_payment!r}).")
    return found
