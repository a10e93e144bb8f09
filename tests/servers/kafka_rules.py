"""Rules of access on a Kafka of one's own, from the arguments that `kafka-acls.sh --add` takes."""

from __future__ import annotations

import argparse
import shlex

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest

from perdure.worker.server_process import ServerProcess

_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5}
_PATTERNS = {"literal": 3, "prefixed": 4}
_TOPIC, _GROUP = 2, 3
_ALLOW = 3


async def allow(broker: ServerProcess, rule: str) -> None:
    """Carry out one call, as who may do everything: what comes by the broker's own listener.

    Args:
        broker: With rules.
        rule: As it stands in a shell, behind `kafka-acls.sh --bootstrap-server ... --add`.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", choices=_OPERATIONS, required=True)
    parser.add_argument("--resource-pattern-type", choices=_PATTERNS, default="literal")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--topic")
    kind.add_argument("--group")
    given = parser.parse_args(shlex.split(rule))
    resource = (_TOPIC, given.topic) if given.topic else (_GROUP, given.group)
    client = AIOKafkaClient(bootstrap_servers=broker.address)
    await client.bootstrap()
    try:
        for operation in given.operation:
            request = CreateAclsRequest(
                *resource,
                _PATTERNS[given.resource_pattern_type],
                given.allow_principal,
                "*",
                _OPERATIONS[operation],
                _ALLOW,
            )
            answer = await client.send(client.get_random_node(), request)
            assert [code for code, *_ in answer.creation_responses] == [0], answer
    finally:
        await client.close()
