"""`perdure topics create` and `perdure doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orjson
import pytest

from perdure.journal.redis_admin import opened
from perdure.journal.redis_config import RedisConfig
from perdure.worker.clock import system_random
from perdure.worker.kafka_admin import create_topics
from perdure.worker.kafka_config import KafkaConfig
from perdure.worker.server_process import ServerProcess, free_port
from perdure.worker.topics import TopicPlan

from .conftest import Command


async def test_topics_are_created_once(shop: str, places: None, perdure: Command, namespace: str) -> None:
    """Every topic of the application, with the partitions asked for; the second time they are as they were."""
    created = await perdure("topics", "create", shop, "--partitions", "3", "--json")
    assert created.exit_code == 0, created.stderr
    names = [f"{namespace}.{name}" for name in ("Basket", "Basket.resume", "Shop", "Shop.resume", "dead")]
    assert orjson.loads(created.stdout) == {"created": names, "existing": []}
    again = await perdure("topics", "create", shop)
    assert again.stdout.splitlines()[1:] == [f"{name}\texisted" for name in names]
    examined = await perdure("doctor", shop, "--json")
    found = [finding["found"] for finding in orjson.loads(examined.stdout) if finding["what"] == "topic"]
    assert found == [*(f"{name}: 3 partitions" for name in names[:-1]), f"{names[-1]}: 1 partition"]
    assert examined.exit_code == 0


async def test_the_doctor_names_what_is_missing(shop: str, places: None, perdure: Command) -> None:
    """Topics that are not there are a problem with the command that mends it; exit code 1."""
    examined = await perdure("doctor", shop)
    assert examined.exit_code == 1
    assert f"perdure topics create {shop}" in examined.stdout
    assert "append-only file on" in examined.stdout
    assert "none is alive" in examined.stdout or "is not in Redis yet" in examined.stdout
    healthy = await perdure("doctor")
    assert healthy.exit_code == 0


SUBSCRIBED = """
import os

from shop_for_tests import ping, shop

from perdure import Subscription, app

topic = os.environ["PERDURE_NAMESPACE"] + "-orders"
application = app([shop], subscriptions=[Subscription(topic=topic, handler=ping)])
"""


async def test_the_doctor_looks_for_subscribed_topics(
    shop: str, places: None, perdure: Command, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are neither planned nor created; who reads them as which group is told once they are there."""
    (tmp_path / "subscribed_shop.py").write_text(SUBSCRIBED)
    monkeypatch.delitem(sys.modules, "subscribed_shop", raising=False)
    target = "subscribed_shop:application"
    created = await perdure("topics", "create", target)
    assert created.exit_code == 0, created.stderr
    topic = f"{namespace}-orders"
    assert topic not in created.stdout
    examined = await perdure("doctor", target)
    assert examined.exit_code == 1
    assert f"{topic} is not there, and Shop/ping" in examined.stdout
    config = KafkaConfig(bootstrap_servers=os.environ["PERDURE_BOOTSTRAP_SERVERS"], group_id="by-hand")
    await create_topics(config, [TopicPlan(topic, 2, 1, ())])
    examined = await perdure("doctor", target)
    assert examined.exit_code == 0, examined.stdout
    assert f"{topic}: 2 partitions to Shop/ping as the group {namespace}.Shop.ping.{topic}" in examined.stdout


async def test_the_doctor_judges_redis(places: None, perdure: Command, private_redis: ServerProcess) -> None:
    """A Redis that forgets is a problem, with the command that mends it."""
    async with opened(RedisConfig(host="127.0.0.1", port=private_redis.port)) as line:
        await line.ask("CONFIG", "SET", "appendonly", "no")
    examined = await perdure("doctor", "--redis-url", f"redis://{private_redis.address}")
    assert examined.exit_code == 1
    assert "redis-cli CONFIG SET appendonly yes" in examined.stdout


async def test_the_doctor_survives_servers_that_are_away(
    places: None, perdure: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each server that does not answer is one finding, and the others are still looked at; typos in variables show."""
    monkeypatch.setenv("PERDURE_CONCURENCY", "1")
    nobody = f"127.0.0.1:{free_port(system_random())}"
    examined = await perdure("doctor", "--json", "--redis-url", f"redis://{nobody}", "--bootstrap-servers", nobody)
    assert examined.exit_code == 1
    problems = {finding["what"] for finding in orjson.loads(examined.stdout) if finding["level"] == "problem"}
    assert problems == {"Redis", "namespace", "Kafka"}
    assert "PERDURE_CONCURRENCY" in examined.stdout
