"""Worker processes that are hit one by one, each behind a proxy of its own to Redis, and replaced when they end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perdure.worker.server_process import free_port
from perdure.worker.settings import Settings
from tests.process.effects import DIRECTORY_VARIABLE
from tests.process.worker_process import LOG_TAIL_CHARACTERS, WorkerProcess
from tests.waiting import wait_until

from .application import TARGET
from .meanwhile import meanwhile
from .proxy import Proxy

ENTRY = "tests.chaos.worker"

END_S = 60.0
"""A worker that was told to end has a grace of seconds and `main.STOP_MARGIN_S`; a busy machine gets more."""

REPLACE_S = 0.1


@dataclass
class Member:
    """One worker.

    Attributes:
        process: Its process.
        proxy: Between it and Redis.
        passing: Whether it is one more than there are to be, and soon told to end.
        expected_to_end: Whether it was killed, or told to end.
        exit_code: Once it has ended.
        frozen: Whether it stands still.
    """

    process: WorkerProcess
    proxy: Proxy
    passing: bool = False
    expected_to_end: bool = False
    exit_code: int | None = None
    frozen: bool = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.alive


class Fleet:
    """Workers of one namespace. Use as an async context manager, and `keep` them meanwhile.

    Args:
        settings: Of every worker; where Redis is differs.
        size: How many there are to be.
        redis_port: Where Redis listens.
        directory: For effects, marks and logs.
        variables: More of the environment.
        chance: Seeded.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        size: int,
        redis_port: int,
        directory: Path,
        variables: Mapping[str, str],
        chance: random.Random,
    ) -> None:
        self.members: list[Member] = []
        self._settings = settings
        self._size = size
        self._redis_port = redis_port
        self._directory = directory
        self._variables = dict(variables)
        self._chance = chance
        self._proxies = contextlib.AsyncExitStack()
        self._number = itertools.count()

    async def __aenter__(self) -> Fleet:
        await self._proxies.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        for member in self.members:
            if member.frozen and member.alive:
                member.process.send(signal.SIGCONT)
        await asyncio.gather(*(member.process.close() for member in self.members))
        await self._proxies.aclose()

    @property
    def alive(self) -> list[Member]:
        """Those that run and are to go on running."""
        return [m for m in self.members if m.alive and not m.passing and not m.expected_to_end]

    @property
    def names(self) -> list[str]:
        """Of the workers that run, as Redis knows them."""
        return [member.process.log_path.stem for member in self.members if member.alive]

    async def start(self, *, passing: bool = False) -> Member:
        """Start one; it is not ready when this returns. One that only passes by is not counted."""
        number = next(self._number)
        port = free_port(self._chance)
        proxy = await self._proxies.enter_async_context(Proxy(port, upstream_port=self._redis_port))
        environment = {
            **self._settings.environment(),
            **self._variables,
            "PERDURE_REDIS_URL": f"redis://{proxy.address}",
            "PERDURE_WORKER_ID": f"w{number}",
            DIRECTORY_VARIABLE: str(self._directory),
        }
        process = WorkerProcess(environment, log_path=self._directory / f"w{number}.log", target=TARGET, module=ENTRY)
        await process.start()
        member = Member(process, proxy, passing)
        # Not before it runs: one that does not is taken for one that has ended.
        self.members.append(member)
        return member

    async def fill(self) -> None:
        """Start as many as are missing, and wait until they have their partitions."""
        while len(self.alive) < self._size:
            await self.start()
        await asyncio.gather(*(member.process.ready(timeout_s=END_S) for member in self.alive))

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Replace those that end while the block runs, a moment later."""
        async with meanwhile(self._keep()):
            yield

    async def _keep(self) -> None:
        while True:
            await self.reap()
            if len(self.alive) < self._size:
                await asyncio.sleep(self._chance.uniform(0, 1.5))
                await self.start()
            await asyncio.sleep(REPLACE_S)

    async def reap(self) -> None:
        """Write down how those ended that have."""
        for member in self.members:
            if member.exit_code is None and not member.alive:
                member.exit_code = await member.process.exit_code()

    def any_alive(self, chance: random.Random) -> Member | None:
        """One that is neither frozen nor told to end."""
        found = [member for member in self.alive if not member.frozen]
        return chance.choice(found) if found else None

    async def kill(self, member: Member) -> None:
        """SIGKILL, and wait for its end."""
        member.expected_to_end = True
        await member.process.kill()

    async def terminate(self, member: Member) -> None:
        """SIGTERM, and wait for its end."""
        member.expected_to_end = True
        member.process.send(signal.SIGTERM)
        await member.process.exit_code(timeout_s=END_S)

    async def freeze(self, member: Member, duration_s: float) -> str:
        """SIGSTOP, wait, SIGCONT; the state that the kernel told of it in between."""
        member.frozen = True
        try:
            member.process.send(signal.SIGSTOP)
            await wait_until(lambda: state_of(member.pid) == "T", description=f"{member.pid} stands still")
            await asyncio.sleep(duration_s)
            return state_of(member.pid)
        finally:
            member.frozen = False
            if member.alive:
                member.process.send(signal.SIGCONT)

    def unexplained_ends(self) -> list[str]:
        """Those that ended by themselves, or not as they should."""
        wrong = []
        for member in self.members:
            name, code = member.process.log_path.stem, member.exit_code
            if code is not None and not member.expected_to_end:
                wrong.append(
                    f"{name} ({member.pid}) ended by itself with {code}: {member.process.log()[-LOG_TAIL_CHARACTERS:]}"
                )
        return wrong


def state_of(pid: int) -> str:
    """The letter of a process's state, such as `T`; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
