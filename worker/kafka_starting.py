"""Starting aiokafka clients: closing what a start that is given up leaves, and heeding what a consumer overlooks.

Law: private attributes of aiokafka (pinned below 0.15) are touched here and in `kafka_closing` only; nothing public
reaches the first connection of a client, or shows a consumer an answer's error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

OFFSET_FETCH = 9
"""Kafka's number of the request for commits."""

MOVED = (15, 16)
"""Kafka's numbers of the errors that say that the coordinator is another one, or none just now."""


async def start_client(starting: Awaitable[object]) -> None:
    """Await what starts a client of aiokafka 0.14; where that is given up, close the connection that it forgets.

    It asks its first connection for the topics before it keeps it anywhere, and expects no cancellation meanwhile.

    Args:
        starting: Its `start()` or `bootstrap()`.
    """
    try:
        await starting
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None:
            if (forgotten := trace.tb_frame.f_locals.get("bootstrap_conn")) is not None:
                forgotten.close()
            trace = trace.tb_next
        raise


async def start_consumer(client: Any, error_of: Callable[[int], type[Exception]]) -> None:
    """Start a consumer that heeds it where a coordinator refuses to tell commits.

    aiokafka 0.14 looks at the errors of partitions, and an answer that is refused as a whole names none: it would take
    it that nothing was ever committed, and begin every partition with its first record.

    Args:
        client: Not started yet.
        error_of: The error of a number.
    """
    await start_client(client.start())
    coordinator = client._coordinator
    send = coordinator._send_req

    async def heeding(request: Any) -> Any:
        answer = await send(request)
        code = getattr(answer, "error_code", 0) if request.API_KEY == OFFSET_FETCH else 0
        if code:
            if code in MOVED:
                coordinator.coordinator_dead()
            # Asked again by whoever asked, unless it is for good.
            raise error_of(code)()
        return answer

    coordinator._send_req = heeding
