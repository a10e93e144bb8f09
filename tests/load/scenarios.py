"""The scenarios by name, and a run of one on servers of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.deployment import Environment, running_servers

from .arena import Place
from .backlog import backlog
from .judging import Judged
from .long_journal import long_journal
from .long_run import long_run
from .scaling import scaling
from .sleeping import sleeping
from .subscribers import subscribers
from .waiters import waiters


class Scenario(NamedTuple):
    """One scenario.

    Attributes:
        what: What it does, in a few words.
        run: Does it.
        size: Records, or what is one there; seconds of the long one.
        small: So few that it takes seconds.
    """

    what: str
    run: Callable[[Place, int], Awaitable[Judged]]
    size: int
    small: int


SCENARIOS = {
    "backlog": Scenario("a backlog that no worker has seen, and sleepers that wake beside it", backlog, 1_000_000, 500),
    "sleeping": Scenario("sleepers that all wake at one moment", sleeping, 100_000, 60),
    "waiters": Scenario("one object for which so many wait, more than its queue holds", waiters, 12_000, 200),
    "journal": Scenario("one invocation of so many steps, killed in the middle", long_journal, 10_000, 400),
    "subscribers": Scenario("so many waits for one outcome, three times", subscribers, 1_000, 40),
    "scaling": Scenario("eight workers, of whom some leave and come every few seconds", scaling, 20_000, 600),
    "long": Scenario("a mixed load for so many seconds, and what grows in it", long_run, 1_800, 3),
}


@contextlib.asynccontextmanager
async def own_place(environment: Environment, directory: Path) -> AsyncIterator[Place]:
    """Run servers of one's own while the block runs."""
    async with running_servers(environment) as servers:
        yield Place(
            redis_url=f"redis://{servers.redis.address}",
            bootstrap_servers=servers.broker.address,
            embedded=environment.servers == "embedded",
            namespace="load",
            directory=directory,
        )
