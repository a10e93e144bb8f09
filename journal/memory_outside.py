"""The store in memory: what comes from outside an attempt, such as completions, operators and clients."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure.schemas.entries import Cancelled, Completion, Outcome, Output, PauseAsked, Paused, Resumed, Signalled
from perdure.schemas.ids import InvocationId, slot_of

from . import memory_delivery as delivery
from . import memory_promises as promises
from .memory_namespace import MemoryNamespace, settled
from .store import Delivery, Due, Promise, Restart, State, Status
from .transitions import Answered, hastened


class MemoryOutside(MemoryNamespace):
    """Transitions of `Store` that no lease fences."""

    @property
    def _hints(self) -> str:
        return self._keys.hints("")

    def attach(self, invocation_id: InvocationId, channel: str, *, caller: str = "") -> asyncio.Future[Status | None]:
        """See `Store.attach`."""
        slot, _ = self._at(invocation_id)
        return settled(lambda: delivery.attach(slot, invocation_id, channel, caller))

    def deliver(
        self,
        invocation_id: InvocationId,
        entry: Completion | Signalled | Cancelled,
        *,
        once: str,
        here: str = "",
    ) -> asyncio.Future[Delivery]:
        """See `Store.deliver`."""
        slot, now_ms = self._at(invocation_id)
        return settled(
            lambda: delivery.deliver(
                slot,
                invocation_id,
                entry,
                once=once,
                now_ms=now_ms,
                hints=self._hints,
                here=here,
            )
        )

    def answer(
        self, invocation_id: InvocationId, answers: Sequence[tuple[int, Completion]], *, here: str = ""
    ) -> asyncio.Future[Answered]:
        """See `Store.answer`."""
        slot, now_ms = self._at(invocation_id)
        return settled(
            lambda: delivery.answer(slot, invocation_id, answers, now_ms=now_ms, hints=self._hints, here=here)
        )

    def complete_awakeable(
        self, invocation_id: InvocationId, entry: Completion, *, here: str = ""
    ) -> asyncio.Future[Delivery]:
        """See `Store.complete_awakeable`."""
        slot, now_ms = self._at(invocation_id)
        return settled(
            lambda: delivery.deliver(
                slot,
                invocation_id,
                entry,
                once=f"r:{entry.command_index}",
                now_ms=now_ms,
                hints=self._hints,
                here=here,
                awakeable=True,
            )
        )

    def kill(self, invocation_id: InvocationId, output: Output) -> asyncio.Future[Delivery]:
        """See `Store.kill`."""
        slot, now_ms = self._at(invocation_id)
        return settled(lambda: delivery.kill(slot, invocation_id, output, now_ms=now_ms, hints=self._hints))

    def pause(self, invocation_id: InvocationId, *, at_ms: int, reason: str) -> asyncio.Future[Delivery]:
        """See `Store.pause`."""
        slot, now_ms = self._at(invocation_id)
        asked, paused = PauseAsked(at_ms), Paused(at_ms, reason)
        return settled(lambda: delivery.pause(slot, invocation_id, asked, paused, now_ms=now_ms, hints=self._hints))

    def resume(self, invocation_id: InvocationId, *, at_ms: int) -> asyncio.Future[Delivery]:
        """See `Store.resume`."""
        slot, now_ms = self._at(invocation_id)
        return settled(lambda: delivery.resume(slot, invocation_id, Resumed(at_ms), now_ms=now_ms))

    def purge(self, invocation_id: InvocationId) -> asyncio.Future[Delivery]:
        """See `Store.purge`."""
        slot, _ = self._at(invocation_id)
        return settled(lambda: delivery.forget(slot, invocation_id))

    def restart(self, restart: Restart) -> asyncio.Future[Delivery]:
        """See `Store.restart`."""
        slot, now_ms = self._at(restart.invocation_id)
        return settled(lambda: delivery.restart(slot, restart, now_ms=now_ms))

    def hasten(self, due: Sequence[Due]) -> asyncio.Future[None]:
        """See `Store.hasten`."""
        members = [(item.invocation_id, member) for item in due if (member := hastened(item))]
        nudged: dict[int, InvocationId] = {}
        for invocation_id, member in members:
            slot, _ = self._at(invocation_id)
            if member in slot.due.scores:
                slot.due.put(member, 0)
            nudged[slot_of(invocation_id, self.slots)] = invocation_id
        if self._workers:
            newest = max((at_ms, worker) for worker, at_ms in self._workers.items())[1]
            for invocation_id in nudged.values():
                self._at(invocation_id)[0].publish(self._hints + newest, invocation_id.encode())
        return settled(lambda: None)

    def peek_promise(self, target: str, name: str) -> asyncio.Future[Promise | None]:
        """See `Store.peek_promise`."""
        slot, _ = self._of(target)
        return settled(lambda: promises.peek(slot, target, name))

    def complete_promise(
        self, target: str, name: str, outcome: Outcome, *, by: str
    ) -> asyncio.Future[tuple[bool, Sequence[Due]]]:
        """See `Store.complete_promise`."""
        slot, now_ms = self._of(target)
        run, made = self._keys.run_of(target)[0], Promise(outcome, by)
        return settled(lambda: promises.complete(slot, target, name, made, run=run, now_ms=now_ms, hints=self._hints))

    def await_promise(
        self, target: str, name: str, waiting: InvocationId, command_index: int, *, position: int = 0
    ) -> asyncio.Future[Sequence[Due] | None]:
        """See `Store.await_promise`."""
        slot, now_ms = self._of(target)
        run, wait = self._keys.run_of(target)[0], (waiting, command_index)
        return settled(
            lambda: promises.wait(
                slot, target, name, wait, position=position, run=run, now_ms=now_ms, hints=self._hints
            )
        )

    def read_state(self, target: str) -> asyncio.Future[State]:
        """See `Store.read_state`."""
        slot, _ = self._of(target)
        return settled(lambda: dict(slot.states.get(target, {})))

    def read_names(self, target: str) -> asyncio.Future[Sequence[str]]:
        """See `Store.read_names`."""
        slot, _ = self._of(target)
        return settled(lambda: sorted(slot.states.get(target, {})))

    def read_value(self, target: str, name: str) -> asyncio.Future[bytes | None]:
        """See `Store.read_value`."""
        slot, _ = self._of(target)
        return settled(lambda: slot.states.get(target, {}).get(name))

    def edit_state(
        self, target: str, changes: Sequence[tuple[str, bytes | None]], *, clear: bool = False, force: bool = False
    ) -> asyncio.Future[InvocationId | None]:
        """See `Store.edit_state`."""
        slot, now_ms = self._of(target)
        run = self._keys.run_of(target)[0]
        return settled(
            lambda: promises.edit_state(slot, target, changes, clear=clear, force=force, run=run, now_ms=now_ms)
        )
