"""What an app's topics are called, and which names are refused."""

from __future__ import annotations

import pytest

from perdure.schemas.errors import DefinitionError, SettingsError
from perdure.worker.topics import (
    TOPIC_NAME_LENGTH_MAX,
    consumed_topics,
    dead_letter_topic,
    is_resume_topic,
    plan_topics,
    resume_topic,
    service_topic,
)


def test_names() -> None:
    """The three kinds of topics are named as the design says."""
    assert service_topic("shop", "Orders") == "shop.Orders"
    assert resume_topic("shop", "Orders") == "shop.Orders.resume"
    assert dead_letter_topic("shop") == "shop.dead"


def test_only_resume_topics_come_first() -> None:
    """A resume topic is told from the topic of any service that may exist."""
    assert is_resume_topic(resume_topic("shop", "Orders"))
    assert not is_resume_topic(service_topic("shop", "Orders_resume"))
    assert not is_resume_topic(dead_letter_topic("shop.resume"))


def test_a_worker_reads_both_topics_of_each_service_once() -> None:
    """Duplicates count once, and the dead-letter topic is not read."""
    assert consumed_topics("s", ["B", "A", "B"]) == ("s.A", "s.A.resume", "s.B", "s.B.resume")


def test_plan() -> None:
    """Every topic of the app is planned, never compacted, and dead letters are kept for ever in one partition."""
    plans = {plan.name: plan for plan in plan_topics("s", ["A"], partitions=12, replication_factor=3)}
    assert sorted(plans) == ["s.A", "s.A.resume", "s.dead"]
    assert [plans[name].partitions for name in sorted(plans)] == [12, 12, 1]
    assert {plan.replication_factor for plan in plans.values()} == {3}
    assert all(("cleanup.policy", "delete") in plan.config for plan in plans.values())
    assert [name for name in plans if ("retention.ms", "-1") in plans[name].config] == ["s.dead"]


@pytest.mark.parametrize("service", ["", "a.b", "dead", "resume", "sp ace", "ü", "x" * TOPIC_NAME_LENGTH_MAX])
def test_services_that_no_topic_can_carry(service: str) -> None:
    """A service name that is illegal, too long or that means another topic is refused, by name."""
    with pytest.raises(DefinitionError, match=r"service|topic names"):
        service_topic("shop", service)


@pytest.mark.parametrize("namespace", ["", ".", "..", "a.", ".a", "sp ace", "x" * TOPIC_NAME_LENGTH_MAX])
def test_namespaces_that_no_topic_can_carry(namespace: str) -> None:
    """A namespace that is illegal or too long is refused."""
    with pytest.raises(SettingsError, match="namespace"):
        dead_letter_topic(namespace)


@pytest.mark.parametrize(("partitions", "replication_factor"), [(0, 1), (1, 0), (1, -2)])
def test_numbers_out_of_bounds(partitions: int, replication_factor: int) -> None:
    """No partition, or no copy of it, is refused."""
    with pytest.raises(SettingsError, match="cannot be created"):
        plan_topics("s", ["A"], partitions=partitions, replication_factor=replication_factor)
