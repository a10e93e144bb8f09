"""Making topics: `perdure.worker.kafka_admin`. What they are like is tested with the command that makes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perdure.schemas.errors import BrokerError
from perdure.worker import kafka_admin
from perdure.worker.kafka import Admin
from perdure.worker.kafka_admin import KNOWN_LOOKS, TopicsCreated, create_topics
from perdure.worker.kafka_config import ClusterView, KafkaConfig
from perdure.worker.topics import TopicPlan


class Late:
    """A broker that learns of topics only after so many looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
        self.looks, self.asked = looks, 0
        self._describe = Admin.describe
        monkeypatch.setattr(Admin, "describe", lambda admin, topics: self.describe(admin, topics))
        monkeypatch.setattr(kafka_admin, "KNOWN_LOOK_S", 0.001)

    async def describe(self, admin: Admin, topics: Sequence[str]) -> ClusterView:
        """See `Admin.describe`."""
        self.asked += 1
        view = await self._describe(admin, topics)
        return view if self.asked > self.looks else view._replace(topics={})


@pytest.mark.parametrize(("late", "asked"), [(0, 1), (3, 4), (10 * KNOWN_LOOKS, KNOWN_LOOKS)])
async def test_topics_are_known_when_they_have_been_made(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch, late: int, asked: int
) -> None:
    """A broker may hear of them later than their maker does: that is waited for, but not for ever."""
    broker = Late(monkeypatch, late)
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    topic = f"{namespace}.Shop"
    assert await create_topics(config, [TopicPlan(topic, 1, 1, ())]) == TopicsCreated((topic,), ())
    assert broker.asked == asked
    broker.looks = 0
    assert await create_topics(config, [TopicPlan(topic, 1, 1, ())]) == TopicsCreated((), (topic,))


async def test_who_may_not_look_at_topics_may_make_them(
    bootstrap_servers: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That they cannot be seen does not mean that they were not made."""

    async def refused(admin: Admin, topics: Sequence[str]) -> ClusterView:
        raise BrokerError("Not authorized.")

    monkeypatch.setattr(Admin, "describe", refused)
    config = KafkaConfig(bootstrap_servers=bootstrap_servers, group_id=namespace)
    topic = f"{namespace}.Shop"
    assert await create_topics(config, [TopicPlan(topic, 1, 1, ())]) == TopicsCreated((topic,), ())
