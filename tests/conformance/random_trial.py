"""One run of random programs: sends them, waits until all has drained, compares what came of it with the model."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from perdure.journal.connected_store import connected_store
from perdure.journal.inspection import InvocationView, view_of
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import open_namespace
from perdure.journal.redis_store import RedisStore
from perdure.schemas.entries import Failure
from perdure.schemas.ids import InvocationId
from perdure.worker.client import Client
from perdure.worker.settings import Settings
from tests.process.effects import Effects
from tests.standing import INVOCATIONS_MAX, SHOWN_MAX, journals, left_behind, progress

from .random_layers import layers
from .random_model import FAILED, Prediction, predict
from .random_programs import Plan, Root

LOOK_S = 0.1
SETTLED_S = 1.0

ID = re.compile(r"\binv_[0-9a-f]+")


class Trial:
    """A namespace in which plans run.

    Args:
        settings: Of its workers.
        client: Of the namespace.
        store: Likewise.
        effects: Where steps leave their traces.
    """

    def __init__(self, settings: Settings, *, client: Client, store: RedisStore, effects: Effects) -> None:
        self.stalled_s_max = 0.0
        self.stalled_with = ""
        self.prediction = Prediction()
        self._settings = settings
        self._client = client
        self._store = store
        self._effects = effects
        self._ids: dict[str, InvocationId] = {}

    async def submit(self, plan: Plan) -> None:
        """Send what clients send of a plan."""
        self.prediction += predict(plan)
        for root in plan.roots:
            for _ in range(root.times):
                await self._submit(root)

    async def _submit(self, root: Root) -> None:
        delay = timedelta(milliseconds=root.ms) if root.ms else None
        handle = await self._client.send(
            layers[0].interpret, root.program, key=root.key, idempotency_key=root.name, delay=delay
        )
        self._ids[root.name] = handle.invocation_id

    async def drained(self, *, patience_s: float) -> None:
        """Wait until nothing is left to do.

        Raises:
            AssertionError: Something is paused; or nothing at all happened for `patience_s`. It holds the journals of
                what is stuck.
        """
        wanted = self.prediction.invocations.total()
        last: object = None
        moved = time.monotonic()
        while True:
            completed, unfinished = await progress(self._store, self._settings)
            left = [] if unfinished or completed < wanted else await left_behind(self._store, self._settings)
            if not unfinished and completed >= wanted and not left:
                return
            paused = [view for view in unfinished if view.status == "paused"]
            if paused:
                raise AssertionError(f"{len(paused)} are paused.\n{await journals(self._store, paused)}")
            seen = (completed, left, [(view.id, view.status, view.entries, view.attempts) for view in unfinished])
            now = time.monotonic()
            if seen != last:
                last, moved = seen, now
            if now - moved > self.stalled_s_max:
                self.stalled_s_max = now - moved
                self.stalled_with = ", ".join(sorted(f"{view.target} {view.status}" for view in unfinished)[:SHOWN_MAX])
            if not unfinished and now - moved > SETTLED_S:
                # A program that found something wrong has ended, and what it did not come to is waited for in vain.
                found = _violations(await self._completed())
                assert not found, f"{len(found)} violations:\n" + "\n".join(found[:20])
            if now - moved > patience_s:
                raise AssertionError(
                    f"Nothing moved for {patience_s:g} s: {completed} of {wanted} invocations completed, "
                    f"{len(unfinished)} are not, left behind: {left}.\n{await journals(self._store, unfinished)}"
                )
            await asyncio.sleep(LOOK_S)

    async def check(self, *, undisturbed: bool = True) -> None:
        """Compare with the model.

        Args:
            undisturbed: No worker was killed, so that no step may have been executed twice.

        Raises:
            AssertionError: Something differs; all that does is in it.
        """
        wrong = [*await self._wrong_counters(), *await self._wrong_outcomes(), *self._wrong_steps(undisturbed)]
        if wrong:
            concerned = {found[0] for line in wrong for found in [ID.search(line)] if found}
            views = [view for view in await self._completed() if view.id in concerned]
            raise AssertionError(
                f"{len(wrong)} violations:\n" + "\n".join(wrong[:20]) + "\n" + await journals(self._store, views)
            )

    async def _wrong_counters(self) -> list[str]:
        wrong = []
        for target in await self._objects():
            state = await self._store.read_state(target)
            found, wanted = int(state.get("count", b"0")), self.prediction.counters[target]
            if found != wanted:
                wrong.append(f"{target} counted {found}, not {wanted}")
            if "inside" in state:
                wrong.append(f"{state['inside']!r} is still inside {target}")
        return wrong

    async def _objects(self) -> list[str]:
        """Those that should have counted, and all that any invocation was of."""
        found = {f"{view.service}/{view.key}" for view in await self._completed() if view.key}
        return sorted(found | set(self.prediction.counters))

    async def _wrong_outcomes(self) -> list[str]:
        views = {view.id: view for view in await self._completed()}
        counted = Counter(view.target for view in views.values())
        wrong = [
            f"{counted[target]} invocations of {target}, not {self.prediction.invocations[target]}"
            for target in sorted(counted | self.prediction.invocations)
            if counted[target] != self.prediction.invocations[target]
        ]
        for name, succeeds in self.prediction.roots.items():
            root = views.get(self._ids[name])
            if root is None or isinstance(root.outcome, Failure) == succeeds:
                wrong.append(f"root {name} should {'succeed' if succeeds else 'fail'}: {root and root.outcome}")
        return [*_violations(views.values()), *wrong]

    async def _completed(self) -> list[InvocationView]:
        found = await self._store.list_invocations("completed", invocations_max=INVOCATIONS_MAX)
        return [view_of(summary) for summary in found]

    def _wrong_steps(self, undisturbed: bool) -> list[str]:
        done = [effect for effect in self._effects.read() if not effect.fails or effect.step == "broken"]
        broken = {effect.key for effect in done if effect.step == "broken"}
        times = Counter(effect.key for effect in done if effect.key not in broken)
        wrong = []
        if len(times) + len(broken) != self.prediction.steps:
            wrong.append(f"{len(times) + len(broken)} steps were executed, not {self.prediction.steps}")
        attempts = Counter((effect.key, effect.attempt) for effect in done if effect.key not in broken)
        doubled = [f"{key} in attempt {attempt}" for (key, attempt), times in attempts.items() if times > 1]
        if undisturbed:
            doubled += [key for key, count in times.items() if count > 1]
        return wrong + [f"a step was executed twice: {key}" for key in doubled]


def _violations(completed: Iterable[InvocationView]) -> list[str]:
    """What programs found wrong themselves, and what failed as nothing should."""
    return [
        f"{view.target} {view.key} {view.id} failed: {view.outcome}"
        for view in completed
        if isinstance(view.outcome, Failure) and view.outcome.code not in (FAILED, 409)
    ]


@asynccontextmanager
async def trial(settings: Settings, *, directory: Path) -> AsyncIterator[Trial]:
    """A namespace to run plans in; its workers are somebody else's."""
    config = settings.redis_config
    await open_namespace(config, settings.namespace, slots=settings.slots)
    keys = Keys(settings.namespace, slots=settings.slots)
    async with connected_store(config, keys, name="random-programs") as store, Client(settings) as client:
        yield Trial(settings, client=client, store=store, effects=Effects(directory))
