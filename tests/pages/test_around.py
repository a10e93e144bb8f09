"""`docs/around.md`."""

from __future__ import annotations

import logging
from types import ModuleType

import pytest

from perdure import Client
from perdure.testing import HarnessFactory
from tests.waiting import PATIENCE

from .conftest import both_ways


@both_ways
async def test_all_that_is_around(
    perdure_harness: HarnessFactory, page: ModuleType, caplog: pytest.LogCaptureFixture, always_replay: bool
) -> None:
    """The lifespan holds while the worker does, each line is logged once and names its invocation, headers arrive."""
    caplog.set_level(logging.INFO, "greetings")
    async with perdure_harness(page.application, always_replay=always_replay) as env:
        assert page.database == {"state": "open"}
        async with Client(env.settings, payload_codec=page.Compressed()) as client:
            said = await client.call(page.greet, "Ada", timeout=PATIENCE, headers={"tenant": "acme"})
    assert said == "composed, Ada of acme"
    assert page.database == {"state": "closed"}
    lines = [record for record in caplog.records if record.name == "greetings"]
    assert [record.getMessage() for record in lines] == ["greeting Ada", "composed"]
    assert {vars(record)["handler"] for record in lines} == {"greet"}
