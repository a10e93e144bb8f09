"""What the doctor says of Redis: one server, the primary that Sentinels know, or every primary of a cluster."""

from __future__ import annotations

from perdure.journal.durability import ServerFacts, durability_problems
from perdure.journal.redis_admin import every_servers_facts, forbidden
from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_places import cluster_map
from perdure.journal.redis_rights import acl_line
from perdure.journal.redis_topology import CLUSTER_SLOTS
from perdure.journal.transitions import Memory

from .ceiling import HOLD_FROM, SHED_FROM
from .findings import Finding
from .settings import Settings


async def examine_redis(settings: Settings) -> list[Finding]:
    """Look at every server that there is.

    Raises:
        SettingsError: The login is wrong, or the Sentinels do not know the name.
        StoreError: A server does not answer.
    """
    config = settings.redis_config
    findings = await _coverage(config) if config.cluster else []
    found = await every_servers_facts(config)
    for server, facts in found:
        findings += await _server(settings, server, facts)
    if (config.cluster or config.sentinel is not None) and settings.replicas == 0:
        said = "Offsets do not wait for a replica: what was admitted last may be lost when one takes over."
        findings.append(Finding("advice", "Redis", said, "set PERDURE_REPLICAS=1"))
    return findings


async def _coverage(config: RedisConfig) -> list[Finding]:
    found = await cluster_map(config)
    text = f"{config.address}: {len(found.primaries)} primaries"
    if not found.uncovered:
        return [Finding("ok", "Redis", text)]
    first = config.servers[0]
    wrong = f"{text}; nobody serves {found.uncovered} of the {CLUSTER_SLOTS} slots, and what is in them waits."
    return [Finding("problem", "Redis", wrong, f"redis-cli --cluster fix {first}")]


async def _server(settings: Settings, server: RedisConfig, facts: ServerFacts) -> list[Finding]:
    config = settings.redis_config
    findings = [Finding("ok", "Redis", f"{server.address}: {facts.describe()}")]
    findings += [
        Finding("problem" if problem.loses_data else "advice", "Redis", problem.what, problem.mend)
        for problem in durability_problems(facts, replicas=settings.replicas, cluster=config.cluster)
    ]
    findings += _memory(Memory(facts.used_bytes or 0, facts.maxmemory_bytes or 0))
    if facts.waitaof is False:
        findings.append(
            Finding("advice", "Redis", "It has no WAITAOF: offsets lag two seconds behind.", "upgrade to 7.2 or later")
        )
    if config.cluster and facts.replicas == 0:
        said = f"{server.address} has no replica: while it is away, the work of its slots stands still."
        findings.append(Finding("advice", "Redis", said, "redis-cli --cluster add-node HOST:PORT ... --cluster-slave"))
    missing = await forbidden(server, settings.namespace, waitaof=facts.waitaof is not False, cluster=config.cluster)
    if missing:
        user = server.username or "default"
        said = f"The user {user} lacks rights: {', '.join(missing)}."
        line = acl_line(settings.namespace, user=user, waitaof=facts.waitaof is not False)
        findings.append(Finding("problem", "Redis", said, f"redis-cli {line}"))
    return findings


def _memory(memory: Memory) -> list[Finding]:
    mend = "redis-cli CONFIG SET maxmemory ..., shorter retention, or `perdure invocations purge`"
    if memory.share >= HOLD_FROM:
        found = f"It has {memory.describe()} in use: new work waits in Kafka, what is in progress goes on."
        return [Finding("problem", "Redis", found, mend)]
    if memory.share >= SHED_FROM:
        found = f"It has {memory.describe()} in use: journals of completed invocations are removed early."
        return [Finding("advice", "Redis", found, mend)]
    return []
