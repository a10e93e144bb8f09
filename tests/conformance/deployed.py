"""A deployment that the scenarios of one matrix point share: engines, a client, hands from outside."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import orjson
import pytest

from perdure import Handle
from perdure.schemas.ids import InvocationId
from perdure.worker.broker import Outgoing
from perdure.worker.client import Client
from perdure.worker.envelope import NOTHING
from perdure.worker.kafka_admin import create_topics
from perdure.worker.sender import Sender
from perdure.worker.settings import Settings
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until
from tests.worker.kafka_clients import topic_plan

from .application import SUBSCRIBED, application_in, topic_for
from .contract_objects import has_awakeable
from .outside import Outside

Result = TypeVar("Result")
Target: TypeAlias = Callable[..., Awaitable[Any]]


class Point(NamedTuple):
    """One point of the matrix."""

    always_replay: bool
    workers: int

    def __str__(self) -> str:
        """As test ids and the report name it."""
        mode = "replay" if self.always_replay else "plain"
        return f"{mode}-{self.workers}"

    def replays_or_skip(self) -> None:
        """Leave a scenario out where nothing is replayed, as the suites that it is from do."""
        if not self.always_replay:
            pytest.skip("nothing is replayed at this point")


POINTS = [Point(always_replay, workers) for workers in (1, 3) for always_replay in (False, True)]

# Names of points, to run less than the whole matrix; whoever names none wants all.
_CHOSEN = os.environ.get("PERDURE_TEST_POINTS", "").split()
CHOSEN_POINTS = [point for point in POINTS if not _CHOSEN or str(point) in _CHOSEN]


class Deployed:
    """What a scenario has at hand.

    Args:
        point: Where in the matrix.
        client: Of the namespace.
        outside: Hands on its invocations.
        sender: Of records that somebody else writes.
        topics: Where those go, by the handlers that they invoke.
    """

    def __init__(
        self, point: Point, *, client: Client, outside: Outside, sender: Sender, topics: Mapping[Target, str]
    ) -> None:
        self.point = point
        self.topics = topics
        self.client = client
        self.outside = outside
        self._sender = sender
        self._numbers = itertools.count()

    def key(self) -> str:
        """A key that no other scenario uses."""
        return f"{self.point}-{next(self._numbers)}"

    async def call(
        self, target: Callable[..., Awaitable[Result]], argument: object = NOTHING, *, key: str | None = None
    ) -> Result:
        """Invoke a handler and return its result."""
        untyped: Any = target
        result: Result = await self.client.call(untyped, argument, key=key, timeout=PATIENCE)
        return result

    async def send(
        self,
        target: Callable[..., Awaitable[Result]],
        argument: object = NOTHING,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Handle[Result]:
        """Invoke a handler, and return once it is admitted."""
        untyped: Any = target
        handle: Handle[Result] = await self.client.send(
            untyped, argument, key=key, idempotency_key=idempotency_key, headers=headers
        )
        await self.outside.known(handle.invocation_id)
        return handle

    async def feed(
        self,
        handler: Target,
        value: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Write a record of JSON to the topic to which a handler is subscribed."""
        bare = None if key is None else key.encode()
        written = tuple((name, text.encode()) for name, text in (headers or {}).items())
        await self._sender.send(Outgoing(self.topics[handler], bare, orjson.dumps(value), written))

    async def submit(
        self, main: Callable[..., Awaitable[Any]], argument: object = NOTHING, *, key: str
    ) -> InvocationId:
        """Start a workflow, or find that it was started, and return the id of its one run."""
        return (await self.send(main, argument, key=key)).invocation_id

    async def result(self, invocation_id: str) -> Any:
        """The result of any invocation that is admitted."""
        return await self.client.result(invocation_id, timeout=PATIENCE)

    async def held(self, key: str) -> None:
        """Wait until the AwakeableHolder of that key has an awakeable."""

        async def holds() -> bool:
            return await self.call(has_awakeable, key=key)

        await wait_until(holds, description=f"AwakeableHolder/{key} has an awakeable")


@contextlib.asynccontextmanager
async def deploy(settings: Settings, point: Point) -> AsyncIterator[Deployed]:
    """Run the conformance application on so many workers while the block runs."""
    deployment = Deployment(settings)
    application = application_in(settings.namespace)
    topics: dict[Target, str] = {handler: topic_for(settings.namespace, handler) for handler in SUBSCRIBED}
    theirs = [topic_plan(topic, partitions=settings.topic_partitions) for topic in topics.values()]
    await create_topics(settings.kafka_config(client_id="somebody-else"), theirs)
    async with contextlib.AsyncExitStack() as stack:
        # Creates the topics, which a worker does while it begins already.
        sender = await stack.enter_async_context(deployment.sender(application))
        for number in range(point.workers):
            await stack.enter_async_context(deployment.worker(application, worker_id=f"worker-{number}"))
        client = await stack.enter_async_context(deployment.client())
        store = await stack.enter_async_context(deployment.store())
        yield Deployed(point, client=client, outside=Outside(client, store), sender=sender, topics=topics)
