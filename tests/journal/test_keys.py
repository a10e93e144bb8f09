"""The names of keys: what people type into redis-cli, and what keeps one invocation in one slot."""

from __future__ import annotations

import re

import pytest

from perdure.journal.keys import STATUSES, Keys
from perdure.schemas.ids import InvocationId

ID = InvocationId("inv_021" + "0" * 24)  # place 33


def test_the_names_never_change() -> None:
    """Journals of older versions are found by them: never edit these values."""
    keys = Keys("ns", slots=64)
    assert keys.of(ID) == (
        33,
        b"ns:{33}:invocation:" + ID.encode(),
        b"ns:{33}:journal:" + ID.encode(),
        b"ns:{33}:due",
        b"ns:{33}:status:",
    )
    assert keys.prefix(5) == b"ns:{5}:"
    assert keys.due(5) == b"ns:{5}:due"
    assert keys.status(5, "running") == b"ns:{5}:status:running"
    assert keys.settings == "ns:settings"
    assert keys.workers == "ns:workers"
    assert keys.worker("w1") == "ns:worker:w1"
    assert keys.barrier("w1") == "ns:barrier:w1"
    assert keys.hints("w1") == "ns:hints:w1"
    assert keys.outcomes("c1") == "ns:outcome:c1"


@pytest.mark.parametrize("slots", [1, 2, 64, 1024])
def test_all_keys_of_an_invocation_have_one_hash_tag(slots: int) -> None:
    """One slot of a cluster, hence one script; the tag is what stands between the first braces."""
    keys = Keys("ns", slots=slots)
    slot, *names = keys.of(ID)
    tags = {found.group(1) for name in names if (found := re.search(rb"\{(.*?)\}", bytes(name)))}
    assert tags == {str(slot).encode()}
    assert slot == 33 % slots
    assert keys.due(slot) == names[2]
    assert keys.status(slot, "ready") == names[3] + b"ready"


def test_an_object_and_its_invocations_are_in_one_slot() -> None:
    """Whatever the key says, and the run of a workflow with them; one without an object has its own slot's."""
    keys = Keys("ns", slots=64)
    for target in ("Cart/ada", "Cart/", "Cart/a/b:c", "Größe/{7}"):
        slot, (run, of_run) = keys.slot_of_target(target), keys.run_of(target)
        prefix = f"ns:{{{slot}}}:"
        assert keys.object(target, "queue") == f"{prefix}queue:{target}".encode()
        assert keys.state_beside(run, target) == keys.object(target, "state")
        assert of_run == f"{prefix}invocation:{run}".encode()
    assert keys.state_beside(ID, "") == b"ns:{33}:state:"


def test_namespaces_are_apart() -> None:
    """No key of one can be a key of another, whatever their number of slots."""
    one, other = Keys("a", slots=4), Keys("ab", slots=4)
    assert not set(one.of(ID)[1:]) & set(other.of(ID)[1:])
    assert not other.prefix(1).startswith(one.prefix(1))


def test_a_slot_that_is_not_there_is_an_error() -> None:
    """Not another slot's key."""
    with pytest.raises(IndexError):
        Keys("ns", slots=4).due(4)


def test_statuses_are_those_of_the_design() -> None:
    """Each has an index; listings show these words."""
    assert STATUSES == (
        "scheduled",
        "pending",
        "ready",
        "running",
        "backing-off",
        "suspended",
        "paused",
        "completed",
    )
