"""What brokers' answers say of topics: `perdure.worker.kafka_view`."""

from __future__ import annotations

from perdure.worker.kafka_topic_ids import Answer, Topic, TopicPartition
from perdure.worker.kafka_view import refused, view_of

ANSWER = Answer(
    [(1, "localhost", 9092, None)],
    "cluster",
    [
        Topic(0, "there", False, [TopicPartition(0, 0, 1, [1, 2], [1]), TopicPartition(0, 1, 2, [2], [2])], "a1", 24),
        Topic(5, "leaderless", False, [], "b2", None),
        Topic(3, "missing", False, [], None, None),
        Topic(29, "forbidden", False, [], None, None),
        Topic(17, "no name", False, [], None, None),
    ],
)


def test_what_is_there_and_what_is_allowed() -> None:
    """A topic without a leader is there; one that may not be looked at is not told, and nothing is allowed with it."""
    view = view_of(ANSWER)
    assert (view.cluster_id, view.brokers) == ("cluster", ("localhost:9092",))
    assert view.topics == {"there": 2, "leaderless": 0}
    assert view.topic_ids == {"there": "a1", "leaderless": "b2"}
    assert view.copies == {"there": 1, "leaderless": 0}
    assert view.operations == {"there": 24, "forbidden": 0}


def test_what_is_no_answer() -> None:
    """Unless rights are asked for, a topic that may not be looked at is an error as others are."""
    assert list(refused(ANSWER, rights=False)) == [(29, "forbidden"), (17, "no name")]
    assert list(refused(ANSWER, rights=True)) == [(17, "no name")]
