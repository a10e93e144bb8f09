"""Waiting for outcomes: `perdure.worker.outcomes`. The rest is shown in test_client.py."""

from __future__ import annotations

import asyncio

import pytest

from perdure.journal.connected_store import connected_store
from perdure.journal.keys import Keys
from perdure.journal.redis_admin import opened
from perdure.journal.redis_config import RedisConfig
from perdure.journal.store import Admission, Claimed
from perdure.schemas.entries import Input, Output, Success
from perdure.schemas.ids import new_invocation_id
from perdure.worker import outcomes as outcomes_module
from perdure.worker.clock import system_random
from perdure.worker.outcomes import Outcomes
from tests.waiting import PATIENCE_S, wait_until

DAY_MS = 86_400_000


async def test_nonsense_on_the_channel_does_no_harm(redis_url: str, namespace: str) -> None:
    """Anybody can publish: what is not an outcome makes a wait look into the store, and the true outcome comes."""
    config, keys = RedisConfig.from_url(redis_url), Keys(namespace, slots=2)
    admission = Admission(
        new_invocation_id("S", None, system_random()), "S", "h", None, Input(0, "w", (), b""), token="t", worker="w"
    )
    async with connected_store(config, keys, name="test") as store:
        claimed = await store.admit(admission, lease_ms=DAY_MS)
        assert isinstance(claimed, Claimed)
        async with Outcomes(store, config, keys, client="c") as outcomes, opened(config) as line:
            wait = asyncio.create_task(outcomes.wait(admission.invocation_id, sent=False))
            nonsense = ["", "{}", "\x00", f'{{"id":"{admission.invocation_id}","output":{{"value":', "null"]

            async def heard() -> bool:
                return all([await line.ask("PUBLISH", outcomes.channel, text) == 1 for text in nonsense])

            await wait_until(heard)
            assert not wait.done()
            output = Output(0, Success(b"1"))
            await store.complete(
                claimed.lease, [output], after=1, seq=1, retention_ms=DAY_MS, journal_retention_ms=DAY_MS
            )
            assert await asyncio.wait_for(wait, PATIENCE_S) == Success(b"1")


@pytest.mark.parametrize("look_first_s", [0.001, 600.0])
async def test_a_wait_for_what_was_sent_ends_in_time(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, look_first_s: float
) -> None:
    """Whether it looks before or not; and what was heard already is returned, however little time is left."""
    monkeypatch.setattr(outcomes_module, "LOOK_FIRST_S", look_first_s)
    config, keys = RedisConfig.from_url(redis_url), Keys(namespace, slots=2)
    invocation_id = new_invocation_id("S", None, system_random())
    async with (
        connected_store(config, keys, name="test") as store,
        Outcomes(store, config, keys, client="c") as outcomes,
    ):
        for within_s in (0.0, 0.05):
            expected = outcomes.expect(invocation_id)
            with pytest.raises(TimeoutError):
                await outcomes.wait(invocation_id, sent=True, expected=expected, within_s=within_s)
            outcomes.forget(invocation_id, expected)
        with pytest.raises(TimeoutError):
            await outcomes.wait(invocation_id, sent=True, within_s=0.0)
        heard = outcomes.expect(invocation_id)
        heard.set_result(Success(b"1"))
        assert await outcomes.wait(invocation_id, sent=True, expected=heard, within_s=0.0) == Success(b"1")
        outcomes.forget(invocation_id, heard)
        outcomes.forget(invocation_id, heard)


async def test_what_is_admitted_late_is_heard_at_once(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that begins before its invocation is admitted does not sleep through its outcome."""
    # So long that the wait would not end within the test if it were told of neither.
    monkeypatch.setattr(outcomes_module, "LOOK_FIRST_S", 600.0)
    config, keys = RedisConfig.from_url(redis_url), Keys(namespace, slots=2)
    admission = Admission(
        new_invocation_id("S", None, system_random()), "S", "h", None, Input(0, "w", (), b""), token="t", worker="w"
    )
    async with (
        connected_store(config, keys, name="test") as store,
        Outcomes(store, config, keys, client="c") as outcomes,
    ):
        wait = asyncio.create_task(outcomes.wait(admission.invocation_id, sent=True))
        await wait_until(lambda: outcomes._waits)
        claimed = await store.admit(admission, lease_ms=DAY_MS)
        assert isinstance(claimed, Claimed)

        async def known() -> bool:
            summary = await store.read_invocation(admission.invocation_id)
            return summary is not None and outcomes.channel in summary.fields.get("waiters", "")

        await wait_until(known, description="the wait has found what was admitted")
        output = Output(0, Success(b"1"))
        await store.complete(claimed.lease, [output], after=1, seq=1, retention_ms=DAY_MS, journal_retention_ms=DAY_MS)
        assert await wait == Success(b"1")
