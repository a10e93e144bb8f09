"""Runs one random program in an exclusive handler, and checks all that must hold while it has its object to itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from perdure import (
    DurableFuture,
    ObjectContext,
    TerminalError,
    VirtualObject,
    as_completed,
    first_success,
    gather,
    gather_results,
    select,
    wait_completed,
    with_timeout,
)

from . import random_services as services
from .random_model import FAILED, fails
from .random_programs import Command, Program


@dataclass(frozen=True)
class Pending:
    """A future, and what must come of it: the value, or a failure with that code."""

    what: str
    future: DurableFuture[Any]
    value: object
    code: int = 0


class Layer(NamedTuple):
    """The handlers of one layer: `interpret` runs a program, `add` counts, `look` is shared."""

    definition: VirtualObject
    interpret: Any
    add: Any
    look: Any


class Interpreter:
    """Runs the program of one invocation.

    Args:
        ctx: Of that invocation.
        layer: Of its object.
        below: The next one, whose objects it calls; the last layer has none.
    """

    def __init__(self, ctx: ObjectContext, layer: Layer, below: Layer | None) -> None:
        self._ctx = ctx
        self._layer = layer
        self._interpret: Any = None if below is None else below.interpret
        self._id = ctx.request().id
        # What the object holds, as far as this program has seen or written it.
        self._known: dict[str, object] = {}
        self._later: list[Pending] = []

    async def run(self, program: Program) -> None:
        """Do all commands.

        Raises:
            TerminalError: The program fails on purpose, or something does not hold that must (`VIOLATED`).
        """
        inside = await self._get("inside")
        demand(inside is None, f"{inside} is inside, too")
        self._set("inside", self._id)
        try:
            for command in program:
                await self._perform(command)
            for pending in self._later:
                await self._check(pending)
            await self._get("inside")
        except TerminalError:
            # Not at other failures, after which the next attempt goes on.
            self._ctx.clear("inside")
            raise
        self._ctx.clear("inside")

    async def _perform(self, command: Command) -> None:
        match command.kind:
            case "later":
                self._later.append(await self._start(command.program[0]))
            case "together":
                await self._together(command)
            case "tasks":
                await self._in_tasks(command.program)
            case "crash":
                if services.fails_again(f"{self._id}-{command.key}", command.times):
                    raise RuntimeError("crashes on purpose")
            case "fail":
                raise TerminalError("fails on purpose", FAILED)
            case "increment" | "set" | "get" | "clear" | "wipe" | "names":
                await self._with_state(command)
            case "peek" | "add" | "send" | "forget":
                await self._with_objects(command)
            case _:
                await self._check(await self._start(command))

    async def _with_state(self, command: Command) -> None:
        match command.kind:
            case "increment":
                self._set("count", (await self._get("count") or 0) + 1)
            case "set":
                self._set(command.name, command.times)
            case "get":
                await self._get(command.name)
            case "clear":
                self._ctx.clear(command.name)
                self._known[command.name] = None
            case "wipe":
                await self._wipe()
            case _:
                names = await self._ctx.state_keys()
                for name, value in self._known.items():
                    demand((name in names) == (value is not None), f"state_keys answers {names}, not {self._known}")

    async def _with_objects(self, command: Command) -> None:
        match command.kind:
            case "peek":
                count = await self._get("count") or 0
                seen: object = await self._ctx.object_call(self._layer.look, self._ctx.key(), None)
                demand(seen == services.Look(count, self._id), f"a shared handler saw {seen}, not {count}")
            case "add":
                self._ctx.object_send(self._layer.add, self._ctx.key(), 1, send_delay=_ms(command.ms))
            case "send":
                self._send(command)
            case _:
                self._ctx.object_call(self._interpret, command.key, command.program)

    async def _get(self, name: str) -> Any:
        found = await self._ctx.get(name)
        known = self._known.setdefault(name, found)
        demand(found == known, f"the state {name!r} is {found!r}, not {known!r}")
        return found

    def _set(self, name: str, value: object) -> None:
        self._ctx.set(name, value)
        self._known[name] = value

    async def _wipe(self) -> None:
        kept = {name: await self._get(name) for name in ("count", "inside")}
        self._ctx.clear_all()
        self._known = dict.fromkeys(self._known)
        for name, value in kept.items():
            if value is not None:
                self._set(name, value)

    def _send(self, command: Command) -> Any:
        delay = _ms(command.ms)
        return self._ctx.object_send(self._interpret, command.key, command.program, send_delay=delay)

    async def _start(self, command: Command) -> Pending:
        ctx, kind = self._ctx, command.kind
        ending = (len(command.program), FAILED if fails(command.program) else 0)
        match kind:
            case "sleep":
                return Pending(kind, ctx.sleep(_ms(command.ms)), None)
            case "step" | "flaky" | "broken" | "raising":
                code = {"broken": 500, "raising": FAILED}.get(kind, 0)
                return Pending(kind, ctx.run_typed(*services.step_of(ctx, command)), kind, code)
            case "call":
                return Pending(kind, ctx.object_call(self._interpret, command.key, command.program), *ending)
            case "attach":
                sent = await self._send(command).invocation_id()
                return Pending(kind, ctx.attach_invocation(sent, type_hint=int), *ending)
            case "tally":
                return Pending(kind, ctx.object_call(services.count, command.key, 1), 1)
            case "dance" | "signal":
                return self._completed_by_helper(command)
            case "doom":
                return Pending(kind, ctx.service_call(services.doom, None), None, FAILED)
            case "eventual":
                return Pending(kind, ctx.service_call(services.eventual, command.times), "in the end")
            case "cancelled":
                call = ctx.service_call(services.block, None)
                await call.cancel_invocation()
                return Pending(kind, call, None, 409)
            case "workflow":
                return self._workflow(command)
            case _:
                raise TerminalError(f"{kind} has no future", services.VIOLATED)

    def _completed_by_helper(self, command: Command) -> Pending:
        ctx, code = self._ctx, FAILED if command.name == "reject" else 0
        if command.kind == "dance":
            name, future = ctx.awakeable(type_hint=str)
            ctx.service_send(services.complete, services.Completion(name, command.name, ms=command.ms))
            return Pending(command.kind, future, "resolved", code)
        wanted = services.Completion(self._id, command.name, command.key, command.ms)
        if command.times:
            waiting = ctx.signal(command.key, type_hint=str)
            ctx.service_send(services.complete, wanted)
        else:
            ctx.service_send(services.complete, wanted)
            waiting = ctx.signal(command.key, type_hint=str)
        return Pending(command.kind, waiting, "resolved", code)

    def _workflow(self, command: Command) -> Pending:
        ctx, key = self._ctx, command.key
        if command.name == "early":
            ctx.workflow_call(services.bless, key, "blessed")
        ctx.workflow_send(services.main, key, ctx.key())
        if command.name == "late":
            ctx.workflow_call(services.bless, key, "blessed")
        return Pending(command.kind, ctx.workflow_call(services.main, key, ctx.key()), "blessed")

    async def _check(self, pending: Pending) -> None:
        try:
            value = await pending.future
        except TerminalError as error:
            if error.status_code != pending.code:
                demand(False, f"{pending.what} failed with {error.status_code} {error.message!r}, not {pending.code}")
        else:
            wanted = (pending.value, pending.code)
            demand((value, 0) == wanted, f"{pending.what} came to {value!r}, not {wanted}")

    async def _together(self, command: Command) -> None:
        pendings = [await self._start(inner) for inner in command.program]
        futures = [pending.future for pending in pendings]
        with contextlib.suppress(TimeoutError):
            try:
                await _WAITS[command.name](futures)
            except TerminalError as error:
                codes = {pending.code for pending in pendings}
                demand(error.status_code in codes, f"{command.name} raised {error.status_code} {error.message!r}")
        # Each may be awaited again.
        for pending in pendings:
            await self._check(pending)

    async def _in_tasks(self, program: Program) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for command in program:
                    tasks.create_task(self._perform(command))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None


def demand(holds: bool, otherwise: str) -> None:
    """End the program for good where something does not hold.

    Raises:
        TerminalError: It does not.
    """
    if not holds:
        raise TerminalError(f"violated: {otherwise}", services.VIOLATED)


async def _as_completed(futures: list[DurableFuture[Any]]) -> None:
    seen = [future async for future in as_completed(*futures)]
    demand(len(seen) == len(futures) and set(seen) == set(futures), "as_completed did not yield each once")


async def _asyncio_gather(futures: list[DurableFuture[Any]]) -> None:
    await asyncio.gather(*futures, return_exceptions=True)


async def _asyncio_wait(futures: list[DurableFuture[Any]]) -> None:
    done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    demand(bool(done), "asyncio.wait returned with nothing done")


_WAITS: dict[str, Callable[[list[DurableFuture[Any]]], Awaitable[Any]]] = {
    "gather": lambda futures: gather(*futures),
    "gather_results": lambda futures: gather_results(*futures),
    "select": lambda futures: select(**{f"f{number}": future for number, future in enumerate(futures)}),
    "as_completed": _as_completed,
    "wait_completed": lambda futures: wait_completed(*futures),
    "first_success": lambda futures: first_success(*futures),
    "with_timeout": lambda futures: with_timeout(futures[0], _ms(5)),
    "asyncio.gather": _asyncio_gather,
    "asyncio.wait": _asyncio_wait,
}


def _ms(duration_ms: int) -> timedelta:
    return timedelta(milliseconds=duration_ms)
