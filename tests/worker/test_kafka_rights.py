"""What a user of Kafka must be allowed to do: `perdure.worker.kafka_rights`. In use: `test_kafka_security`."""

from __future__ import annotations

from pathlib import Path

from perdure.worker.kafka_rights import ALL, lacking, own_rules

READ, WRITE, DESCRIBE = 1 << 3, 1 << 4, 1 << 8
PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_what_is_not_allowed_is_named() -> None:
    """In the order in which it is asked for; nothing where everything is, or nobody tells."""
    assert lacking(READ | DESCRIBE, "read", "write", "describe") == ["write"]
    assert lacking(0, "write", "read") == ["write", "read"]
    assert lacking(READ | WRITE, "read", "write") == []
    assert lacking(ALL, "read", "write", "describe") == []


def test_the_documentation_has_the_rules() -> None:
    """People copy them from there."""
    page = PAGE.read_text()
    for rule in own_rules("perdure"):
        assert f"\nkafka-acls.sh --bootstrap-server localhost:9092 --add {rule}\n" in page


def test_creating_is_one_right_more() -> None:
    """On the same topics."""
    topics, *_ = own_rules("ns", user="ada", create=True)
    assert "User:ada" in topics
    assert "--operation Create --topic ns. --resource-pattern-type prefixed" in topics
