"""Carries out a schedule, and brings back what was seen of each strike."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Sequence
from typing import Final

from aiokafka.errors import KafkaError

from perdure.schemas.errors import PerdureError

from .deeds import Deed
from .fleet import Fleet, Member
from .ground import Ground
from .marks import Mark, Marks
from .proxy import Direction, Proxy
from .schedule import Kind, Strike
from .server_strikes import ServerStrikes

WAYS: Final = ((Direction.UP,), (Direction.DOWN,), (Direction.UP, Direction.DOWN))

DELAYS_S: Final = (0.02, 0.1, 0.4)

STORM: Final = 3

STALL_S: Final = 0.5
"""A pause of this process that is worth telling: the workers stood still then, too."""

LOOK_S: Final = 0.1

TRIES_S: Final = 60.0
"""For so long a strike is tried that finds nobody to hit, or a server that does not answer."""


class Nemesis:
    """Strikes at workers, connections and servers.

    Args:
        fleet: The workers.
        ground: The servers.
        clients: The proxy between the clients and Redis.
        servers: Strikes at the servers themselves.
        marks: Of the run: for its own stalls.
    """

    def __init__(self, fleet: Fleet, ground: Ground, *, clients: Proxy, servers: ServerStrikes, marks: Marks) -> None:
        self.deeds: list[Deed] = []
        self.missed: list[str] = []
        self._fleet = fleet
        self._ground = ground
        self._clients = clients
        self._servers = servers
        self._marks = marks

    async def carry_out(self, schedule: Sequence[Strike]) -> None:
        """Do all of it, each strike at its time, whatever the others do; returns when all are over."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for strike in schedule:
                await asyncio.sleep(max(0.0, begin + strike.at_s - time.monotonic()))
                group.create_task(self._strike(strike))

    async def watch_itself(self) -> None:
        """Write down when this process stood still, until cancelled."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            if now - last > LOOK_S + STALL_S:
                self._marks.append(Mark("stalled", 0, int(last * 1000), int(now * 1000)))
            last = now

    async def _strike(self, strike: Strike) -> None:
        """Until there is a proof of it, or it has been tried for long enough."""
        deadline, why = time.monotonic() + TRIES_S, "nobody to hit"
        chance = random.Random(strike.seed)
        while time.monotonic() < deadline:
            begin_ms = _now_ms()
            try:
                pids, proof = await self._do(strike, chance)
            except (PerdureError, KafkaError, AssertionError, OSError) as error:
                # A worker that died before it was hit, a server that is away because of another strike.
                pids, proof, why = (), "", f"{type(error).__name__}: {error}"[:200]
            if proof:
                self.deeds.append(Deed(strike.kind, begin_ms, _now_ms(), pids, proof))
                return
            await asyncio.sleep(0.3)
        self.missed.append(f"{strike.kind} at {strike.at_s:.1f} s: {why}")

    async def _do(self, strike: Strike, chance: random.Random) -> tuple[tuple[int, ...], str]:
        kind = strike.kind
        if kind in (Kind.KILL, Kind.FREEZE, Kind.TERMINATE, Kind.BLOCK, Kind.CLOCK):
            member = self._fleet.any_alive(chance)
            if member is None:
                return (), ""
            return (member.pid,), await self._hit(member, strike)
        if kind is Kind.STORM:
            return (), await self._storm()
        if kind in (Kind.REDIS_DELAY, Kind.REDIS_CUT, Kind.REDIS_HALVE, Kind.REDIS_HOLE):
            proxy, pids = self._redis_link(chance)
            return pids, await _disturb(proxy, strike, chance)
        if kind in (Kind.KAFKA_DELAY, Kind.KAFKA_CUT, Kind.KAFKA_HALVE, Kind.KAFKA_HOLE):
            return (), await _disturb(self._ground.kafka, strike, chance)
        return (), await self._servers.strike(strike)

    async def _hit(self, member: Member, strike: Strike) -> str:
        match strike.kind:
            case Kind.KILL:
                await self._fleet.kill(member)
                return f"{member.pid} ended with {await member.process.exit_code()}"
            case Kind.TERMINATE:
                await self._fleet.terminate(member)
                return f"{member.pid} ended with {await member.process.exit_code()}"
            case Kind.FREEZE:
                state = await self._fleet.freeze(member, strike.duration_s)
                return f"{member.pid} was in state {state} for {strike.duration_s:.1f} s" if state == "T" else ""
            case Kind.BLOCK:
                return await self._signalled(member, signal.SIGUSR1, "blocked")
            case _:
                return await self._signalled(member, signal.SIGUSR2, "clock")

    async def _signalled(self, member: Member, number: signal.Signals, kind: str) -> str:
        """Send a signal that `tests.chaos.worker` obeys, and wait until it says so."""
        if not member.process.said("begins"):
            return ""
        before = self._said(member, kind)
        member.process.send(number)
        deadline = time.monotonic() + TRIES_S
        while time.monotonic() < deadline and member.alive:
            if len(marks := self._said(member, kind)) > len(before):
                mark = marks[-1]
                return f"{member.pid} {kind} {mark.text or f'for {mark.end_ms - mark.begin_ms} ms'}"
            await asyncio.sleep(LOOK_S)
        return ""

    def _said(self, member: Member, kind: str) -> list[Mark]:
        return [mark for mark in self._marks.read() if mark.pid == member.pid and mark.kind == kind]

    async def _storm(self) -> str:
        """Workers that join the group and leave it as soon as they have partitions, one after the other."""
        passing = []
        for _ in range(STORM):
            member = await self._fleet.start(passing=True)
            passing.append(member)
            await asyncio.sleep(0.4)
        await asyncio.gather(*(self._pass_by(member) for member in passing))
        joined = sum(member.process.said("partitions are assigned") > 0 for member in passing)
        return f"{joined} of {STORM} had partitions before they left" if joined else ""

    async def _pass_by(self, member: Member) -> None:
        try:
            await member.process.ready(timeout_s=TRIES_S)
        finally:
            await self._fleet.terminate(member)

    def _redis_link(self, chance: random.Random) -> tuple[Proxy, tuple[int, ...]]:
        """A worker's connections to Redis, or the clients'."""
        links: list[tuple[Proxy, tuple[int, ...]]] = [(m.proxy, (m.pid,)) for m in self._fleet.alive]
        return chance.choice([*links, (self._clients, (-1,))])


async def _disturb(proxy: Proxy, strike: Strike, chance: random.Random) -> str:
    if not proxy.connections:
        return ""
    before, ways = proxy.held_bytes, chance.choice(WAYS)
    text = f"{'+'.join(ways)} of {proxy.connections} connections"
    match strike.kind:
        case Kind.REDIS_CUT | Kind.KAFKA_CUT:
            return f"{proxy.cut(chance, share=chance.choice((0.3, 1.0)))} connections reset"
        case Kind.REDIS_HALVE | Kind.KAFKA_HALVE:
            way = chance.choice(list(Direction))
            count = await proxy.halve(chance, direction=way, share=chance.choice((0.3, 1.0)))
            return f"{count} messages halved on their way {way}" if count else ""
        case Kind.REDIS_DELAY | Kind.KAFKA_DELAY:
            delay_s = chance.choice(DELAYS_S)
            async with proxy.slow(ways, delay_s=delay_s):
                await asyncio.sleep(strike.duration_s)
            return f"{text} delayed by {delay_s * 1000:.0f} ms for {strike.duration_s:.1f} s"
        case _:
            swallows = chance.random() < 0.5
            async with proxy.black_hole(ways, swallows=swallows):
                await asyncio.sleep(strike.duration_s)
            held = proxy.held_bytes - before
            fate = "lost" if swallows else "late"
            return f"{text} black for {strike.duration_s:.1f} s, {held} bytes {fate}" if held else ""


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
