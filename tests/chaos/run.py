"""A run: rounds of load and strikes on one namespace, each with quiet and a verdict behind it; at the end, the keys."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perdure.journal.inspection import InvocationView, view_of
from perdure.journal.redis_store import RedisStore
from perdure.schemas.entries import Failure, Success
from perdure.schemas.errors import BrokerError
from perdure.schemas.ids import InvocationId
from perdure.worker.client import Client
from perdure.worker.clock import SystemClock
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.sender import Sender
from perdure.worker.settings import Settings
from perdure.worker.topics import consumed_topics, dead_letter_topic
from tests.process.effects import Effect, Effects
from tests.process.history import Story
from tests.standing import INVOCATIONS_MAX, journals, lag, left_behind, progress, records_ever

from .checker import judge, repeats, unanswered
from .chronicle import Again, Balance, Chronicle, Shed
from .feed import FEED_GROUP, FEED_TOPIC
from .fleet import Fleet
from .insisting import Insister
from .leftovers import leftovers
from .marks import Marks
from .meanwhile import meanwhile
from .nemesis import Nemesis
from .request import Request, failure_text
from .requests import ACCOUNTS, Requester, account_of, answer
from .scale import Scale
from .schedule import make_schedule
from .tally import Tally
from .written import write_down

SERVICES = ("Work", "Account", "Courier", "Desk", "Flow", "Feed")

LOOK_S = 0.5

COLLECT_S = 1.0

EXPIRY_S = 60.0
"""Beyond the retention, for sweeps that take what has expired out of the indexes."""


@dataclass
class Collected:
    """What was read of a round's invocations: journals, and outcomes of those that have none any more.

    Attributes:
        completed: When each of them was, by Redis's clock, of which the machine's may drift away.
        stories: By id.
        shed: Outcomes, by id.
        again: Those that were completed more than once.
    """

    completed: dict[str, int] = field(default_factory=dict)
    stories: dict[str, Story] = field(default_factory=dict)
    shed: dict[str, Shed] = field(default_factory=dict)
    again: list[Again] = field(default_factory=list)


class Run:
    """A namespace under chaos.

    Args:
        scale: How long, how much, what.
        settings: Of the namespace, on Redis itself.
        fleet: Its workers.
        nemesis: What befalls them.
        client: Of clients.
        sender: Of those who produce what is subscribed to.
        store: Of the judge.
        directory: Where all of them write.
        say: Prints a line.
    """

    def __init__(
        self,
        scale: Scale,
        *,
        settings: Settings,
        fleet: Fleet,
        nemesis: Nemesis,
        client: Client,
        sender: Sender,
        store: RedisStore,
        directory: Path,
        say: Callable[[str], None],
    ) -> None:
        self.tally = Tally()
        self._scale = scale
        self._settings = settings
        self._fleet = fleet
        self._nemesis = nemesis
        self._client = client
        self._sender = sender
        self._store = store
        self._directory = directory
        self._say = say
        self._marks = Marks(directory)
        self._judged: set[str] = set()
        self._numbers: defaultdict[str, int] = defaultdict(int)

    async def rounds(self) -> None:
        """Round after round until the time is over, or something is wrong; then wait until all of it has expired."""
        deadline, number = time.monotonic() + self._scale.duration_s, 0
        async with self._fleet.kept(), meanwhile(self._nemesis.watch_itself(), answer(self._client, self._marks)):
            while number == 0 or time.monotonic() + self._scale.round_s <= deadline:
                await self._round(self._scale.seed + number)
                if self.tally.violations:
                    return
                number += 1
            await self._expired()

    async def _round(self, seed: int) -> None:
        scale, tally = self._scale, self.tally
        schedule = make_schedule(seed, duration_s=scale.round_s, kinds=scale.kinds, gap_s=scale.gap_s)
        self._say(f"round of seed {seed}: " + ", ".join(f"{s.at_s:.1f} {s.kind}" for s in schedule))
        name, chance = f"s{seed}", random.Random(f"load {seed}")
        requester = Requester(
            self._client, self._sender, name=name, rate=scale.rate, chance=chance, numbers=self._numbers
        )
        insister = Insister(self._client, requester.requests)
        before, deeds, missed = await self._balances(), len(self._nemesis.deeds), len(self._nemesis.missed)
        collected = Collected()
        async with meanwhile(requester.run(scale.round_s), insister.run()) as (asking, _):
            async with meanwhile(self._collect_often(collected, requester.requests)):
                await self._nemesis.carry_out(schedule)
            tally.violations += await self._quiet(requester, asking, collected)
        self._judged |= collected.completed.keys()
        chronicle = Chronicle(
            requests=requester.requests,
            stories=list(collected.stories.values()),
            effects=self._effects_of(collected),
            deeds=self._nemesis.deeds[deeds:],
            marks=self._marks.read(),
            shed=collected.shed,
            again=collected.again,
            before=before,
            after=await self._balances(),
            ends=self._fleet.unexplained_ends(),
            dead_letters=await records_ever(self._kafka, dead_letter_topic(self._settings.namespace)),
        )
        write_down(self._directory / f"history-{seed}.jsonl", chronicle, schedule)
        tally.violations += judge(chronicle)
        tally.add(chronicle)
        tally.missed += self._nemesis.missed[missed:]
        self._say(
            f"  {len(requester.requests)} requests, {len(collected.completed)} invocations, "
            f"{len(chronicle.effects)} executions, {repeats(chronicle)} of them in no journal; "
            f"{len(tally.violations)} violations"
        )

    async def _quiet(self, requester: Requester, asking: asyncio.Task[None], collected: Collected) -> list[str]:
        """Wait until nothing is left to do, or nothing moves any more; returns what is wrong then.

        What has completed is read as soon as it has: it is not kept for ever.
        """
        began, moved = time.monotonic(), time.monotonic()
        last: object = None
        while True:
            await self._collect(collected, requester.requests)
            completed, unfinished = await progress(self._store, self._settings)
            idle = asking.done() and not unfinished
            left = await left_behind(self._store, self._settings) if idle else []
            behind = await self._lag() if idle and not left else {}
            if idle and not left and not behind:
                await self._collect(collected, requester.requests)
                asking.result()
                self.tally.quiet_s_max = max(self.tally.quiet_s_max, time.monotonic() - began)
                return []
            views = [(view.id, view.status, view.entries, view.attempts) for view in unfinished]
            seen = (completed, unanswered(requester.requests), len(left), sorted(behind.items()), views)
            if seen != last:
                last, moved = seen, time.monotonic()
            if time.monotonic() - moved > self._scale.patience_s:
                what = (
                    f"Nothing moved for {self._scale.patience_s:g} s: {unanswered(requester.requests)} requests have "
                    f"no outcome, {len(unfinished)} invocations are not completed, left behind: {left[:20]}, "
                    f"not committed: {behind}.\n{await journals(self._store, unfinished)}"
                )
                return [what]
            await asyncio.sleep(LOOK_S)

    async def _collect_often(self, collected: Collected, requests: list[Request]) -> None:
        """Read what has completed, until cancelled: it is not kept for ever, and for less where Redis gets full."""
        while True:
            await asyncio.sleep(COLLECT_S)
            await self._collect(collected, requests)

    async def _collect(self, collected: Collected, requests: list[Request]) -> None:
        """Read what has completed, and what has completed again because its outcome was lost."""
        tags = {tag for request in requests for tag in request.tags}
        by_id = {invocation_id: request.tag for request in requests for invocation_id in request.ids}
        offset_ms = SystemClock().now_ms() - int(SystemClock().monotonic_ms())
        for summary in await self._store.list_invocations("completed", invocations_max=INVOCATIONS_MAX):
            view = view_of(summary)
            invocation_id, completed_ms = view.id, view.completed_at_ms or 0
            known_ms = collected.completed.get(invocation_id)
            if invocation_id in self._judged or known_ms == completed_ms or view.status != "completed":
                # The last: Redis lost it between the index and its hash.
                continue
            entries = await self._store.read_journal(InvocationId(invocation_id))
            shed = _shed(view, by_id)
            story = Story(invocation_id, view.status, entries)
            if entries and entries[0].position == 1 and story.tag in tags:
                collected.stories[invocation_id] = story
                collected.shed.pop(invocation_id, None)
            elif shed.tag in tags and not entries:
                collected.shed[invocation_id] = shed
                collected.stories.pop(invocation_id, None)
            else:
                continue
            if known_ms is not None:
                collected.again.append(Again(invocation_id, known_ms - offset_ms, completed_ms - offset_ms))
            collected.completed[invocation_id] = completed_ms

    async def _lag(self) -> dict[str, int]:
        fed = dataclasses.replace(self._kafka, group_id=FEED_GROUP)
        try:
            own = await lag(self._kafka, consumed_topics(self._settings.namespace, SERVICES))
            return own | await lag(fed, [FEED_TOPIC])
        except BrokerError as error:
            # A broker that has just come back. Should it stay so, nothing moves, and that is a violation.
            return {f"not known: {error}": 1}

    def _effects_of(self, collected: Collected) -> list[Effect]:
        """Those of a round, and of what nobody knows."""
        earlier = self._judged - collected.completed.keys()
        return [effect for effect in Effects(self._directory).read() if effect.invocation_id not in earlier]

    async def _expired(self) -> None:
        """Wait until the retention of everything has passed, and count the keys that are still there."""
        deadline = time.monotonic() + self._scale.retention_s + EXPIRY_S
        left = await leftovers(self._settings, workers=self._fleet.names)
        self.tally.keys = len(left)
        while left and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
            left = await leftovers(self._settings, workers=self._fleet.names)
        self.tally.keys_left = len(left)
        self.tally.violations += [f"after its retention there is still the key {key}" for key in left]

    async def _balances(self) -> dict[str, Balance]:
        found = {}
        for number in range(ACCOUNTS):
            state = await self._store.read_state(f"Account/{account_of(number)}")
            found[account_of(number)] = Balance(int(state.get("count", b"0")), int(state.get("total", b"0")))
        return found

    @property
    def _kafka(self) -> KafkaConfig:
        return self._settings.kafka_config(client_id="judge")


def _shed(view: InvocationView, by_id: Mapping[str, str]) -> Shed:
    """What an outcome tells by itself: a result has its tag in it, a failure is of whom a client has sent."""
    match view.outcome:
        case Success(value):
            result = json.loads(value)
            return Shed(result.get("tag", ""), result)
        case Failure(code, message):
            return Shed(by_id.get(view.id, ""), failure_text(code, message))
        case None:
            return Shed("", None)
