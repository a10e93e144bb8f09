"""`docs/migration.md`: the moved program runs, and every public name has its row."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

import pytest

from perdure.testing import HarnessFactory
from tests.documents import ROOT
from tests.waiting import PATIENCE, wait_until

from .conftest import both_ways

# The public names of restate-sdk 1.3.0, and those of its modules that its documentation uses.
THEIRS = """
Service VirtualObject Workflow Context ObjectContext ObjectSharedContext WorkflowContext WorkflowSharedContext
DurablePromise RestateDurableFuture RestateDurableCallFuture RestateDurableSleepFuture SendHandle ScopedContext
RunOptions TerminalError JournalValueCodec JournalValueCodecProvider app connect with_connection ConnectError
create_test_harness test_harness HarnessEnvironment gather as_completed wait_completed select logging
RestateLoggingFilter getLogger InvocationRetryPolicy SdkInternalBaseException is_internal_exception RestateClient
RestateClientSendHandle HttpError create_client exceptions.RetryableError exceptions.SuspendedException
exceptions.SdkInternalException exceptions.DisconnectedException serde.Serde serde.BytesSerde serde.JsonSerde
serde.DefaultSerde serde.PydanticJsonSerde serde.MsgspecJsonSerde extensions.current_context extensions.contextvar
context.Request context.AttemptFinishedEvent context.KeyValueStore context.HandlerType context.RunAction
"""

TEXT = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in TEXT.split("## Every public name")[1].splitlines() if line.startswith("| `")]


@both_ways
async def test_the_moved_program(perdure_harness: HarnessFactory, page: ModuleType, always_replay: bool) -> None:
    """Its handlers are what they were."""
    async with perdure_harness(page.app, always_replay=always_replay) as env:
        said = await env.client.call(page.greet, "Ada", timeout=PATIENCE)
        assert said == "Hello Ada! (1, [1, 2], c)"

        async def counted() -> bool:
            return await env.client.read_state("Counter", "everybody") == {"count": 1}

        await wait_until(counted)
    assert page.tried == ["Ada", "Ada"]


def test_every_name_of_theirs_has_a_row() -> None:
    """Each one, and no other."""
    named = [name for row in ROWS for name in re.findall(r"`([\w.]+)`", row[0])]
    assert sorted(named) == sorted(THEIRS.split())


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(perdure\.[\w.]+)`", TEXT))))
def test_names_of_ours_exist(name: str) -> None:
    """What is said to be here is here."""
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)
    assert attribute in importlib.import_module(module).__all__
