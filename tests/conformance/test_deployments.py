"""What waits for a deployment: paused by one version, resumed on the next."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure.worker.application import Application, app
from perdure.worker.context import Context
from perdure.worker.options import InvocationRetryPolicy
from perdure.worker.service import Service
from tests.integration.conftest import quick_settings
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE

from .catalogue import verifies
from .outside import Outside


def version(*, fixed: bool) -> Application:
    """An application whose handler has a bug, or has it no more."""
    policy = InvocationRetryPolicy(initial_interval=timedelta(milliseconds=1), max_attempts=10)
    service = Service("Deployed", invocation_retry_policy=policy)

    @service.handler()
    async def work(ctx: Context) -> str:
        recorded = await ctx.run_typed("step", lambda: "the first version" if not fixed else "the second version")
        if not fixed:
            raise ValueError("a bug")
        return f"step by {recorded}"

    return app([service])


@pytest.mark.parametrize("always_replay", [False, True], ids=["plain-1", "replay-1"])
@verifies("PauseResumeChangingDeploymentTest", "resumeOnAFixedDeployment")
async def test_resumed_on_a_fixed_deployment(
    redis_url: str, bootstrap_servers: str, namespace: str, always_replay: bool
) -> None:
    """Paused after ten attempts; the version with the mended handler goes on from what the first one recorded."""
    deployment = Deployment(quick_settings(redis_url, bootstrap_servers, namespace, always_replay=always_replay))
    async with deployment.sender(version(fixed=False)), deployment.client() as client, deployment.store() as store:
        outside = Outside(client, store)
        async with deployment.worker(version(fixed=False)):
            handle = await client.send("Deployed/work")
            await outside.becomes(handle.invocation_id, "paused")
            assert "a bug" in await outside.failure(handle.invocation_id)
            assert (await handle.status()).attempts >= 10
        async with deployment.worker(version(fixed=True)):
            assert await outside.resume(handle.invocation_id)
            assert await handle.result(timeout=PATIENCE) == "step by the first version"
