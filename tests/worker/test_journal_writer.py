"""One append at a time, and what its answer means: `perdure.worker.journal_writer`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.journal.machine import Machine
from perdure.journal.store import Appended, Claim
from perdure.schemas.entries import Completion, Entry, Positioned, Run, StepFailed, Success
from perdure.schemas.errors import FencedError, GapError
from perdure.worker.journal_writer import JournalWriter
from tests.worker.attempt_stage import Stage


class Slow:
    """A store whose answers a test gives."""

    def __init__(self, stage: Stage) -> None:
        self._memory = stage.memory
        self.appends: list[tuple[list[Entry], dict[str, Any]]] = []
        self.replies: list[asyncio.Future[Appended]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def append(self, lease: Any, entries: Any, **numbers: Any) -> asyncio.Future[Appended]:
        """See `Store.append`."""
        self.appends.append((list(entries), numbers))
        self.replies.append(asyncio.get_running_loop().create_future())
        return self.replies[-1]


class Scene:
    """A writer, its machine with some steps executing, and what it was told."""

    def __init__(self, stage: Stage, *, failures: int = 0) -> None:
        async def play(ctx: object) -> None:
            """Never run."""

        _, claim = stage.begin(play)
        self.claim: Claim = claim._replace(failures=failures)
        self.store = Slow(stage)
        self.machine = Machine()
        self.machine.receive(claim.entries)
        self.news = 0
        self.losses: list[BaseException] = []
        self.sent: list[tuple[int, Entry]] = []
        self.writer = JournalWriter(
            self.claim,
            self.machine,
            store=self.store,
            on_news=self._told,
            on_loss=self.losses.append,
            on_sent=lambda position, entry: self.sent.append((position, entry)),
        )

    def _told(self) -> None:
        self.news += 1

    def propose(self, *indices: int) -> None:
        """Steps have results."""
        for index in indices:
            self.machine.propose(Run(index, f"s{index}", 0, 0, Success(b"1")))
        self.writer.flush_soon()

    def issue(self, count: int) -> None:
        """The handler asks for steps."""
        for number in range(count):
            self.machine.issue_run(f"s{number}")
        while self.machine.next_step() is not None:
            pass


async def turns(count: int = 3) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def scene(plain_stage: Stage) -> Scene:
    """A writer over an answering machine."""
    return Scene(plain_stage)


async def test_what_comes_up_together_leaves_together(scene: Scene) -> None:
    """All of one turn is one append; what comes up meanwhile waits for its answer."""
    scene.issue(4)
    scene.propose(0)
    scene.propose(1)
    await turns()
    scene.propose(2, 3)
    await turns()
    assert [len(entries) for entries, _ in scene.store.appends] == [2]
    assert scene.writer.busy
    scene.store.replies[0].set_result(Appended(3, None))
    await turns()
    assert [len(entries) for entries, _ in scene.store.appends] == [2, 2]
    assert [numbers["seq"] for _, numbers in scene.store.appends] == [1, 2]
    assert [numbers["after"] for _, numbers in scene.store.appends] == [1, 3]
    scene.store.replies[1].set_result(Appended(5, None))
    await scene.writer.quiet()
    assert not scene.writer.busy
    assert scene.news == 2
    assert scene.writer.learned


async def test_the_order_is_the_journals(scene: Scene) -> None:
    """What another writer appended before comes first, own entries behind it."""
    scene.issue(1)
    timer = scene.machine.issue_sleep("", at_ms=0, duration_ms=5)
    scene.writer.flush_soon()
    await turns()
    scene.store.replies[0].set_result(Appended(2, None))
    await turns()
    scene.propose(0)
    await turns()
    (run,) = scene.store.appends[1][0]
    fired = Completion(timer, 0, Success(b"null"))
    scene.store.replies[1].set_result(Appended(4, [Positioned(3, 1, fired), Positioned(4, 1, run)]))
    await turns()
    ready = [scene.machine.poll(), scene.machine.poll()]
    assert [getattr(step, "command_index", None) for step in ready] == [timer, 0]


async def test_a_refusal_ends_the_writing(scene: Scene) -> None:
    """Nothing is appended after it, and whoever waits is woken."""
    scene.issue(2)
    scene.propose(0)
    quiet = asyncio.create_task(scene.writer.quiet())
    await turns()
    error = FencedError("another")
    scene.store.replies[0].set_exception(error)
    await quiet
    scene.propose(1)
    await turns()
    assert scene.losses == [error]
    assert len(scene.store.appends) == 1


async def test_an_entry_that_cannot_be_written_ends_the_attempt(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of ours is said and ends the attempt; left in a callback, it would have the handler wait for ever."""
    error = TypeError("cannot be encoded")

    def refuse(*args: object, **numbers: object) -> None:
        raise error

    monkeypatch.setattr(scene.store, "append", refuse)
    scene.issue(1)
    scene.propose(0)
    await scene.writer.quiet()
    assert scene.losses == [error]
    assert scene.claim.lease.invocation_id in caplog.text


async def test_an_answer_that_cannot_be_read_ends_the_attempt(scene: Scene) -> None:
    """Likewise where what comes back does not continue what is known."""
    scene.issue(1)
    scene.propose(0)
    await turns()
    stray = Positioned(7, 1, Run(0, "s0", 0, 0, Success(b"1")))
    scene.store.replies[0].set_result(Appended(7, [stray]))
    await turns()
    assert [type(loss) for loss in scene.losses] == [AssertionError]


async def test_a_length_that_does_not_fit_is_a_gap(scene: Scene) -> None:
    """A journal that is shorter or longer than what came back cannot be gone on with."""
    scene.issue(1)
    scene.propose(0)
    await turns()
    scene.store.replies[0].set_result(Appended(9, None))
    await turns()
    assert [type(loss) for loss in scene.losses] == [GapError]


async def test_answers_after_the_end_are_dropped(scene: Scene) -> None:
    """An attempt that has ended is told nothing, and a late refusal bothers nobody."""
    scene.issue(1)
    scene.propose(0)
    await turns()
    scene.writer.close()
    scene.store.replies[0].set_exception(FencedError("another"))
    await turns()
    assert scene.losses == []
    assert scene.news == 0


async def test_looking_appends_nothing(scene: Scene) -> None:
    """A hint has the journal's end fetched, once for many hints, and no more when nothing is asked for."""
    for _ in range(3):
        scene.writer.fetch_soon()
    await turns()
    scene.store.replies[0].set_result(Appended(1, []))
    await turns()
    assert [entries for entries, _ in scene.store.appends] == [[]]
    assert not scene.writer.progressed


@pytest.mark.parametrize("failures", [0, 3])
async def test_progress_is_told_once(plain_stage: Stage, failures: int) -> None:
    """Only results begin the count of failures anew, the first of them, and only where something was counted."""
    scene = Scene(plain_stage, failures=failures)
    scene.issue(3)
    scene.machine.propose(StepFailed(0, "s0", 0, 1, 0, 1, "no"))
    scene.writer.flush_soon()
    await turns()
    assert not scene.writer.progressed
    scene.store.replies[0].set_result(Appended(2, None))
    scene.propose(1)
    await turns()
    scene.store.replies[1].set_result(Appended(3, None))
    scene.propose(2)
    await turns()
    assert scene.writer.progressed
    assert [numbers["progress"] for _, numbers in scene.store.appends] == [False, failures > 0, False]
