"""Redis as people run it: clusters and Sentinels, on loopback, out of one program."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from perdure.journal.redis_config import Address, RedisConfig
from perdure.journal.redis_line import Command, Line, Refusal, Word
from perdure.journal.redis_topology import CLUSTER_SLOTS, HEALTHY, cluster_slot
from perdure.schemas.errors import StoreError
from perdure.worker.clock import system_random
from perdure.worker.embedded import redis_arguments
from perdure.worker.server_process import HOST, REDIS_PROBE, Probe, ServerProcess, free_port
from tests.waiting import wait_until

from .certificates import Authority

PRIMARIES = 3

# A node that is silent for so long is taken for dead: a tenth of what people use, so that a test does not wait.
NODE_TIMEOUT_MS = 1_500
SENTINEL_DOWN_MS = 2_000
MASTER = "perdure-primary"

_HANDSHAKE = b"\x16\x03"
"""How a record begins that is part of TLS's greeting."""


class SealedProcess(ServerProcess):
    """A Redis or a Sentinel that speaks TLS and nothing else, to whoever trusts its authority."""

    authority: Authority


def redis_process(
    directory: Path, *arguments: str, program: str = "redis-server", authority: Authority | None = None
) -> ServerProcess:
    """A Redis that is not started yet and keeps its data in `directory`; `arguments` come after ours.

    Args:
        directory: For its data and its log.
        arguments: Further ones.
        program: The server's program.
        authority: Who signs its certificate; then it speaks TLS only, to its fellows, too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port(system_random())
    command = [program, *redis_arguments(directory, port=port), *arguments]
    if authority is not None:
        for name, value in _sealed(port, authority).items():
            command += [f"--{name}", value]
    return _process(program, command, port=port, log_path=directory / "redis.log", authority=authority)


def _sealed(port: int, authority: Authority) -> dict[str, str]:
    certificate, key = authority.files_of("redis")
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-replication": "yes",
        "tls-auth-clients": "no",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(authority.ca_file),
    }


def _process(
    name: str, command: Sequence[str], *, port: int, log_path: Path, authority: Authority | None
) -> ServerProcess:
    if authority is None:
        return ServerProcess(name, command, port=port, probe=REDIS_PROBE, log_path=log_path)
    process = SealedProcess(name, command, port=port, probe=_tls_probe(), log_path=log_path)
    process.authority = authority
    return process


def _tls_probe() -> Probe:
    """A greeting that is answered by whoever speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=HOST).do_handshake()
    return Probe(outgoing.read(), lambda answer: answer.startswith(_HANDSHAKE))


def _config(server: ServerProcess) -> RedisConfig:
    if isinstance(server, SealedProcess):
        return RedisConfig(host=HOST, port=server.port, tls=True, tls_ca_file=str(server.authority.ca_file))
    return RedisConfig(host=HOST, port=server.port)


def _url(servers: Sequence[ServerProcess], option: str, authority: Authority | None) -> str:
    scheme, trust = ("redis", "") if authority is None else ("rediss", f"&ssl_ca_certs={authority.ca_file}")
    return f"{scheme}://{','.join(each.address for each in servers)}?{option}{trust}"


async def ask(server: ServerProcess, *command: Word) -> Any:
    """The answer of that server, as its administrator gets it."""
    line = Line(_config(server), name="test")
    try:
        return await line.ask(*command)
    finally:
        await line.close()


async def ask_all(server: ServerProcess, *commands: Command) -> list[Any]:
    """The answers to several commands on one connection, refusals among them."""
    line = Line(_config(server), name="test")
    try:
        return await line.ask_all(commands)
    finally:
        await line.close()


class RedisCluster:
    """Three primaries with a replica each. Nodes can be killed and started again, slots be moved.

    Args:
        directory: For their data and logs.
        program: The server's program.
        authority: Who signs the nodes' certificates; then they speak TLS only.
    """

    def __init__(self, directory: Path, *, program: str = "redis-server", authority: Authority | None = None) -> None:
        self._authority = authority
        self.nodes = [self._node(directory / f"node-{number}", program) for number in range(2 * PRIMARIES)]

    @property
    def url(self) -> str:
        """With two of its nodes."""
        return _url([self.nodes[0], self.nodes[4]], "cluster=true", self._authority)

    async def start(self) -> None:
        """Start all nodes, and return when the cluster serves all slots and each primary has its replica."""
        await asyncio.gather(*(node.start() for node in self.nodes))
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        share = CLUSTER_SLOTS // PRIMARIES
        for number, node in enumerate(primaries):
            last = CLUSTER_SLOTS - 1 if number == PRIMARIES - 1 else (number + 1) * share - 1
            await ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await ask(node, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for node in self.nodes[1:]:
            await ask(self.nodes[0], "CLUSTER", "MEET", HOST, node.port, await self._bus_port(node))
        for primary, replica in zip(primaries, replicas, strict=True):
            await self._replicate(replica, primary)
        await self.settled()

    async def stop(self) -> None:
        """End all nodes."""
        await asyncio.gather(*(node.kill() for node in self.nodes))

    async def settled(self) -> None:
        """Wait until every node that runs sees a cluster that is well, and all replicas are linked."""

        async def well() -> bool:
            running = [node for node in self.nodes if node.is_running]
            infos = [await ask(node, "CLUSTER", "INFO") for node in running]
            roles = [await ask(node, "ROLE") for node in running]
            linked = all(role[0] == b"master" or role[3] == b"connected" for role in roles)
            return linked and all(HEALTHY in info and b"known_nodes:%d" % len(self.nodes) in info for info in infos)

        await wait_until(well, description="the cluster is well")

    async def primary_of(self, key: bytes) -> ServerProcess:
        """The node that serves a key now."""
        return await self.primary_of_slot(cluster_slot(key))

    async def primary_of_slot(self, slot: int) -> ServerProcess:
        """The node that serves a cluster slot now."""
        running = [node for node in self.nodes if node.is_running]
        for first, last, primary, *_ in await ask(running[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(f"nobody serves {slot}")

    async def move(self, slot: int, target: ServerProcess, *, pause_s: float = 0.0) -> int:
        """Move one cluster slot as `redis-cli --cluster reshard` does; returns how many keys.

        Args:
            slot: Which.
            target: To which primary.
            pause_s: Before each key, to have work meet the slot while it is moved.
        """
        source = await self.begin_move(slot, target)
        moved = 0
        while keys := await ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 10 if pause_s == 0 else 1):
            await asyncio.sleep(pause_s)
            await self.carry(keys, source, target)
            moved += len(keys)
        await self.finish_move(slot, source, target)
        return moved

    async def begin_move(self, slot: int, target: ServerProcess) -> ServerProcess:
        """Have a slot be moved, with all its keys where they were; returns who has them."""
        source = await self.primary_of_slot(slot)
        await ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", await ask(source, "CLUSTER", "MYID"))
        await ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", await ask(target, "CLUSTER", "MYID"))
        return source

    async def carry(self, keys: Sequence[bytes], source: ServerProcess, target: ServerProcess) -> None:
        """Take keys of a slot that is moved to where it goes."""
        await ask(source, "MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys)

    async def finish_move(self, slot: int, source: ServerProcess, target: ServerProcess) -> None:
        """Say that a slot has moved, to who gets it first."""
        for node in (target, source):
            await ask(node, "CLUSTER", "SETSLOT", slot, "NODE", await ask(target, "CLUSTER", "MYID"))

    def _node(self, directory: Path, program: str) -> ServerProcess:
        bus = free_port(system_random())
        arguments = ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
        arguments += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"]
        if self._authority is not None:
            arguments += ["--tls-cluster", "yes"]
        arguments += ["--repl-diskless-sync-delay", "0"]
        return redis_process(directory, *arguments, program=program, authority=self._authority)

    async def _bus_port(self, node: ServerProcess) -> int:
        return int((await ask(node, "CONFIG", "GET", "cluster-port"))[1])

    async def _replicate(self, replica: ServerProcess, primary: ServerProcess) -> None:
        identity = await ask(primary, "CLUSTER", "MYID")

        async def known() -> bool:
            (reply,) = await ask_all(replica, ("CLUSTER", "REPLICATE", identity))
            return not isinstance(reply, Refusal)

        await wait_until(known, description="the replica knows its primary")


class Sentinels:
    """A primary, two replicas, and three Sentinels that watch them.

    Args:
        directory: For their data and logs.
        authority: Who signs the certificates of all of them; then they speak TLS only.
    """

    def __init__(self, directory: Path, *, authority: Authority | None = None) -> None:
        self._authority = authority
        self.servers = [
            redis_process(directory / f"server-{number}", "--repl-diskless-sync-delay", "0", authority=authority)
            for number in range(3)
        ]
        self._directory = directory
        self.sentinels: list[ServerProcess] = []

    @property
    def url(self) -> str:
        """With all three Sentinels."""
        return _url(self.sentinels, f"sentinel={MASTER}", self._authority)

    async def start(self) -> None:
        """Start all, and return when the Sentinels know the replicas and each other."""
        primary, *replicas = self.servers
        await asyncio.gather(*(server.start() for server in self.servers))
        for replica in replicas:
            await ask(replica, "REPLICAOF", HOST, primary.port)
        self.sentinels = [self._sentinel(number, primary) for number in range(3)]
        await asyncio.gather(*(each.start() for each in self.sentinels))

        async def acquainted() -> bool:
            for sentinel in self.sentinels:
                row = (await ask(sentinel, "SENTINEL", "MASTERS"))[0]
                facts = dict(zip(row[::2], row[1::2], strict=True))
                if facts[b"num-slaves"] != b"2" or facts[b"num-other-sentinels"] != b"2":
                    return False
            return True

        await wait_until(acquainted, description="the Sentinels know everybody")

    async def stop(self) -> None:
        """End all."""
        await asyncio.gather(*(each.kill() for each in (*self.sentinels, *self.servers)))

    async def primary(self) -> ServerProcess:
        """The server that the Sentinels call the primary now."""
        place = await ask(self.sentinels[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return next(server for server in self.servers if server.port == int(place[1]))

    async def primary_other_than(self, before: ServerProcess) -> ServerProcess:
        """Wait until another one is the primary."""

        async def changed() -> bool:
            return await self.primary() is not before

        await wait_until(changed, description="a replica took over")
        return await self.primary()

    async def settled(self) -> None:
        """Wait until both other servers are linked replicas of the primary."""

        async def linked() -> bool:
            primary = await self.primary()
            try:
                roles = [await ask(server, "ROLE") for server in self.servers if server is not primary]
            except StoreError:
                # One ends its connections when it steps down, or has not started.
                return False
            return all(
                role[0] == b"slave" and int(role[2]) == primary.port and role[3] == b"connected" for role in roles
            )

        await wait_until(linked, description="the others follow the primary")

    async def step_down(self) -> None:
        """Have a replica take over from a primary that lives."""
        before = await self.primary()

        async def changed() -> bool:
            # Refused while another change of roles is under way.
            await ask_all(self.sentinels[0], ("SENTINEL", "FAILOVER", MASTER))
            return await self.primary() is not before

        await wait_until(changed, description="the primary stepped down")

    def _sentinel(self, number: int, primary: ServerProcess) -> ServerProcess:
        directory = self._directory / f"sentinel-{number}"
        directory.mkdir(parents=True)
        port = free_port(system_random())
        ports = {"port": str(port)} if self._authority is None else _sealed(port, self._authority)
        lines = [
            *(f"{name} {value}" for name, value in ports.items()),
            f"bind {HOST}",
            f"dir {directory}",
            f"sentinel monitor {MASTER} {HOST} {primary.port} 2",
            f"sentinel down-after-milliseconds {MASTER} {SENTINEL_DOWN_MS}",
            f"sentinel failover-timeout {MASTER} 5000",
        ]
        path = directory / "sentinel.conf"
        path.write_text("\n".join(lines) + "\n")
        command = ["redis-server", str(path), "--sentinel"]
        log_path = directory / "sentinel.log"
        return _process("sentinel", command, port=port, log_path=log_path, authority=self._authority)


def addresses(servers: Sequence[ServerProcess]) -> list[Address]:
    """Where they are."""
    return [Address(HOST, server.port) for server in servers]


async def grant(server: ServerProcess, line: str) -> None:
    """Carry out an `ACL SETUSER ...` as it stands in a shell."""
    await ask(server, *shlex.split(line))


async def denials(server: ServerProcess) -> list[str]:
    """What the server has forbidden so far, by the names of the commands or keys."""
    return [dict(zip(row[::2], row[1::2], strict=True))[b"object"].decode() for row in await ask(server, "ACL", "LOG")]


def tls_redis(directory: Path, authority: Authority, *, clients: str = "yes") -> tuple[ServerProcess, int]:
    """A Redis with TLS, not started yet, and its TLS port; its other port is for the test.

    Args:
        directory: For its data.
        authority: Who signs its certificate.
        clients: Whether clients need certificates: `yes`, `no` or `optional`.
    """
    certificate, key = authority.files_of("redis")
    port = free_port(system_random())
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority.ca_file]
    arguments = ["--tls-port", str(port), "--tls-auth-clients", clients, *map(str, files)]
    return redis_process(directory, *arguments), port


Family = TypeVar("Family", RedisCluster, Sentinels)


@contextlib.asynccontextmanager
async def started(family: Family) -> AsyncIterator[Family]:
    """Run all of a family's servers while the block runs."""
    try:
        await family.start()
        yield family
    finally:
        await family.stop()
