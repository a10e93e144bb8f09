"""A run: rounds of load and strikes on one namespace, each with quiet and a verdict behind it; at the end, the keys."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from perdure.journal.inspection import view_of
from perdure.journal.redis_store import RedisStore
from perdure.schemas.ids import InvocationId
from perdure.worker.client import Client
from perdure.worker.clock import SystemClock
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.settings import Settings
from perdure.worker.topics import consumed_topics, dead_letter_topic
from tests.process.effects import Effect, Effects
from tests.process.history import Story
from tests.standing import INVOCATIONS_MAX, journals, lag, left_behind, progress, records_ever

from .checker import judge, repeats, unanswered
from .chronicle import Balance, Chronicle
from .fleet import Fleet
from .leftovers import leftovers
from .marks import Marks
from .nemesis import Nemesis
from .requests import ACCOUNTS, Request, Requester, account_of, answer
from .scale import Scale
from .schedule import make_schedule
from .tally import Tally
from .written import write_down

SERVICES = ("Work", "Account", "Courier")

LOOK_S = 0.5

SETTLED_S = 12.0
"""After so long an outcome is not lost any more, whatever happens to Redis: more than `checker.LOSS_MS`."""

EXPIRY_S = 60.0
"""Beyond the retention, for sweeps that take what has expired out of the indexes."""


class Run:
    """A namespace under chaos.

    Args:
        scale: How long, how much, what.
        settings: Of the namespace, on Redis itself.
        fleet: Its workers.
        nemesis: What befalls them.
        client: Of clients.
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
        self._store = store
        self._directory = directory
        self._say = say
        self._marks = Marks(directory)
        self._judged: set[str] = set()
        self._completed: dict[str, int] = {}
        self._numbers: defaultdict[str, int] = defaultdict(int)

    async def rounds(self) -> None:
        """Round after round until the time is over, or something is wrong; then wait until all of it has expired."""
        deadline, number = time.monotonic() + self._scale.duration_s, 0
        async with self._fleet.kept(), _meanwhile(self._nemesis.watch_itself(), answer(self._client, self._marks)):
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
        requester = Requester(self._client, name=name, rate=scale.rate, chance=chance, numbers=self._numbers)
        before, deeds, missed = await self._balances(), len(self._nemesis.deeds), len(self._nemesis.missed)
        stories: dict[str, Story] = {}
        async with _meanwhile(requester.run(scale.round_s)) as (asking,):
            async with _meanwhile(self._collect_settled(stories, requester.requests)):
                await self._nemesis.carry_out(schedule)
            tally.violations += await self._quiet(requester, asking, stories)
        self._judged |= stories.keys()
        chronicle = Chronicle(
            requests=requester.requests,
            stories=list(stories.values()),
            effects=self._effects_of(stories),
            deeds=self._nemesis.deeds[deeds:],
            marks=self._marks.read(),
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
            f"  {len(requester.requests)} requests, {len(stories)} invocations, {len(chronicle.effects)} executions, "
            f"{repeats(chronicle)} of them in no journal; {len(tally.violations)} violations"
        )

    async def _quiet(self, requester: Requester, asking: asyncio.Task[None], stories: dict[str, Story]) -> list[str]:
        """Wait until nothing is left to do, or nothing moves any more; returns what is wrong then.

        What has completed is read as soon as it has: it is not kept for ever.
        """
        began, moved = time.monotonic(), time.monotonic()
        last: object = None
        while True:
            await self._collect(stories, requester.requests)
            completed, unfinished = await progress(self._store, self._settings)
            idle = asking.done() and not unfinished
            left = await left_behind(self._store, self._settings) if idle else []
            behind = await self._lag() if idle and not left else {}
            if idle and not left and not behind:
                await self._collect(stories, requester.requests)
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

    async def _collect_settled(self, stories: dict[str, Story], requests: list[Request]) -> None:
        """Read what has completed so long ago that no loss takes it back, until cancelled."""
        while True:
            await asyncio.sleep(SETTLED_S / 4)
            await self._collect(stories, requests, age_s=SETTLED_S)

    async def _collect(self, stories: dict[str, Story], requests: list[Request], *, age_s: float = 0.0) -> None:
        """Read what has completed; the journals of all of it once nothing can be lost any more."""
        tags = {tag for request in requests for tag in request.tags}
        until_ms = SystemClock().now_ms() - age_s * 1000
        for summary in await self._store.list_invocations("completed", invocations_max=INVOCATIONS_MAX):
            completed_ms = view_of(summary).completed_at_ms or 0
            known_ms = self._completed.get(summary.invocation_id)
            if known_ms == completed_ms or completed_ms > until_ms:
                continue
            if known_ms is not None:
                self.tally.violations.append(
                    f"{summary.invocation_id} was completed again, {completed_ms - known_ms} ms after its outcome"
                )
            self._completed[summary.invocation_id] = completed_ms
            entries = await self._store.read_journal(InvocationId(summary.invocation_id))
            story = Story(summary.invocation_id, summary.fields["status"], entries)
            if entries and story.tag in tags:
                stories[summary.invocation_id] = story

    async def _lag(self) -> dict[str, int]:
        return await lag(self._kafka, consumed_topics(self._settings.namespace, SERVICES))

    def _effects_of(self, stories: Mapping[str, Story]) -> list[Effect]:
        """Those of a round, and of what nobody knows."""
        earlier = self._judged - stories.keys()
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


@contextlib.asynccontextmanager
async def _meanwhile(*work: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Do all of this while the block runs, and not after it; one that fails fails the block."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
