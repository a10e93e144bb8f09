"""The same work on each server version that can be had, with WAITAOF and without."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.journal.barrier import UNFSYNCED_LAG_MS, Barrier
from perdure.journal.durability import durability_problems
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import forbidden, server_facts
from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_rights import acl_line
from perdure.worker.server_process import HOST, ServerProcess
from tests.servers.redis_family import grant, redis_process
from tests.servers.redis_versions import PROGRAMS

from .application import Act
from .stage import set_stage

pytestmark = [pytest.mark.servers, pytest.mark.process, pytest.mark.timeout(300)]

ACTS = (Act("step", 5), Act("sleep", 50), Act("together", 5), Act("flaky", 1))


@pytest.fixture(params=PROGRAMS, ids=lambda kind: "-".join(kind))
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, str, str]]:
    """A server of each version, and what it should call itself."""
    kind, version = request.param
    made = redis_process(tmp_path / "redis", program=PROGRAMS[kind, version]())
    await made.start()
    yield made, kind, version
    await made.kill()


async def test_work_on_this_version(
    server: tuple[ServerProcess, str, str],
    bootstrap_servers: str,
    namespace: str,
    chance: random.Random,
    tmp_path: Path,
) -> None:
    """It is known for what it is; work goes on through its restart; offsets lag only where there is no WAITAOF."""
    made, kind, version = server
    config = RedisConfig(host=HOST, port=made.port)
    facts = await server_facts(config)
    assert (facts.kind, (facts.version or "").startswith(version)) == (kind, True)
    assert durability_problems(facts) == []
    assert facts.waitaof is (version != "7.0")
    barrier = Barrier(config, "w", Keys(namespace, slots=1), replicas=0)
    await barrier.pass_()
    assert barrier.lag_ms == (0 if facts.waitaof else UNFSYNCED_LAG_MS)
    await barrier.close()
    await grant(made, acl_line(namespace, waitaof=facts.waitaof))
    user = RedisConfig(host=HOST, port=made.port, username="perdure", password="secret")
    assert await forbidden(user, namespace, waitaof=facts.waitaof, cluster=False) == []
    url = f"redis://perdure:secret@{made.address}"
    async with set_stage(url, bootstrap_servers, namespace, directory=tmp_path, chance=chance) as stage:
        worker = await stage.start_ready()
        for number in range(5):
            await stage.send(f"a{number}", *ACTS)
        await made.restart()
        await grant(made, acl_line(namespace, waitaof=facts.waitaof))
        for number in range(5):
            await stage.send(f"b{number}", *ACTS)
        await stage.finished()
        assert worker.alive
        await stage.check()
