"""What the doctor says of each misconfiguration of Redis, and the command that mends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from perdure.journal.redis_rights import acl_line
from perdure.schemas.errors import PerdureError
from perdure.worker.findings import Finding
from perdure.worker.redis_findings import examine_redis
from perdure.worker.server_process import HOST, ServerProcess
from perdure.worker.settings import Settings
from tests.servers.certificates import Authority, new_authority
from tests.servers.redis_family import RedisCluster, Sentinels, ask, grant, redis_process, started, tls_redis

NAMESPACE = "ns"


async def problems(url: str, **settings: object) -> list[Finding]:
    """What the doctor finds wrong there."""
    found = await examine_redis(Settings.load(redis_url=url, namespace=NAMESPACE, **settings))
    return [finding for finding in found if finding.level == "problem"]


async def refusal(url: str) -> str:
    """Why the doctor cannot look there."""
    with pytest.raises(PerdureError) as refused:
        await examine_redis(Settings.load(redis_url=url, namespace=NAMESPACE))
    return str(refused.value)


async def knows_waitaof(server: ServerProcess) -> bool:
    """Whether this lane's server has it."""
    return (await ask(server, "COMMAND", "INFO", "WAITAOF"))[0] is not None


async def test_rights_that_lack_are_named_with_the_line_that_grants_them(private_redis: ServerProcess) -> None:
    """A command, the keys or the channels; the line, carried out, leaves nothing to say."""
    url = f"redis://perdure:secret@{private_redis.address}"
    line = acl_line(NAMESPACE, waitaof=await knows_waitaof(private_redis))
    await grant(private_redis, line)
    assert await problems(url) == []
    wrongs: Mapping[str, str] = {"-zadd": "+zadd", "resetkeys": "keys", "resetchannels": "channels", "-multi": "+multi"}
    for wrong, named in wrongs.items():
        await ask(private_redis, "ACL", "SETUSER", "perdure", wrong)
        (found,) = await problems(url)
        assert f"The user perdure lacks rights: {named}." == found.found
        assert found.mend.startswith(f"redis-cli ACL SETUSER perdure on '>secret' '~{NAMESPACE}:*'")
        await grant(private_redis, line)
    assert await problems(url) == []


async def test_a_wrong_password(private_redis: ServerProcess) -> None:
    """The message names the setting and not the password."""
    said = await refusal(f"redis://perdure:wrong@{private_redis.address}")
    assert "mend the user or password in PERDURE_REDIS_URL" in said
    assert "wrong" not in said.replace("WRONGPASS", "")


async def test_what_may_lose_or_evict(private_redis: ServerProcess) -> None:
    """Policy and append-only file, each with the command that mends it."""
    url = f"redis://{private_redis.address}"
    await ask(private_redis, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    (found,) = await problems(url)
    assert found.mend.startswith("redis-cli CONFIG SET maxmemory-policy noeviction")
    await ask(private_redis, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    await ask(private_redis, "CONFIG", "SET", "appendonly", "no")
    (found,) = await problems(url)
    assert found.mend.startswith("redis-cli CONFIG SET appendonly yes")


async def test_a_replica_is_told_with_its_primary(private_redis: ServerProcess) -> None:
    """Whoever named the wrong server learns the right one."""
    await ask(private_redis, "REPLICAOF", HOST, 1)
    (found,) = [finding for finding in await problems(f"redis://{private_redis.address}") if "replica" in finding.found]
    assert f"{HOST}:1" in found.mend


async def test_a_server_that_is_no_node_of_a_cluster(private_redis: ServerProcess) -> None:
    """`cluster=true` for a server that is none."""
    said = await refusal(f"redis://{private_redis.address}?cluster=true")
    assert "cluster support disabled" in said
    assert "take cluster=true out of PERDURE_REDIS_URL" in said


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that nobody trusts yet."""
    return new_authority(tmp_path / "authority")


@pytest.fixture
async def secure(tmp_path: Path, authority: Authority) -> AsyncIterator[str]:
    """Where a Redis speaks TLS to those who have a certificate: `host:port`."""
    authority.issue("client")
    server, port = tls_redis(tmp_path / "redis", authority)
    await server.start()
    yield f"{HOST}:{port}"
    await server.kill()


@pytest.mark.servers
async def test_tls_that_does_not_come_about(secure: str, authority: Authority, tmp_path: Path) -> None:
    """Each way to fail is told apart, and each is told what mends it."""
    ca = f"ssl_ca_certs={authority.ca_file}"
    mine = f"ssl_certfile={authority.directory / 'client.pem'}&ssl_keyfile={authority.directory / 'client.key'}"
    other = new_authority(tmp_path / "other")
    stranger, key = other.issue("stranger")
    assert await problems(f"rediss://{secure}?{ca}&{mine}") == []
    assert "let ssl_ca_certs name" in await refusal(f"rediss://{secure}?{mine}")
    assert "let ssl_ca_certs name" in await refusal(f"rediss://{secure}?ssl_ca_certs={other.ca_file}&{mine}")
    assert "ssl_certfile and ssl_keyfile" in await refusal(f"rediss://{secure}?{ca}")
    said = await refusal(f"rediss://{secure}?ssl_ca_certs=/nowhere.pem&{mine}")
    assert said.startswith("The certificate files of the Redis URL (/nowhere.pem, ")
    said = await refusal(f"rediss://{secure}?{ca}&ssl_certfile={stranger}&ssl_keyfile={key}")
    assert "signed by an authority that the server trusts" in said
    port = secure.rpartition(":")[2]
    assert "by a name that its certificate has" in await refusal(f"rediss://localhost:{port}?{ca}&{mine}")
    assert "if it speaks TLS, use rediss://" in await refusal(f"redis://{secure}")


@pytest.mark.servers
async def test_tls_to_a_port_without(tmp_path: Path) -> None:
    """The plain port is told apart from a server that is away."""
    server = redis_process(tmp_path / "plain")
    await server.start()
    try:
        assert "if it speaks no TLS at that port, use redis://" in await refusal(
            f"rediss://{server.address}?ssl_cert_reqs=none"
        )
    finally:
        await server.kill()


@pytest.mark.servers
async def test_a_cluster_with_holes(tmp_path: Path) -> None:
    """A slot that nobody serves, replicas that lack, and a node named as if it were alone."""
    async with started(RedisCluster(tmp_path)) as cluster:
        assert await problems(cluster.url) == []
        found = await examine_redis(Settings.load(redis_url=cluster.url))
        assert [finding.mend for finding in found if finding.level == "advice"][-1] == "set PERDURE_REPLICAS=1"
        (single,) = await problems(f"redis://{cluster.nodes[0].address}")
        assert single.mend == "add ?cluster=true to PERDURE_REDIS_URL"
        for node in cluster.nodes:
            await ask(node, "CONFIG", "SET", "cluster-require-full-coverage", "no")
        await ask(cluster.nodes[0], "CLUSTER", "DELSLOTS", 7)
        url = f"redis://{cluster.nodes[0].address}?cluster=true"
        (hole,) = await problems(url)
        assert "nobody serves 1 of the 16384 slots" in hole.found
        assert hole.mend.startswith("redis-cli --cluster fix")


@pytest.mark.servers
async def test_sentinels_that_do_not_know_the_name(tmp_path: Path) -> None:
    """The right name is told, and servers that are no Sentinels are."""
    async with started(Sentinels(tmp_path)) as made:
        assert await problems(made.url) == []
        said = await refusal(made.url.replace("perdure-primary", "mymaster"))
        assert "they know: perdure-primary" in said
        assert "is no Sentinel" in await refusal(f"redis://{made.servers[0].address}?sentinel=mymaster")
