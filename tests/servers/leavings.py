"""Taking back what tests leave on a broker that they share: topics, which every new client of the embedded one is told.

The embedded broker answers each connection's first question with all its topics. Late in a run that was most of what
a client's start costs: 46 ms of Python for a thousand of them, and a run leaves thousands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

# Apache Kafka deletes a hundred topics in some 20 ms; a broker that does not answer is left to its tests.
DELETE_MS = 10_000


def delete_topics(bootstrap_servers: str, prefixes: Collection[str]) -> None:
    """Delete the topics whose names begin with any of these. Blocks, and may be called beside an event loop.

    What cannot be deleted stays: it costs time, and no test.
    """
    # In a thread of its own, because the caller's may have an event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _delete(bootstrap_servers, tuple(prefixes))).result()


async def _delete(bootstrap_servers: str, prefixes: tuple[str, ...]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=DELETE_MS)
    try:
        await admin.start()
        if left := [topic for topic in await admin.list_topics() if topic.startswith(prefixes)]:
            await admin.delete_topics(left, timeout_ms=DELETE_MS)
    except (KafkaError, OSError):
        return
    finally:
        await admin.close()
