"""The store on Redis: what comes from outside an attempt, such as completions, operators and clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from perdure.schemas.codec import encode
from perdure.schemas.entries import (
    Cancelled,
    Completion,
    Outcome,
    Output,
    PauseAsked,
    Paused,
    Resumed,
    Signalled,
)
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import CANCELLATIONS_MAX, RECEIVED_BYTES_MAX, RECEIVED_MAX, WAITERS_MAX

from .link import Argument
from .positions import command_at
from .redis_scripts import PAGE_ENTRIES_MAX, REPLY_LEASE_MS, RedisScripts, all_of, kept_for
from .replies import (
    as_answered,
    as_delivery,
    as_due,
    as_promise,
    as_status,
    body_of_outcome,
    kept_payload,
    payload_kept,
    positioned,
)
from .store import Delivery, Due, Promise, Restart, State, Status
from .transitions import RETENTION_MS, Answered, hastened
from .wire import Wire, same

PROMISE_RETENTION_MS = 24 * RETENTION_MS
"""How long promises are kept that nobody's run belongs to: a run that comes later finds them."""


class RedisOutside(RedisScripts):
    """Transitions of `Store` that no lease fences."""

    def attach(self, invocation_id: InvocationId, channel: str, *, caller: str = "") -> Awaitable[Status | None]:
        """See `Store.attach`."""
        keys = self._keys.of(invocation_id)
        head = (b"EVALSHA", self._shas["attach"], b"1", keys.invocation)
        return self._wires[keys.slot].call((*head, channel, WAITERS_MAX, caller), as_status)

    def deliver(
        self,
        invocation_id: InvocationId,
        entry: Completion | Signalled | Cancelled,
        *,
        once: str,
        here: str = "",
    ) -> Awaitable[Delivery]:
        """See `Store.deliver`."""
        return self._deliver(invocation_id, entry, once=once, here=here)

    def answer(
        self, invocation_id: InvocationId, answers: Sequence[tuple[int, Completion]], *, here: str = ""
    ) -> asyncio.Future[Answered]:
        """See `Store.answer`."""
        arguments: list[Argument] = [invocation_id, self._keys.hints(""), here]
        for position, entry in answers:
            arguments += (entry.command_index, position, encode(entry)[1])
        keys = self._keys.of(invocation_id)
        return self._script("answer", keys, tuple(arguments), lambda reply: as_answered(invocation_id, reply))

    async def complete_awakeable(self, invocation_id: InvocationId, entry: Completion, *, here: str = "") -> Delivery:
        """See `Store.complete_awakeable`."""
        index, once = entry.command_index, f"r:{entry.command_index}"
        delivery = await self._deliver(invocation_id, entry, once=once, here=here, awakeable=(index, -1))
        if delivery.result != "unsure":
            return delivery
        # Not written yet, by a handler that has told its name already, or written by a version that left no mark.
        other, length = await self._command_at(invocation_id, index)
        if other not in ("", "awakeable"):
            return Delivery("no-awakeable", status=other)
        return await self._deliver(invocation_id, entry, once=once, here=here, awakeable=(index, length))

    async def _command_at(self, invocation_id: InvocationId, index: int) -> tuple[str, int]:
        """The type of the command of that index, or nothing, and how many entries were looked at."""
        keys, length = self._keys.of(invocation_id), 0
        while True:
            call = (b"XRANGE", keys.journal, length + 1, b"+", b"COUNT", PAGE_ENTRIES_MAX)
            page = await self._wires[keys.slot].call(call, positioned)
            length += len(page)
            if (kind := command_at(page, index)) or len(page) < PAGE_ENTRIES_MAX:
                return kind, length

    def _deliver(
        self,
        invocation_id: InvocationId,
        entry: Completion | Signalled | Cancelled,
        *,
        once: str,
        here: str = "",
        awakeable: tuple[int, int] | None = None,
    ) -> Awaitable[Delivery]:
        """`awakeable` is its command index, and how many entries were looked at without finding another one."""
        keys = self._keys.of(invocation_id)
        arguments = (
            invocation_id,
            once,
            *encode(entry),
            self._keys.hints(""),
            self._keys.prefix(keys.slot),
            RETENTION_MS,
            RETENTION_MS,
            REPLY_LEASE_MS,
            here,
            *(("", -1) if awakeable is None else awakeable),
            RECEIVED_MAX,
            RECEIVED_BYTES_MAX,
            CANCELLATIONS_MAX,
        )
        return self._script("deliver", keys, arguments, lambda reply: as_delivery(invocation_id, reply))

    def _control(self, invocation_id: InvocationId, what: str, *bodies: bytes) -> Awaitable[Delivery]:
        keys = self._keys.of(invocation_id)
        first, second = (*bodies, b"", b"")[:2]
        arguments = (
            invocation_id,
            what,
            first,
            self._keys.prefix(keys.slot),
            RETENTION_MS,
            RETENTION_MS,
            REPLY_LEASE_MS,
            self._keys.hints(""),
            second,
        )
        return self._script("control", keys, arguments, lambda reply: as_delivery(invocation_id, reply))

    def kill(self, invocation_id: InvocationId, output: Output) -> Awaitable[Delivery]:
        """See `Store.kill`."""
        return self._control(invocation_id, "kill", encode(output)[1])

    def pause(self, invocation_id: InvocationId, *, at_ms: int, reason: str) -> Awaitable[Delivery]:
        """See `Store.pause`."""
        return self._control(invocation_id, "pause", encode(PauseAsked(at_ms))[1], encode(Paused(at_ms, reason))[1])

    def resume(self, invocation_id: InvocationId, *, at_ms: int) -> Awaitable[Delivery]:
        """See `Store.resume`."""
        return self._control(invocation_id, "resume", encode(Resumed(at_ms))[1])

    def purge(self, invocation_id: InvocationId) -> Awaitable[Delivery]:
        """See `Store.purge`."""
        return self._control(invocation_id, "purge")

    def restart(self, restart: Restart) -> Awaitable[Delivery]:
        """See `Store.restart`."""
        keys = self._keys.of(restart.invocation_id)
        bodies: list[Argument] = [part for entry in (restart.input, *restart.kept) for part in encode(entry)]
        fields: list[Argument] = ["service", restart.service, "handler", restart.handler]
        for name, value in (("key", restart.key), ("source", restart.source)):
            if value:
                fields += (name, value)
        fields += kept_for(restart)
        arguments = (
            restart.invocation_id,
            restart.mode,
            restart.target,
            self._keys.prefix(keys.slot),
            restart.queue_max,
            1 + len(restart.kept),
            *bodies,
            *fields,
        )
        return self._script("restart", keys, arguments, lambda reply: as_delivery(restart.invocation_id, reply))

    async def hasten(self, due: Sequence[Due]) -> None:
        """See `Store.hasten`."""
        members = [(item.invocation_id, member) for item in due if (member := hastened(item))]
        # XX: what is done since has no deadline any more.
        calls = []
        for invocation_id, member in members:
            keys = self._keys.of(invocation_id)
            calls.append(self._wires[keys.slot].call((b"ZADD", keys.due, b"XX", b"0", member), same))
        # The one that was seen last, most likely lives; where it does not, others look soon.
        wire = self._wiring.of(self._keys.workers)
        seen = wire.call((b"ZREVRANGE", self._keys.workers, 0, 0), same)
        await all_of(calls)
        for worker in await seen:
            one_of_each_slot = {self._keys.of(invocation_id).slot: invocation_id for invocation_id, _ in members}
            hints = self._keys.hints(worker.decode())
            await all_of([wire.call((b"PUBLISH", hints, each), same) for each in one_of_each_slot.values()])

    async def _promise(
        self, target: str, what: str, name: str, *arguments: Argument, position: int = 0
    ) -> Sequence[object]:
        slot = self._keys.slot_of_target(target)
        given = (*arguments, b"", b"", b"")[:3]
        call: tuple[Argument, ...] = (
            b"EVALSHA",
            self._shas["promise"],
            b"3",
            self._keys.object(target, "promises"),
            self._keys.due(slot),
            self._keys.status(slot, ""),
            what,
            name,
            *given,
            self._keys.prefix(slot),
            self._keys.hints(""),
            PROMISE_RETENTION_MS,
            self._keys.run_of(target)[0],
            WAITERS_MAX,
            position,
        )
        reply: Sequence[object] = await self._wires[slot].call(call, same)
        return reply

    async def peek_promise(self, target: str, name: str) -> Promise | None:
        """See `Store.peek_promise`."""
        return as_promise(await self._promise(target, "peek", name))

    async def complete_promise(
        self, target: str, name: str, outcome: Outcome, *, by: str
    ) -> tuple[bool, Sequence[Due]]:
        """See `Store.complete_promise`."""
        answer, actions = await self._promise(target, "complete", name, body_of_outcome(outcome), by)
        return answer == b"done", as_due(actions)

    async def await_promise(
        self, target: str, name: str, waiting: InvocationId, command_index: int, *, position: int = 0
    ) -> Sequence[Due] | None:
        """See `Store.await_promise`."""
        arguments = (b"", waiting, command_index)
        answer, actions = await self._promise(target, "await", name, *arguments, position=position)
        return None if answer == b"full" else as_due(actions)

    def _of_target(self, target: str) -> Wire:
        return self._wires[self._keys.slot_of_target(target)]

    async def read_state(self, target: str) -> State:
        """See `Store.read_state`."""
        flat = await self._of_target(target).call((b"HGETALL", self._keys.object(target, "state")), same)
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return {name.decode(): kept_payload(value) for name, value in pairs}

    async def read_names(self, target: str) -> Sequence[str]:
        """See `Store.read_names`."""
        names = await self._of_target(target).call((b"HKEYS", self._keys.object(target, "state")), same)
        return sorted(name.decode() for name in names)

    async def read_value(self, target: str, name: str) -> bytes | None:
        """See `Store.read_value`."""
        raw = await self._of_target(target).call((b"HGET", self._keys.object(target, "state"), name), same)
        return None if raw is None else kept_payload(raw)

    async def edit_state(
        self, target: str, changes: Sequence[tuple[str, bytes | None]], *, clear: bool = False, force: bool = False
    ) -> InvocationId | None:
        """See `Store.edit_state`."""
        run, of_run = self._keys.run_of(target)
        call: list[Argument] = [b"EVALSHA", self._shas["state_edit"], b"4", self._keys.object(target, "object")]
        call += [self._keys.object(target, "state"), of_run, self._keys.status(self._keys.slot_of_target(target), "")]
        call += [1 if force else 0, run]
        if clear:
            call += ["clear_all", "", ""]
        for name, value in changes:
            call += ["clear", name, ""] if value is None else ["set", name, payload_kept(value)]
        reply = await self._of_target(target).call(tuple(call), same)
        return None if reply == 1 else InvocationId(reply.decode())
