"""Looking at everything that a worker needs, and saying what is wrong and the command that mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from platform import python_version

from perdure.journal.connected_store import connected_store
from perdure.journal.inspection import duration_text
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import FORMAT, opened, read_namespace
from perdure.schemas.errors import BrokerError, PerdureError

from .application import Application
from .findings import Finding
from .kafka_findings import examine_kafka, mend_of
from .redis_findings import examine_redis
from .settings import Settings, unknown_variables

LOOK_TIMEOUT_S = 15.0
"""For each look: above the timeouts of the clients that look."""

WORKER_SILENT_MS = 15_000
"""A worker is said to be silent after it: three heartbeats."""


async def examine(
    settings: Settings, application: Application | None, *, target: str, names: Iterable[str]
) -> list[Finding]:
    """Look at everything, as far as it can be reached; changes nothing.

    Args:
        settings: Where everything is.
        application: Whose topics are looked for; `None` leaves them out.
        target: How the application is called on the command line, for the commands that mend.
        names: Those of the environment's variables.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in ("perdure", "aiokafka", "redis", "hiredis"))
    findings = [Finding("ok", "versions", f"Python {python_version()}, {versions}")]
    findings += [Finding("advice", "settings", line) for line in unknown_variables(names)]
    looks = (
        ("Redis", lambda: examine_redis(settings)),
        ("namespace", lambda: _namespace(settings)),
        ("Kafka", lambda: examine_kafka(settings, application, target=target)),
    )
    for what, look in looks:
        findings += await _bounded(what, look)
    return findings


async def _bounded(what: str, look: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await look()
    except TimeoutError:
        return [Finding("problem", what, f"It did not answer within {LOOK_TIMEOUT_S:.0f} s.", "look at its log")]
    except BrokerError as error:
        return [Finding("problem", what, str(error), mend_of(error))]
    except PerdureError as error:
        return [Finding("problem", what, str(error))]


async def _namespace(settings: Settings) -> list[Finding]:
    config = settings.redis_config
    found = await read_namespace(config, settings.namespace)
    if found is None:
        mend = "start a worker, which makes it"
        return [Finding("advice", "namespace", f"{settings.namespace} is not in Redis yet.", mend)]
    keys = Keys(settings.namespace, slots=found.slots)
    text = f"{settings.namespace}: {found.slots} slots, format {found.format} of {FORMAT}"
    findings = [Finding("ok", "namespace", text)]
    if "slots" in settings.model_fields_set and settings.slots != found.slots:
        wrong = f"PERDURE_SLOTS is {settings.slots}, and the namespace was made with {found.slots}."
        findings.append(Finding("problem", "namespace", wrong, f"set PERDURE_SLOTS={found.slots}"))
    findings.append(await _workers(settings, keys))
    async with connected_store(config, keys, name="perdure-doctor") as store:
        paused = await store.list_invocations("paused", invocations_max=100)
    if paused:
        count = f"{len(paused)} or more" if len(paused) == 100 else str(len(paused))
        mend = "look at them with `perdure invocations list --status paused`"
        findings.append(Finding("advice", "invocations", f"{count} are paused and wait for an operator.", mend))
    return findings


async def _workers(settings: Settings, keys: Keys) -> Finding:
    async with opened(settings.redis_config, keys.workers) as line:
        seconds, _ = await line.ask("TIME")
        rows = await line.ask("ZRANGE", keys.workers, 0, -1, "WITHSCORES")
    ages = {rows[i].decode(): int(seconds) * 1000 - int(float(rows[i + 1])) for i in range(0, len(rows), 2)}
    alive = sorted(name for name, age_ms in ages.items() if age_ms < WORKER_SILENT_MS)
    if not alive:
        mend = "start one: perdure worker MODULE:APP"
        last = f"; the last one was heard {duration_text(min(ages.values()))} ago" if ages else ""
        return Finding("advice", "workers", f"none is alive{last}", mend)
    return Finding(
        "ok", "workers", f"{len(alive)} alive: {', '.join(alive[:10])}" + (", ..." if len(alive) > 10 else "")
    )
