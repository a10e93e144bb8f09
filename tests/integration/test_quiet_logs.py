"""What handlers are given and give back is in no log above DEBUG, whatever goes wrong with it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from perdure import Context, Service, TerminalError, app
from tests.integration.deployment import Deployment, envelope, record
from tests.waiting import PATIENCE, wait_until

SECRET = "p4yl04d-m4rk3r"


def hides(text: str) -> None:
    """Hold a text to hold none of it."""
    assert [line for line in text.splitlines() if SECRET in line] == []


async def test_payloads_are_in_no_log(plain: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    """Arguments that are refused, results that cannot be written, dead letters: told, and the values left out."""
    service = Service("Shy")

    @service.handler()
    async def add(ctx: Context, numbers: list[int]) -> Any:
        await ctx.run("keep", lambda: {"kept": SECRET})
        return {"value": SECRET}

    @service.handler()
    async def odd(ctx: Context, argument: Any) -> Any:
        return {SECRET: object()}

    caplog.set_level(logging.INFO)
    async with plain.sender(app([service])) as sender, plain.worker(app([service])), plain.client() as client:
        assert await client.call("Shy/add", [1], timeout=PATIENCE) == {"value": SECRET}
        refused = await client.send("Shy/add", [SECRET, {"a": SECRET}])
        odd_one = await client.send("Shy/odd", SECRET)
        for value in (f'{{"handler": "add", "argument": "{SECRET}'.encode(), f'["{SECRET}"]'.encode()):
            await sender.send(record(plain.topic("Shy"), value, key=SECRET.encode()))
        await sender.send(
            record(plain.topic("Shy"), envelope("add", SECRET, reply_to="no topic!", headers={"a": SECRET}))
        )
        with pytest.raises(TerminalError, match="list") as raised:
            await refused.result(timeout=PATIENCE)
        hides(str(raised.value))
        await wait_until(
            lambda: "backing" in caplog.text or "retried" in caplog.text, description="the result is refused"
        )
        await plain.read(plain.topic("dead"), lambda records: len(records) >= 3)
        assert odd_one.invocation_id in caplog.text
    hides(caplog.text)
