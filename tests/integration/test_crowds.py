"""More invocations that wait for each other than fit into a worker at once."""

from __future__ import annotations

from perdure.worker.application import Application, app
from perdure.worker.context import Context
from perdure.worker.service import Service
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE

CONCURRENCY = 4
DEPTH = 12


def deep() -> Application:
    """Calls within calls."""
    service = Service("Deep")

    @service.handler()
    async def down(ctx: Context, depth: int) -> int:
        return 0 if depth == 0 else 1 + await ctx.service_call(down, depth - 1)

    return app([service])


async def test_callers_make_room_for_their_callees(deployment: Deployment) -> None:
    """A chain of calls longer than a worker's concurrency ends: who only waits does so outside of memory."""
    application = deep()
    async with (
        deployment.sender(application),
        deployment.worker(application, concurrency=CONCURRENCY),
        deployment.client() as client,
    ):
        handles = [await client.send("Deep/down", DEPTH) for _ in range(3)]
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == [DEPTH] * 3
