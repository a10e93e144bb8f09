"""Work over TLS with a private authority, as a user who may do no more than docs/operations.md says."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perdure.journal.redis_rights import acl_line
from perdure.worker.client import Client
from perdure.worker.redis_findings import examine_redis
from perdure.worker.server_process import HOST, ServerProcess
from tests.servers.certificates import Authority, new_authority
from tests.servers.redis_family import denials, grant, tls_redis

from .application import Act
from .stage import Stage, set_stage

pytestmark = [pytest.mark.servers, pytest.mark.process, pytest.mark.timeout(300)]

ACTS = (Act("step", 5), Act("sleep", 50), Act("together", 5), Act("flaky", 1), Act("thread", 5))


@dataclass(frozen=True)
class Guarded:
    """A Redis that speaks TLS to those who have a certificate."""

    server: ServerProcess
    port: int
    authority: Authority

    def url(self, *, user: str = "perdure:secret@", **options: object) -> str:
        """With the client's certificate, unless changed."""
        certificate, key = self.authority.directory / "client.pem", self.authority.directory / "client.key"
        files = {"ssl_ca_certs": self.authority.ca_file, "ssl_certfile": certificate, "ssl_keyfile": key}
        query = "&".join(f"{name}={value}" for name, value in (files | options).items() if value is not None)
        return f"rediss://{user}{HOST}:{self.port}?{query}"


@pytest.fixture
async def guarded(tmp_path: Path, namespace: str) -> AsyncIterator[Guarded]:
    """Start it, with the user whom the documentation makes."""
    authority = new_authority(tmp_path / "authority")
    authority.issue("client")
    server, port = tls_redis(tmp_path / "redis", authority)
    await server.start()
    try:
        await grant(server, acl_line(namespace, waitaof=False))
        yield Guarded(server, port, authority)
    finally:
        await server.kill()


@pytest.fixture
async def stage(
    guarded: Guarded, bootstrap_servers: str, namespace: str, chance: random.Random, tmp_path: Path
) -> AsyncIterator[Stage]:
    """Set the stage on it."""
    async with set_stage(guarded.url(), bootstrap_servers, namespace, directory=tmp_path, chance=chance) as made:
        yield made


async def test_work_as_a_user_with_no_more_rights_than_needed(stage: Stage, guarded: Guarded) -> None:
    """Workers, one of which is killed, clients, the command's listings and the doctor: nothing is ever forbidden."""
    first, _ = await stage.start_two()
    for number in range(20):
        await stage.send(f"r{number}", *ACTS)
    await first.kill()
    await stage.finished()
    await stage.check()
    async with Client(stage.settings) as client:
        page = await client.list_invocations(limit=5)
        assert len(page.invocations) == 5
        await client.purge(page.invocations[0].id)
    findings = await examine_redis(stage.settings)
    assert [finding for finding in findings if finding.level == "problem"] == []
    assert await denials(guarded.server) == []
