"""Ending aiokafka clients that do not end by themselves, and knowing how they are.

Law: never hangs, leaves no task behind and no connection. Private attributes of aiokafka (pinned below 0.15) are
touched here and in `kafka_starting` only: nothing public ends a client whose `stop()` hangs or raises half-way (its
issues 659, 773, 1101), tells its health, or sends a request that a consumer has no method for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

from perdure.schemas.errors import BrokerError

logger = logging.getLogger(__name__)

_DROP_MS = 500
"""For each thing that is left of a client that did not close: it only waits for the event loop, not for a network."""

_CANCELS_MAX = 4
"""aiokafka nests three tasks at most; each may absorb one cancellation."""


async def within(timeout_ms: int, closing: Awaitable[object]) -> None:
    """Await what closes a client, and report what it does not manage."""
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await closing
    # aiokafka's errors are RuntimeErrors.
    except (TimeoutError, RuntimeError, OSError) as error:
        logger.info("a Kafka client did not close cleanly and is abandoned: %r", error)
    except asyncio.CancelledError:
        # aiokafka's stop() lets the CancelledError of its own tasks out (its issue 659); ours goes on.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


def client_of(consumer: Any) -> Any:
    """What a started consumer sends its requests with."""
    return consumer._client


def consumer_ended(client: Any, *, joining: bool) -> str | None:
    """Say why nothing will ever come of a started consumer, if so.

    Its coordination, its fetching or its looking out for topics died of an error that aiokafka did not expect. Or one
    that it did expect waits to be taken by a `getmany`, which nobody calls while the group is joined: it may be
    forbidden.
    """
    coordinator = client._coordinator
    working = (coordinator._coordination_task, client._fetcher._fetch_task)
    if any(task.done() for task in working) or _blind(client._client):
        return "aiokafka's consumer died"
    if joining and coordinator._error_consumed_fut is not None:
        why = f"{coordinator._pending_exception!r}"
        return f"it cannot join the group {coordinator.group_id}: {why}, look at the brokers' access rules"
    return None


async def commit_once(client: Any, offsets: Mapping[Any, Any], *, member: bool) -> None:
    """Commit in one request, which names the membership that the consumer has now.

    Its own `commit` tries again on connections that are made later, and then under whichever membership there is:
    offsets of a topic that a broker has lost meanwhile may become those of its namesake.

    Args:
        client: A started consumer with partitions.
        offsets: By aiokafka's partitions, with metadata.
        member: Whether a group assigned them.

    Raises:
        BrokerError: The group does not know this consumer any more.
        KafkaError: Refused, or not answered.
    """
    coordinator = client._coordinator
    await coordinator.ensure_coordinator_known()
    if member and coordinator.generation < 0:
        # It would be taken for the word of an administrator, who knows better than the members.
        raise BrokerError("Could not commit offsets: the group has buried this member, which joins anew.")
    await coordinator._do_commit_offsets(None, offsets)


async def fetch_commits(client: Any, partitions: list[Any]) -> dict[Any, Any]:
    """Return what is committed, with its metadata; partitions without a commit are left out."""
    found: dict[Any, Any] = await client._coordinator.fetch_committed_offsets(partitions)
    return found


def producer_ended(client: Any) -> bool:
    """Whether a started producer's sending died, so that every later send fails, or its looking out for topics."""
    return bool(client._sender.sender_task.done()) or _blind(client.client)


def _blind(client: Any) -> bool:
    # Without it nothing is heard of new leaders, partitions and topics, and who waits for that waits for ever.
    task = client._sync_task
    return task is not None and bool(task.done())


async def stop_consumer(client: Any, timeout_ms: int) -> None:
    """Leave the group and close; end whatever a hanging or failed `stop()` left."""
    try:
        await within(timeout_ms, client.stop())
    finally:
        await _drop_consumer(client)


async def _drop_consumer(client: Any) -> None:
    client._closed = True
    tasks = [client._fetcher._fetch_task, *client._fetcher._pending_tasks] if client._fetcher else []
    if (coordinator := client._coordinator) is not None:
        tasks += [coordinator._coordination_task, coordinator._heartbeat_task, coordinator._commit_refresh_task]
    await _end(tasks)
    await close_client(client._client)


async def stop_producer(client: Any, timeout_ms: int) -> None:
    """Send what is buffered and close; end whatever a hanging or failed `stop()` left: what was not sent fails."""
    try:
        await within(timeout_ms, client.stop())
    finally:
        await _drop_producer(client)


async def _drop_producer(client: Any) -> None:
    client._closed = True
    for batches in client._message_accumulator._batches.values():
        for batch in batches:
            batch._drain_waiter.add_done_callback(retrieve)
    client._message_accumulator.fail_all(BrokerError("The producer was closed before this was sent: send it again."))
    await close_client(client.client)
    await _end([client._sender.sender_task])


async def close_client(client: Any) -> None:
    """Close all connections, those also that somebody is making just now."""
    client._conns = _Closing(client._conns)
    # Its own `close()` waits for its lookout for topics first, which may absorb that it is cancelled.
    for connection in client._conns.values():
        connection.close()
    await within(_DROP_MS, client.close())


class _Closing(dict[Any, Any]):
    """The connections of a client that is closed: aiokafka would keep one that comes late, and nobody close it."""

    def __setitem__(self, place: Any, connection: Any) -> None:
        connection.close()
        super().__setitem__(place, connection)


async def _end(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks until they are done: some of aiokafka's await others when they are cancelled."""
    pending = {task for task in tasks if task is not None}
    for _ in range(_CANCELS_MAX):
        if not pending:
            break
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_DROP_MS / 1000)
        for task in done:
            retrieve(task)


def retrieve(future: asyncio.Future[Any]) -> None:
    """Mark a failure as seen, so that asyncio does not report it when the future is forgotten."""
    if not future.cancelled():
        future.exception()
