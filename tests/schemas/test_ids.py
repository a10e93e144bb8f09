"""Invocation ids: golden values that hold for ever, slots, and what is an id."""

from __future__ import annotations

import random
from functools import partial

import pytest

from perdure.schemas.ids import (
    PLACES,
    InvocationId,
    awakeable_id,
    id_of_call,
    id_of_idempotency_key,
    id_of_record,
    id_of_restart,
    id_of_subscribed_record,
    id_of_workflow,
    is_invocation_id,
    new_invocation_id,
    place_of_object,
    read_awakeable_id,
    slot_of,
    step_key,
)
from perdure.schemas.limits import JOURNAL_ENTRIES_CEILING


def test_the_id_of_a_record_never_changes() -> None:
    """Another derivation would run redelivered records a second time: never edit these values."""
    assert (
        id_of_record("Greeter", None, topic="t", partition=0, offset=0, timestamp_ms=0)
        == "inv_362a3e620c9ad74e49987abb6ab"
    )
    orders = partial(id_of_record, topic="orders", partition=3, offset=12345678901, timestamp_ms=1700000000000)
    assert orders("Greeter", None) == "inv_38480aab1f31002b970ab546b37"
    assert orders("Greeter", "ada") == "inv_1d180aab1f31002b970ab546b37"


def test_the_id_of_a_subscribed_record_never_changes() -> None:
    """Another derivation would run what Kafka delivers again a second time: never edit these values."""
    assert (
        id_of_subscribed_record("Shop", None, group="g", topic="t", partition=0, offset=0, timestamp_ms=0)
        == "inv_06bd36191d12f7da0d5d6da5525"
    )
    orders = partial(
        id_of_subscribed_record,
        group="perdure.Shop.order.orders",
        topic="orders",
        partition=3,
        offset=12345678901,
        timestamp_ms=1700000000000,
    )
    assert orders("Shop", None) == "inv_2fe786c2fa55af64563155c0bf7"
    assert orders("Shop", "ada") == "inv_29f786c2fa55af64563155c0bf7"


def test_each_group_processes_a_record_once_for_itself() -> None:
    """Two groups on one topic, and a record of the service's own topic, are different invocations."""
    record = partial(id_of_record, "S", None, partition=1, offset=1, timestamp_ms=1)
    subscribed = partial(id_of_subscribed_record, "S", None, partition=1, offset=1, timestamp_ms=1)
    ids = {record(topic="t"), subscribed(group="a", topic="t"), subscribed(group="b", topic="t")}
    ids |= {subscribed(group="a", topic="u"), subscribed(group="at", topic="")}
    assert len(ids) == 5


def test_the_id_of_an_idempotency_key_never_changes() -> None:
    """Another derivation would run a repeated request a second time: never edit these values."""
    derive = id_of_idempotency_key
    assert derive("Greeter", "greet", None, idempotency_key="k1") == "inv_205f5cef793bf0b517c481900ba"
    assert derive("Greeter", "greet", "", idempotency_key="k1") == "inv_24b4703163bab233070e021e58e"
    assert derive("Greeter", "greet", "ada", idempotency_key="k1") == "inv_1d1e1ed4fae22c9f8d2cacb18e3"
    assert derive("Greeter", "greet", "ada", idempotency_key="\ud800") == "inv_1d108d860da0bb04afbdc0c50d0"


def test_the_place_of_an_object_never_changes() -> None:
    """State and locks of an object are found by it: never edit these values."""
    places = [place_of_object(*of) for of in (("Greeter", "ada"), ("Gréêter", "ключ"), ("a", "bc"), ("ab", "c"))]
    assert places == [465, 516, 595, 754]


def test_a_fresh_id_follows_from_its_entropy() -> None:
    """A simulation with one seed makes the same ids again; two fresh ones differ."""
    entropy = random.Random(7)
    assert new_invocation_id("Greeter", None, entropy) == "inv_3d238b4e652e44da7f2370d9e26"
    assert new_invocation_id("Greeter", "ada", entropy) == "inv_1d12b902f8911e81818f8c99d5d"


def test_each_part_counts() -> None:
    """A change of any part of a record's place, or of a request's address, makes another id."""
    places = [("t", 1, 1, 1), ("u", 1, 1, 1), ("t", 2, 1, 1), ("t", 1, 2, 1), ("t", 1, 1, 2)]
    ids = {
        id_of_record("S", None, topic=topic, partition=partition, offset=offset, timestamp_ms=at)
        for topic, partition, offset, at in places
    }
    assert len(ids) == 5
    requests = {
        id_of_idempotency_key(service, handler, key, idempotency_key=name)
        for service, handler, key, name in [
            ("S", "h", None, "x"),
            ("S2", "h", None, "x"),
            ("S", "h2", None, "x"),
            ("S", "h", "", "x"),
            ("S", "h", "k", "x"),
            ("S", "h", None, "y"),
            ("Sh", "", None, "x"),
            ("S", "h", "x", ""),
        ]
    }
    assert len(requests) == 8


@pytest.mark.parametrize("slots", [1, 2, 3, 64, PLACES])
def test_an_invocation_of_an_object_is_in_the_objects_slot(slots: int) -> None:
    """Whatever its id is derived from: one slot, so that one script may touch both."""
    slot = place_of_object("Cart", "ada") % slots
    entropy = random.Random(1)
    assert slot_of(new_invocation_id("Cart", "ada", entropy), slots) == slot
    assert slot_of(id_of_idempotency_key("Cart", "add", "ada", idempotency_key="x"), slots) == slot
    assert slot_of(id_of_record("Cart", "ada", topic="t", partition=1, offset=2, timestamp_ms=3), slots) == slot


def test_ids_without_a_key_spread_over_all_slots() -> None:
    """No slot is left out or crowded."""
    entropy = random.Random(2)
    counts = [0] * 64
    for _ in range(6400):
        counts[slot_of(new_invocation_id("S", None, entropy), 64)] += 1
    assert min(counts) > 50
    assert max(counts) < 160


def test_the_slot_is_readable_from_the_id() -> None:
    """The three digits after the prefix are the place."""
    assert slot_of("inv_000" + "0" * 24, PLACES) == 0
    assert slot_of("inv_010" + "0" * 24, PLACES) == 16
    assert slot_of("inv_3ff" + "0" * 24, PLACES) == 1023
    assert slot_of("inv_3ff" + "0" * 24, 64) == 63


@pytest.mark.parametrize(
    "text",
    [
        "",
        "inv_",
        "inv_" + "0" * 26,
        "inv_" + "0" * 28,
        "inv_0" + "g" * 26,
        "inv_0" + "A" * 26,
        "inv_4" + "0" * 26,
        "INV_" + "0" * 27,
        "inv_" + "0" * 27 + "\n",
        "inv_" + "\u0660" * 27,
    ],
)
def test_what_is_no_id(text: str) -> None:
    """Length, alphabet and prefix are exact; a newline at the end is seen."""
    assert not is_invocation_id(text)


def test_what_is_made_here_is_an_id() -> None:
    """Fresh and derived ones."""
    assert is_invocation_id(new_invocation_id("S", None, random.Random(3)))
    assert is_invocation_id(id_of_record("S", "k", topic="t", partition=0, offset=0, timestamp_ms=0))


def test_a_steps_key_is_its_place() -> None:
    """The same in every attempt, other for every step."""
    assert step_key("inv_x", 3) == "inv_x:3"


def test_the_ids_of_calls_and_workflows_never_change() -> None:
    """Another derivation would call twice in the replays that a deployment causes: never edit these values."""
    parent = InvocationId("inv_362a3e620c9ad74e49987abb6ab")
    assert id_of_call("Greeter", None, parent=parent, command_index=0) == "inv_3a1ceb93d4bc4b9d07deed3af85"
    assert id_of_call("Greeter", "ada", parent=parent, command_index=0) == "inv_1d1ceb93d4bc4b9d07deed3af85"
    assert id_of_call("Greeter", None, parent=parent, command_index=1) == "inv_0ed6600c07e347c8a8b6d9dbb07"
    assert id_of_workflow("Signup", "ada") == "inv_0830e0c6f0d172df68c095074e6"


def test_an_awakeable_names_its_invocation() -> None:
    """Whoever is given the id needs nothing else to complete it."""
    invocation_id = InvocationId("inv_362a3e620c9ad74e49987abb6ab")
    assert read_awakeable_id(awakeable_id(invocation_id, 12)) == (invocation_id, 12)
    last = JOURNAL_ENTRIES_CEILING - 1
    assert read_awakeable_id(awakeable_id(invocation_id, last)) == (invocation_id, last)
    for text in ("", "awk_", invocation_id, awakeable_id(invocation_id, 12) + "x", awakeable_id(invocation_id, -1)):
        assert read_awakeable_id(text) is None


def test_no_awakeable_stands_behind_the_longest_journal() -> None:
    """Each command has an entry: whoever names a later one has made the id up, or mistyped it."""
    invocation_id = new_invocation_id("S", None, random.Random(0))
    for index in (JOURNAL_ENTRIES_CEILING, 999_999_999):
        assert read_awakeable_id(awakeable_id(invocation_id, index)) is None
    assert read_awakeable_id(awakeable_id(invocation_id, 1).replace("_1", "_01")) is None


def test_a_restart_stays_in_its_place() -> None:
    """What restarts an object's invocation belongs to the same object."""
    original = InvocationId("inv_362a3e620c9ad74e49987abb6ab")
    restarted = id_of_restart(original, entropy=random.Random(1))
    assert is_invocation_id(restarted)
    assert restarted != original
    assert restarted[:7] == original[:7]
