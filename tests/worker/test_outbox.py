"""Producing until acknowledged: `perdure.worker.outbox`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from perdure.worker import outbox as outbox_module
from perdure.worker.broker import Outgoing
from perdure.worker.clock import SystemClock
from perdure.worker.outbox import BATCH_MAX, Outbox
from tests.waiting import wait_until
from tests.worker.scripted_broker import ScriptedBroker


def letter(topic: str, number: int) -> Outgoing:
    """A record that can be told from others."""
    return Outgoing(topic, b"key", b"%d" % number)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "RETRY_S", 0.01)
    monkeypatch.setattr(outbox_module, "RETRY_S_MAX", 0.02)


@pytest.fixture
def broker() -> ScriptedBroker:
    """A broker that takes everything."""
    return ScriptedBroker()


@pytest.fixture
async def outbox(broker: ScriptedBroker) -> AsyncIterator[Outbox]:
    """An outbox at work."""
    box = Outbox(broker, clock=SystemClock())
    task = asyncio.create_task(box.run())
    yield box
    task.cancel()
    await asyncio.wait([task])


async def test_everything_is_produced_in_order_and_acknowledged(broker: ScriptedBroker, outbox: Outbox) -> None:
    """In batches, per topic in order, and `emptied` returns after the last acknowledgement."""
    acknowledged: list[int] = []
    for number in range(2 * BATCH_MAX + 1):
        outbox.put(letter("t", number), lambda number=number: acknowledged.append(number))  # type: ignore[misc]
    await outbox.emptied()
    assert acknowledged == list(range(2 * BATCH_MAX + 1))
    assert [int(record.value or b"") for record in broker.produced] == acknowledged
    assert [len(call) for call in broker.calls] == [BATCH_MAX, BATCH_MAX, 1]


async def test_an_empty_outbox_is_emptied(outbox: Outbox) -> None:
    """Nothing to wait for, before and after work."""
    await outbox.emptied()
    outbox.put(letter("t", 1))
    await outbox.emptied()
    await outbox.emptied()


async def test_refused_records_are_produced_again(broker: ScriptedBroker, outbox: Outbox) -> None:
    """Until Kafka has them, and acknowledged once."""
    acknowledged: list[int] = []
    broker.refused.add("t")
    outbox.put(letter("t", 1), lambda: acknowledged.append(1))
    await wait_until(lambda: len(broker.calls) >= 4)
    assert acknowledged == []
    broker.refused.clear()
    await outbox.emptied()
    assert acknowledged == [1]
    assert len(broker.produced) == 1


async def test_a_topic_that_refuses_holds_up_no_other(
    broker: ScriptedBroker, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A reply topic that does not exist delays its own records only, and is named in the log."""
    broker.refused.add("missing")
    acknowledged: list[str] = []
    for number in range(5):
        outbox.put(letter("missing", number), lambda: acknowledged.append("missing"))
        outbox.put(letter("there", number), lambda: acknowledged.append("there"))
    with caplog.at_level(logging.WARNING):
        await wait_until(lambda: acknowledged == ["there"] * 5)
        await wait_until(lambda: "records for missing are not acknowledged" in caplog.text)
    broker.refused.clear()
    await outbox.emptied()
    assert acknowledged == ["there"] * 5 + ["missing"] * 5


async def test_a_record_that_is_too_large_is_left_where_it_was(
    broker: ScriptedBroker, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once and never acknowledged, so that its offset stays; the others of its batch are produced."""
    broker.too_large.add(b"2")
    acknowledged: list[int] = []
    for number in range(4):
        outbox.put(letter("t", number), lambda number=number: acknowledged.append(number))  # type: ignore[misc]
    await outbox.emptied()
    assert acknowledged == [0, 1, 3]
    assert len([line for line in caplog.messages if "can never be produced" in line]) == 1
    outbox.put(letter("t", 9), lambda: acknowledged.append(9))
    await outbox.emptied()
    assert acknowledged[-1] == 9


async def test_something_smaller_goes_where_a_record_is_too_large(broker: ScriptedBroker, outbox: Outbox) -> None:
    """In its place, and is acknowledged for it; the others of its batch go as they are."""
    broker.too_large.add(b"2")
    acknowledged: list[int] = []
    for number in range(4):
        outbox.put(letter("t", number), lambda number=number: acknowledged.append(number), instead=letter("t", 7))  # type: ignore[misc]
    await outbox.emptied()
    assert acknowledged == [0, 1, 2, 3]
    assert [record.value for record in broker.produced] == [b"0", b"1", b"7", b"3"]


async def test_what_nobody_depends_on_is_dropped_when_too_much_waits(
    broker: ScriptedBroker, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resume records beyond the bound are left to `due`; what somebody waits for is kept."""
    monkeypatch.setattr(outbox_module, "WAITING_MAX", 3)
    broker.refused.add("t")
    for number in range(5):
        outbox.put(letter("t", number))
    outbox.put(letter("t", 9), lambda: None)
    broker.refused.clear()
    await outbox.emptied()
    assert [record.value for record in broker.produced] == [b"0", b"1", b"2", b"9"]
