"""Random programs on layered objects: every counter is what the model says, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.journal import lua
from perdure.journal.store import Caller
from perdure.journal.wire import Wire
from perdure.schemas.commands import Call, Send
from perdure.schemas.entries import Outcome
from perdure.schemas.ids import InvocationId, id_of_call
from perdure.worker.answering import Answering
from perdure.worker.clock import system_random
from perdure.worker.invoking import Invoking
from perdure.worker.settings import Settings
from tests.integration.conftest import quick_settings
from tests.integration.deployment import Deployment
from tests.process.effects import DIRECTORY_VARIABLE

from .random_layers import application
from .random_programs import from_json, make_plan, size, smaller, to_json
from .random_rounds import Place, Tally, make_round, run_round
from .random_trial import Trial, trial

SEED_VARIABLE = "PERDURE_TEST_SEED"
PLANS = 4
STALL_S = 15.0
"""More than the 10 s after which what is owed is sent again."""

SLOW = pytest.mark.timeout(300)
"""A group of Kafka's of which members die while others join may assign nothing for a minute."""


@pytest.fixture
def seed() -> int:
    """The first of the seeds of a test, which a failure shows; set PERDURE_TEST_SEED to have it again."""
    chosen = int(os.environ.get(SEED_VARIABLE) or system_random().getrandbits(24))
    print(f"{SEED_VARIABLE}={chosen}")  # noqa: T201 - for the report of a failure
    return chosen


@contextlib.asynccontextmanager
async def engines(settings: Settings, *, workers: int, directory: Path) -> AsyncIterator[Trial]:
    """Workers in this process."""
    deployment = Deployment(settings)
    async with contextlib.AsyncExitStack() as stack:
        # Its topics exist then.
        await stack.enter_async_context(deployment.sender(application))
        for number in range(workers):
            await stack.enter_async_context(deployment.worker(application, worker_id=f"worker-{number}"))
        yield await stack.enter_async_context(trial(settings, directory=directory))


@pytest.fixture
def settings(redis_url: str, bootstrap_servers: str, namespace: str) -> Settings:
    """Of workers in this process; a machine that stands still for a moment does not end leases."""
    return quick_settings(redis_url, bootstrap_servers, namespace, topic_partitions=3, lease_s=10)


@pytest.fixture(autouse=True)
def _traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))


@pytest.mark.parametrize("always_replay", [False, True], ids=["plain", "replay"])
@pytest.mark.parametrize("workers", [1, 3])
async def test_counters_are_what_the_model_says(
    settings: Settings, seed: int, workers: int, always_replay: bool, tmp_path: Path
) -> None:
    """Plans of several seeds run at once on the engines of this process."""
    assignment = "group" if workers > 1 else "manual"
    chosen = settings.model_copy(
        update={"always_replay": always_replay, "kafka_assignment": assignment, "kafka_session_timeout_ms": 1_500}
    )
    async with engines(chosen, workers=workers, directory=tmp_path) as made:
        for number in range(PLANS):
            await made.submit(make_plan(seed + number))
        await made.drained(patience_s=STALL_S)
        await made.check()


async def test_callees_find_room_where_callers_take_all_of_it(settings: Settings, seed: int, tmp_path: Path) -> None:
    """One worker with room for two attempts runs the same programs: who waits makes room for whom it waits for."""
    async with engines(settings.model_copy(update={"concurrency": 2}), workers=1, directory=tmp_path) as made:
        await made.submit(make_plan(seed))
        await made.drained(patience_s=STALL_S)
        await made.check()


@SLOW
@pytest.mark.process
@pytest.mark.parametrize(
    ("hits", "always_replay"), [(0, False), (3, False), (3, True)], ids=["calm-plain", "killed-plain", "killed-replay"]
)
async def test_workers_of_a_supervisor(
    redis_url: str, bootstrap_servers: str, namespace: str, seed: int, hits: int, always_replay: bool, tmp_path: Path
) -> None:
    """Three worker processes, which are left alone, or are killed, ended and frozen at random moments."""
    tally = Tally()
    wanted = make_round(seed, plans=4, hits=hits, always_replay=always_replay)
    await run_round(wanted, Place(redis_url, bootstrap_servers, tmp_path), namespace=namespace, tally=tally)
    assert tally.counters > 0


# Seeds of which each planted bug was seen to be caught by more than one counter.
PLANTED_SEEDS = (1, 2, 3)


async def test_an_object_that_lets_two_in_is_caught(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a script that gives an object to whoever comes, programs and counters tell."""
    read = lua._read

    def planted(name: str) -> str:
        text = read(name)
        return text.replace("if holder and holder ~= id and", "if false and") if name == "objects" else text

    monkeypatch.setattr(lua, "_read", planted)
    await _caught(settings, tmp_path, "violations")


async def test_a_call_that_is_sent_twice_is_caught(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a dispatcher whose repeats get ids of their own, counters tell."""
    invoke = Invoking.invoke

    def planted(self: Invoking, origin: InvocationId, position: int, entry: Call | Send) -> None:
        if isinstance(entry, Send) and entry.key is not None:
            again = id_of_call(entry.service, entry.key, parent=origin, command_index=1_000 + entry.command_index)
            invoke(self, origin, position, entry._replace(invocation_id=again))
        invoke(self, origin, position, entry)

    monkeypatch.setattr(Invoking, "invoke", planted)
    await _caught(settings, tmp_path, "violations")


async def test_an_outcome_that_is_not_told_is_caught(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a worker that loses the outcomes of calls, the journals of what is stuck are shown; as on a cluster."""
    monkeypatch.setattr(Wire, "one_node", False)
    tell = Answering.tell
    told = 0

    def planted(self: Answering, caller: Caller, outcome: Outcome) -> asyncio.Future[bool]:
        nonlocal told
        told += 1
        if told < 3:
            return tell(self, caller, outcome)
        lost: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lost.set_result(True)
        return lost

    monkeypatch.setattr(Answering, "tell", planted)
    await _caught(settings, tmp_path, "Nothing moved", patience_s=3.0)


async def _caught(settings: Settings, directory: Path, said: str, *, patience_s: float = STALL_S) -> None:
    async with engines(settings, workers=1, directory=directory) as made:
        for seed in PLANTED_SEEDS:
            await made.submit(make_plan(seed))
        with pytest.raises(AssertionError, match=said):
            await _drained_and_checked(made, patience_s)


async def _drained_and_checked(made: Trial, patience_s: float) -> None:
    await made.drained(patience_s=patience_s)
    await made.check()


def test_a_seed_makes_the_same_programs_again() -> None:
    """A seed is enough to have a failure again, and so is a plan's text."""
    assert make_plan(5) == make_plan(5) != make_plan(6)
    assert from_json(to_json(make_plan(5))) == make_plan(5)


def test_what_is_tried_instead_of_a_plan_is_smaller() -> None:
    """Leaving something out again and again ends with one program that does nothing."""
    plan = make_plan(5)
    while (tried := next(smaller(plan), None)) is not None:
        assert len(to_json(tried)) < len(to_json(plan))
        plan = tried
    assert size(plan) == 0
    assert len(plan.roots) == 1
