"""The client for synchronous code: `perdure.worker.sync_client`, against a worker of the test's."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from perdure import Client, InvocationFilter, StoreError, SyncClient, TerminalError, UsageError
from perdure.worker.client_handle import Handle
from perdure.worker.clock import system_random
from perdure.worker.server_process import free_port
from perdure.worker.sync_client import CallOptions, SendOptions, SyncHandle
from tests.integration.conftest import quick_settings
from tests.integration.controlled import Controlled
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until


@pytest.mark.parametrize(("blocking", "asynchronous"), [(SyncClient, Client), (SyncHandle, Handle)])
def test_it_has_the_same_methods(blocking: type, asynchronous: type) -> None:
    """Each public method, with the same parameters and defaults."""

    def methods(of: type) -> dict[str, list[tuple[str, object, object]]]:
        found = inspect.getmembers(of, inspect.isfunction)
        return {
            name: [(each.name, each.default, each.kind) for each in inspect.signature(method).parameters.values()]
            for name, method in found
            if not name.startswith("_")
        }

    expected = methods(asynchronous)
    found = methods(blocking)
    # Theirs alone: waiting without judging, and running a coroutine.
    expected.pop("outcome", None)
    found.pop("run", None)
    for name, options in (("send", SendOptions), ("call", CallOptions)):
        if found.pop(name, None):
            wanted = [given for given, _, kind in expected.pop(name) if kind is inspect.Parameter.KEYWORD_ONLY]
            assert sorted(wanted) == sorted(options.__annotations__)
    assert found == expected


async def test_everything_can_be_done_without_awaiting(redis_url: str, bootstrap_servers: str, namespace: str) -> None:
    """From another thread: calls, handles, controls, completions, promises, state, listings, journals."""
    world, plain = Controlled(), Deployment(quick_settings(redis_url, bootstrap_servers, namespace))
    async with plain.sender(world.application), plain.worker(world.application):
        await asyncio.to_thread(_everything, world, plain)


def _everything(world: Controlled, plain: Deployment) -> None:
    with SyncClient(plain.settings) as client:
        assert client.call(world.echo, 1, timeout=PATIENCE)[0] == [1, 1]
        assert client.call("Account/add", 2, key="k", timeout=PATIENCE) == 2
        handle = client.send(world.echo, 2, idempotency_key="once")
        assert handle.result(timeout=PATIENCE)[0] == [2, 2]
        assert client.send(world.echo, 2, idempotency_key="once").already_accepted
        assert client.result(handle.invocation_id)[0] == [2, 2]
        assert client.attach(handle.invocation_id, world.echo).result()[0] == [2, 2]
        assert handle.status() == client.status(handle.invocation_id)
        assert next(type(row.entry).__name__ for row in client.journal(handle.invocation_id)) == "Input"
        assert len(list(client.journal(handle.invocation_id, follow=True, after=1))) == 3
        again = client.restart_as_new(handle.invocation_id, keep=1)
        assert client.result(again.invocation_id, timeout=PATIENCE)[0] == [2, 2]
        assert client.control("purge", again.invocation_id).changed
        assert client.purge(handle.invocation_id).changed
        _completions(world, client)
        _controls(world, client)
        client.set_state(world.account, "k", {"total": 5})
        assert client.read_state(world.account, "k") == {"total": 5}
        assert client.read_value(world.account, "k", "total") == 5
        client.clear_state(world.account, "k")
        with ThreadPoolExecutor(4) as threads:
            totals = threads.map(lambda n: client.call(world.add, n, key="k", timeout=PATIENCE), [1] * 8)
            assert sorted(totals) == list(range(1, 9))
    with pytest.raises(UsageError, match="`with` block"):
        client.status(handle.invocation_id)


def _completions(world: Controlled, client: SyncClient) -> None:
    run = client.send(world.run, "ada", key="w")
    client.resolve_promise(world.sign, "w", "click", "yes")
    assert client.peek_promise(world.sign, "w", "click") == "yes"
    with pytest.raises(TerminalError, match="completed already"):
        client.reject_promise(world.sign, "w", "click", "no")
    assert run.result(timeout=PATIENCE) == "ada yes"
    assert client.workflow_run(world.run, "w").result() == "ada yes"
    saga = client.send(world.saga)
    client.run(_reached(client, saga))
    assert client.send_signal(saga.invocation_id, "confirmed")
    assert saga.result(timeout=PATIENCE) == "confirmed"
    assert not client.reject_signal(saga.invocation_id, "confirmed", "no")
    for complete in (client.resolve_awakeable, client.reject_awakeable):
        world.awakeables.clear()
        waits = client.send(world.waits, "x")
        client.run(_told(world))
        assert complete(world.awakeables[0], "text")
        assert client.attach(waits.invocation_id).status().id == waits.invocation_id


def _controls(world: Controlled, client: SyncClient) -> None:
    for action in ("cancel", "kill"):
        later = client.send(world.waits, "later", delay=timedelta(hours=1))
        client.run(_reached(client, later))
        assert not later.pause().changed
        assert not client.pause(later.invocation_id).changed
        assert not later.resume().changed
        assert not client.resume(later.invocation_id).changed
        assert not later.purge().changed
        assert getattr(later, action)().changed
        assert not getattr(client, action)(later.invocation_id).changed
    chosen = InvocationFilter(handler="waits", failure="killed")
    assert len(client.list_invocations(chosen, limit=5).invocations) == 1
    assert len(client.control_many("restart", chosen, dry_run=True).chosen) == 1


async def _reached(client: SyncClient, handle: SyncHandle[Any]) -> None:
    await wait_until(lambda: client._client._known(handle.invocation_id))


async def _told(world: Controlled) -> None:
    await wait_until(lambda: world.awakeables)


def test_an_error_while_entering_leaves_nothing_behind(bootstrap_servers: str) -> None:
    """The thread ends, and entering can be tried again."""
    url = f"redis://127.0.0.1:{free_port(system_random())}"
    client = SyncClient.connect(redis_url=url, bootstrap_servers=bootstrap_servers)
    for _ in range(2):
        with pytest.raises(StoreError, match="does not answer"), client:
            pass
    assert client._thread is None


def test_it_is_entered_once_and_does_not_wait_for_itself(
    redis_url: str, bootstrap_servers: str, namespace: str
) -> None:
    """Mistakes that would hang are refused."""
    with SyncClient.connect(redis_url=redis_url, bootstrap_servers=bootstrap_servers, namespace=namespace) as client:
        with pytest.raises(UsageError, match="entered already"):
            client.__enter__()

        async def inside() -> None:
            client.list_invocations()

        with pytest.raises(UsageError, match="wait for itself"):
            client.run(inside())
