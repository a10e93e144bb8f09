"""Work on a Redis Cluster, and under Sentinels, of which no port speaks anything but TLS by a private authority."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from perdure.journal.keys import Keys
from perdure.journal.redis_topology import cluster_slot
from perdure.schemas.errors import PerdureError
from perdure.worker.redis_findings import examine_redis
from perdure.worker.settings import Settings
from tests.servers.certificates import Authority, new_authority
from tests.servers.redis_family import PRIMARIES, RedisCluster, Sentinels, started

from .application import Act
from .stage import SLOTS, Stage, set_stage

pytestmark = [pytest.mark.servers, pytest.mark.process, pytest.mark.timeout(300)]

ACTS = (Act("step", 20), Act("sleep", 50), Act("together", 10), Act("step", 20))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that nobody trusts yet."""
    return new_authority(tmp_path / "authority")


async def send_many(stage: Stage, *, count: int) -> None:
    """Records at random intervals, each one until it is acknowledged."""
    for number in range(count):
        await stage.send_through_outage(f"r{number}", *ACTS)
        await asyncio.sleep(stage.chance.uniform(0, 0.1))


async def refusal(url: str) -> str:
    """Why the doctor cannot look there."""
    with pytest.raises(PerdureError) as refused:
        await examine_redis(Settings.load(redis_url=url))
    return str(refused.value)


async def check_doctor(settings: Settings, other: Authority) -> None:
    """It has nothing to complain of, and tells apart whoever speaks no TLS, trusts nobody, or somebody else."""
    assert [finding.found for finding in await examine_redis(settings) if finding.level == "problem"] == []
    url = settings.redis_url.get_secret_value()
    trusting, _, trusted = url.partition("&ssl_ca_certs=")
    assert "if it speaks TLS, use rediss://" in await refusal(trusting.replace("rediss://", "redis://"))
    for wrong in (trusting, f"{trusting}&ssl_ca_certs={other.ca_file}"):
        said = await refusal(wrong)
        assert "let ssl_ca_certs name the PEM file of the authority that signed its certificate" in said
    assert trusted
    missing = await refusal(f"{trusting}&ssl_ca_certs=/nowhere.pem")
    assert "/nowhere.pem" in missing


async def test_a_sealed_cluster(
    authority: Authority, bootstrap_servers: str, namespace: str, chance: random.Random, tmp_path: Path
) -> None:
    """A slot moves and a primary dies under load; the doctor names what is wrong with a URL."""
    async with (
        started(RedisCluster(tmp_path / "cluster", authority=authority)) as cluster,
        set_stage(cluster.url, bootstrap_servers, namespace, directory=tmp_path, chance=chance) as stage,
    ):
        workers = await stage.start_two()
        keys = Keys(namespace, slots=SLOTS)

        async def strike() -> None:
            await asyncio.sleep(0.5)
            slot = cluster_slot(keys.prefix(chance.randrange(SLOTS)))
            source = await cluster.primary_of_slot(slot)
            target = chance.choice([node for node in cluster.nodes[:PRIMARIES] if node is not source])
            assert await cluster.move(slot, target)
            await (await cluster.primary_of_slot(slot)).kill()

        await asyncio.gather(send_many(stage, count=25), strike())
        await stage.finished()
        assert all(worker.alive for worker in workers)
        await stage.check(epochs_kept=False)
        await check_doctor(stage.settings, new_authority(tmp_path / "other"))


async def test_sealed_sentinels(
    authority: Authority, bootstrap_servers: str, namespace: str, chance: random.Random, tmp_path: Path
) -> None:
    """The primary is killed, and workers find the next one; the doctor names what is wrong with a URL."""
    async with (
        started(Sentinels(tmp_path / "sentinels", authority=authority)) as sentinels,
        set_stage(sentinels.url, bootstrap_servers, namespace, directory=tmp_path, chance=chance, replicas=1) as stage,
    ):
        workers = await stage.start_two()

        async def strike() -> None:
            await asyncio.sleep(0.5)
            first = await sentinels.primary()
            await first.kill()
            await sentinels.primary_other_than(first)

        await asyncio.gather(send_many(stage, count=25), strike())
        await stage.finished()
        assert all(worker.alive for worker in workers)
        await stage.check(epochs_kept=False)
        await check_doctor(stage.settings, new_authority(tmp_path / "other"))
