"""Work on a primary that Sentinels watch: another one takes over, and workers find it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_places import locate
from perdure.schemas.errors import SettingsError, StoreError
from tests.servers.redis_family import Sentinels, started

from .application import Act
from .stage import Stage, set_stage

pytestmark = [pytest.mark.servers, pytest.mark.process, pytest.mark.timeout(300)]

ACTS = (Act("step", 20), Act("sleep", 50), Act("together", 10), Act("step", 20))


@pytest.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[Sentinels]:
    """Start a watched primary of this test's own."""
    async with started(Sentinels(tmp_path / "sentinels")) as made:
        yield made


@pytest.fixture
async def stage(
    sentinels: Sentinels, bootstrap_servers: str, namespace: str, chance: random.Random, tmp_path: Path
) -> AsyncIterator[Stage]:
    """Set the stage on the watched primary; offsets wait for one of its replicas."""
    async with set_stage(
        sentinels.url, bootstrap_servers, namespace, directory=tmp_path, chance=chance, replicas=1
    ) as made:
        yield made


async def send_many(stage: Stage, *, count: int) -> None:
    """Records at random intervals, each one until it is acknowledged."""
    for number in range(count):
        await stage.send_through_outage(f"r{number}", *ACTS)
        await asyncio.sleep(stage.chance.uniform(0, 0.1))


async def test_another_primary_takes_over_under_load(stage: Stage, sentinels: Sentinels) -> None:
    """Killed, and then asked to step down while it lives: workers follow twice, and every invocation ends."""
    workers = await stage.start_two()

    async def take_over() -> None:
        await asyncio.sleep(1.0)
        first = await sentinels.primary()
        await first.kill()
        await sentinels.primary_other_than(first)
        await first.start()
        await sentinels.settled()
        await sentinels.step_down()

    await asyncio.gather(send_many(stage, count=60), take_over())
    await stage.finished()
    assert all(worker.alive for worker in workers)
    await stage.check(epochs_kept=False)


async def test_what_sentinels_do_not_know(sentinels: Sentinels) -> None:
    """A wrong name is an error of the settings that tells the right one; servers that are no Sentinels are told so."""
    config = RedisConfig.from_url(sentinels.url.replace("perdure-primary", "mymaster"))
    with pytest.raises(SettingsError, match=r"do not know the primary 'mymaster' \(they know: perdure-primary\)"):
        await locate(config)
    server = sentinels.servers[0].address
    with pytest.raises(StoreError, match="is no Sentinel"):
        await locate(RedisConfig.from_url(f"redis://{server}?sentinel=x"))
    away, first = sentinels.sentinels[0], await sentinels.primary()
    await away.kill()
    assert (await locate(RedisConfig.from_url(sentinels.url))).port == first.port
