"""Two stores side by side, with clients: restarts with a journal that has begun, deadlines that are hastened, pages."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from perdure.journal.keys import STATUSES
from perdure.journal.store import CascadeDue, Due, OutgoingDue, ReplyDue, Restart, ResumeDue, Store
from perdure.journal.transitions import Place
from perdure.schemas.entries import Completion, Input, Run, Sleep
from tests.journal.store_contract import run, sleep

from .store_side_by_side import IDS, KINDS, NUMBERS, ONE, SideBySide

INPUT = Input(5, "c", (), b"1")


class WithClients(SideBySide):
    """What only clients do."""

    @rule(number=NUMBERS, commands=st.integers(0, 2), queue_max=st.sampled_from([9, 0]))
    def restart(self, number: int, commands: int, queue_max: int) -> None:
        """An invocation begins with what another one has done."""
        invocation_id = IDS[number % len(IDS)]
        kind = KINDS[invocation_id]
        if kind.get("mode") == "main":
            return
        done: list[Run | Sleep] = [run(0), sleep(1, 60_000)]
        asked = Restart(
            invocation_id,
            "Greeter",
            "greet",
            kind.get("key"),
            INPUT,
            kept=done[:commands],
            mode=kind.get("mode", ""),
            source="restart",
            queue_max=queue_max,
        )
        self.admitted.append(invocation_id)

        async def act(store: Store) -> object:
            answer = await store.restart(asked)
            return answer.result, list(answer.due)

        self.call(act)

    @rule(number=NUMBERS, kind=st.sampled_from(["resume", "reply", "cascade", "send"]), position=st.integers(2, 6))
    def hasten(self, number: int, kind: str, position: int) -> None:
        """A client leaves something to the next sweep, which may have been done long ago."""
        invocation_id = self.one(number)
        left: dict[str, Due] = {
            "resume": ResumeDue(invocation_id, 1, "Greeter"),
            "reply": ReplyDue(invocation_id, [], ONE),
            "cascade": CascadeDue(invocation_id),
            "send": OutgoingDue(invocation_id, position, run(0)),
        }
        self.call(lambda store: store.hasten([left[kind]]))

    @rule(number=NUMBERS, index=st.integers(0, 4))
    def complete_awakeable(self, number: int, index: int) -> None:
        """Somebody completes an awakeable, or what he takes for one."""
        invocation_id, done = self.one(number), Completion(index, 5, ONE)
        self.call(lambda store: store.complete_awakeable(invocation_id, done))

    @rule(status=st.sampled_from(STATUSES), rows_max=st.integers(1, 3))
    def list_all(self, status: str, rows_max: int) -> None:
        """Pages hold everything once; in which order times of the same moment stand is each clock's."""

        async def act(store: Store) -> object:
            found: list[str] = []
            after: Place | None = None
            while True:
                rows = await store.list_page(status, rows_max=rows_max, after=after)
                found += [row.place.invocation_id for row in rows]
                if len(rows) < rows_max:
                    break
                after = rows[-1].place
            assert len(found) == len(set(found))
            return sorted(found)

        self.both(act)
