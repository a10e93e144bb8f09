"""`perdure.testing.harness`: what it promises to the tests of applications."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    BrokerError,
    Client,
    Context,
    InvocationNotFoundError,
    Service,
    SettingsError,
    StoreError,
    TerminalError,
    app,
)
from perdure.testing import HarnessFactory, ServerAddresses, harness
from perdure.worker.clock import system_random
from perdure.worker.engine import Engine
from perdure.worker.server_process import free_port
from tests.waiting import PATIENCE, wait_until

from .kitchen import Kitchen, new_kitchen


@pytest.fixture
async def kitchen() -> Kitchen:
    """A kitchen of this test's own."""
    return new_kitchen()


async def test_a_handler_is_called(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """The client is connected and the worker runs: a call returns the handler's result, from one attempt."""
    async with perdure_harness(kitchen.application) as env:
        assert await env.client.call("Kitchen/cook", "beans", timeout=PATIENCE) == "washed beans, cooked"
    assert kitchen.done["began"] == 1


async def test_always_replay_replays_at_every_await(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """With two steps to await the handler begins three times, and the result is the same."""
    async with perdure_harness(kitchen.application, always_replay=True) as env:
        assert await env.client.call("Kitchen/cook", "beans", timeout=PATIENCE) == "washed beans, cooked"
    assert kitchen.done["began"] == 3


async def test_a_handler_that_diverges_is_named(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """It pauses, and the error with which the test ends says what it did and what its journal holds."""
    with pytest.raises(TimeoutError) as caught:
        async with perdure_harness(kitchen.application, always_replay=True) as env:
            await env.client.call("Cellar/diverge", timeout=timedelta(seconds=2))
    (note,) = caught.value.__notes__
    assert note.startswith("Cellar/diverge is paused (inv_")
    assert "look number 1" in note
    assert "look number 2" in note


async def test_what_is_retried_succeeds(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """Without more ado a failure is tried again, as in production."""
    async with perdure_harness(kitchen.application) as env:
        assert await env.client.call("Kitchen/burn", timeout=PATIENCE) == "eaten"
    assert kitchen.done["burnt"] == 3


@pytest.mark.parametrize("always_replay", [False, True], ids=["plain", "always_replay"])
@pytest.mark.parametrize(
    ("target", "said"),
    [("Kitchen/burn", "ValueError: the pan is too hot"), ("Cellar/drop", "OSError: the floor is wet")],
)
async def test_disable_retries_shows_the_first_failure(
    perdure_harness: HarnessFactory, kitchen: Kitchen, target: str, said: str, always_replay: bool
) -> None:
    """A handler's failure, and a step's, reach the caller at once, with type and text."""
    async with perdure_harness(kitchen.application, always_replay=always_replay, disable_retries=True) as env:
        with pytest.raises(TerminalError, match=said):
            await env.client.call(target, timeout=PATIENCE)
    assert max(kitchen.done.values()) == 1


async def test_retries_that_were_asked_for_stay(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """What a handler's policy and a step's options say about attempts holds with disable_retries, too."""
    async with perdure_harness(kitchen.application, disable_retries=True) as env:
        assert await env.client.call("Kitchen/try_again", timeout=PATIENCE) == "eaten"
        assert await env.client.call("Kitchen/pour", timeout=PATIENCE) == "soup"
    assert kitchen.done == {"burnt": 3, "poured": 3}


async def test_an_error_tells_of_what_is_retried(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """Whatever error leaves the block, it has a note on the invocation that the test waited for in vain."""

    async def run() -> None:
        async with perdure_harness(kitchen.application) as env:
            handle = await env.client.send("Cellar/drop")

            async def fell() -> bool:
                return kitchen.done["dropped"] > 0 and (await handle.status()).status == "backing-off"

            await wait_until(fell, description="the attempt failed")
            raise LookupError(handle.invocation_id)

    with pytest.raises(LookupError) as caught:
        await run()
    assert caught.value.__notes__ == [f"Cellar/drop is backing-off ({caught.value}): OSError: the floor is wet"]


async def test_harnesses_share_servers_and_nothing_else(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """Two of them at the same time have one pair of servers, and neither knows the other's invocations."""
    other = new_kitchen()
    async with perdure_harness(kitchen.application) as one, perdure_harness(other.application) as two:
        assert (one.redis_url, one.bootstrap_servers) == (two.redis_url, two.bootstrap_servers)
        assert one.namespace != two.namespace
        handle = await one.client.send("Kitchen/cook", "beans")
        await handle.result(timeout=PATIENCE)
        with pytest.raises(InvocationNotFoundError):
            await two.client.status(handle.invocation_id)
        await two.client.call("Kitchen/cook", "rice", timeout=PATIENCE)
    assert kitchen.done["began"] == other.done["began"] == 1


async def test_harnesses_may_end_in_any_order(perdure_harness: HarnessFactory) -> None:
    """One that began first and ends first leaves the other one working."""
    first, second = perdure_harness(new_kitchen().application), perdure_harness(new_kitchen().application)
    await first.__aenter__()
    env = await second.__aenter__()
    await first.__aexit__(None, None, None)
    assert await env.client.call("Kitchen/cook", "beans", timeout=PATIENCE) == "washed beans, cooked"
    await second.__aexit__(None, None, None)


async def test_a_fixture_may_hold_it(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """It is entered in one task and left in another one, as plugins for pytest do with fixtures."""
    held = perdure_harness(kitchen.application)

    async def leave() -> None:
        await held.__aexit__(None, None, None)

    env = await asyncio.create_task(held.__aenter__())
    await env.client.call("Kitchen/cook", "beans", timeout=PATIENCE)
    await asyncio.create_task(leave())


async def test_nothing_runs_afterwards(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """A handler that waits for ever is cancelled at the end of the block, and no task is left."""
    before = asyncio.all_tasks()
    async with perdure_harness(kitchen.application) as env:
        await env.client.send("Cellar/wait")
        await kitchen.waiting.wait()
    assert kitchen.done["left"] == 1
    assert asyncio.all_tasks() == before


async def test_the_environment_reaches_the_same_place(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """A client of the test's own, made of the settings or of the addresses, sees the invocation."""
    async with perdure_harness(kitchen.application) as env:
        handle = await env.client.send("Kitchen/cook", "beans")
        await handle.result(timeout=PATIENCE)
        connected = Client.connect(
            redis_url=env.redis_url, bootstrap_servers=env.bootstrap_servers, namespace=env.namespace
        )
        for client in (Client(env.settings), connected):
            async with client:
                assert await client.result(handle.invocation_id, timeout=PATIENCE) == "washed beans, cooked"


async def test_settings_may_be_given(perdure_harness: HarnessFactory, kitchen: Kitchen) -> None:
    """They come before what the harness chose; a wrong one is named, and nothing has been started then."""
    async with perdure_harness(kitchen.application, settings={"inactivity_timeout_s": 0.25}) as env:
        assert env.settings.inactivity_timeout_s == 0.25
    with pytest.raises(SettingsError, match="PERDURE_SLOTS"):
        await perdure_harness(kitchen.application, settings={"slots": 0}).__aenter__()


@pytest.mark.parametrize(("absent", "error"), [("redis", StoreError), ("kafka", BrokerError)])
async def test_absent_servers_are_said_at_once(
    perdure_servers: ServerAddresses, kitchen: Kitchen, absent: str, error: type[Exception]
) -> None:
    """A server of the user's own that does not answer is an error, not a wait, and no task is left."""
    nobody = f"127.0.0.1:{free_port(system_random())}"
    places: dict[str, Any] = {"redis_url": f"redis://{nobody}"} if absent == "redis" else {"bootstrap_servers": nobody}
    before = asyncio.all_tasks()
    with pytest.raises(error, match=nobody):
        await harness(kitchen.application, servers=perdure_servers._replace(**places)).__aenter__()
    assert asyncio.all_tasks() == before


async def test_a_worker_that_fails_fails_the_test(
    perdure_harness: HarnessFactory, kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error leaves the block: a test does not pass beside it, nor wait for what will not come."""

    async def run(_: Engine) -> None:
        raise RuntimeError("a part of the worker broke")

    monkeypatch.setattr(Engine, "run", run)
    with pytest.raises(RuntimeError, match="a part of the worker broke"):
        async with perdure_harness(kitchen.application) as env:
            await env.client.call("Kitchen/cook", "beans", timeout=PATIENCE)


async def test_changed_arguments_are_an_error_here(perdure_harness: HarnessFactory) -> None:
    """A handler whose calls depend on what is not recorded is found in tests, and only told of by workers."""
    service = Service("Moody")
    moods = iter(range(1000))

    @service.handler()
    async def echo(ctx: Context, mood: int) -> int:
        return mood

    @service.handler()
    async def act(ctx: Context) -> int:
        return await ctx.service_call(echo, next(moods))

    with pytest.raises(TimeoutError) as error:
        async with perdure_harness(app([service]), always_replay=True) as env:
            await env.client.call(act, timeout=timedelta(seconds=2))
    assert "paused" in "\n".join(error.value.__notes__)
