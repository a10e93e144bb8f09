"""Set-up, facts and lines: `perdure.journal.redis_admin`."""

from __future__ import annotations

import asyncio

import pytest

from perdure.journal.durability import durability_problems
from perdure.journal.redis_admin import (
    FORMAT,
    NamespaceSettings,
    open_namespace,
    opened,
    read_namespace,
    server_facts,
)
from perdure.journal.redis_config import RedisConfig
from perdure.journal.redis_line import Line, Refusal, ThreadLine
from perdure.schemas.errors import SettingsError, StoreError
from perdure.worker.clock import system_random
from perdure.worker.server_process import ServerProcess, free_port
from tests.chaos.proxy import Proxy
from tests.waiting import PATIENCE_S


@pytest.fixture
def config(redis_url: str) -> RedisConfig:
    """Where the session's Redis is."""
    return RedisConfig.from_url(redis_url)


async def test_a_namespace_keeps_what_it_was_made_with(config: RedisConfig, namespace: str) -> None:
    """The first to open a namespace fixes its slots; later ones agree or take what is there."""
    assert await read_namespace(config, namespace) is None
    made = NamespaceSettings(8, FORMAT)
    assert await open_namespace(config, namespace, slots=8) == made
    assert await open_namespace(config, namespace, slots=8) == made
    assert await open_namespace(config, namespace) == made
    assert await read_namespace(config, namespace) == made


async def test_another_number_of_slots_is_refused(config: RedisConfig, namespace: str) -> None:
    """The message says which setting goes with the namespace."""
    await open_namespace(config, namespace)
    with pytest.raises(SettingsError, match=r"64 slots.*set PERDURE_SLOTS=64"):
        await open_namespace(config, namespace, slots=32)


async def test_two_who_open_at_once_agree(config: RedisConfig, namespace: str) -> None:
    """Of two workers with different slots one is refused, never both served."""
    found = await asyncio.gather(
        open_namespace(config, namespace, slots=2), open_namespace(config, namespace, slots=4), return_exceptions=True
    )
    assert [type(result) for result in found if isinstance(result, Exception)] == [SettingsError]


@pytest.mark.parametrize("slots", [0, 1025])
async def test_slots_have_bounds(config: RedisConfig, namespace: str, slots: int) -> None:
    """What no id could name is not made."""
    with pytest.raises(SettingsError, match="PERDURE_SLOTS"):
        await open_namespace(config, namespace, slots=slots)
    assert await read_namespace(config, namespace) is None


async def test_a_namespace_of_a_newer_version_is_refused(config: RedisConfig, namespace: str) -> None:
    """An old worker does not touch what it does not understand."""
    async with opened(config) as line:
        await line.ask("HSET", f"{namespace}:settings", "slots", 4, "format", FORMAT + 1)
    with pytest.raises(SettingsError, match="upgrade"):
        await open_namespace(config, namespace, slots=4)


async def test_the_lane_serves_durably(config: RedisConfig) -> None:
    """The facts of the lane's own server are read, and are good."""
    facts = await server_facts(config)
    assert facts.aof_enabled
    assert facts.maxmemory_policy == "noeviction"
    assert facts.stream_node_bytes_max == 1024
    assert durability_problems(facts) == []


async def test_facts_survive_an_acl_that_forbids_the_questions(private_redis: ServerProcess) -> None:
    """Where CONFIG is forbidden INFO answers; where both are, nothing is known and nothing breaks."""
    config = RedisConfig(host="127.0.0.1", port=private_redis.port)
    async with opened(config) as line:
        await line.ask("ACL", "SETUSER", "some", "on", ">pw", "~*", "&*", "+@all", "-config")
        await line.ask("ACL", "SETUSER", "none", "on", ">pw", "~*", "&*", "+@all", "-config", "-info")
    some = await server_facts(RedisConfig.from_url(f"redis://some:pw@{private_redis.address}"))
    assert some.aof_enabled
    assert some.appendfsync is None
    assert durability_problems(some) == []
    none = await server_facts(RedisConfig.from_url(f"redis://none:pw@{private_redis.address}"))
    assert none.version is None
    assert durability_problems(none)


async def test_a_server_that_forgets_is_told_of(private_redis: ServerProcess) -> None:
    """What is switched off at run time is seen."""
    config = RedisConfig(host="127.0.0.1", port=private_redis.port)
    async with opened(config) as line:
        await line.ask("CONFIG", "SET", "appendonly", "no")
        await line.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    problems = durability_problems(await server_facts(config))
    assert [problem.loses_data for problem in problems] == [True, True]


async def test_a_wrong_login_names_the_setting_and_hides_the_password(private_redis: ServerProcess) -> None:
    """Credentials that are refused are a setting to mend."""
    with pytest.raises(SettingsError, match="PERDURE_REDIS_URL") as refused:
        await server_facts(RedisConfig.from_url(f"redis://nobody:letmein@{private_redis.address}"))
    assert "letmein" not in str(refused.value)


async def test_nobody_there_is_a_store_error() -> None:
    """The message says where was looked."""
    port = free_port(system_random())
    with pytest.raises(StoreError, match=f"127.0.0.1:{port} does not answer"):
        await server_facts(RedisConfig(host="127.0.0.1", port=port))


async def test_a_forbidden_command_says_what_to_grant(private_redis: ServerProcess) -> None:
    """NOPERM is translated into what an operator can do."""
    async with opened(RedisConfig(host="127.0.0.1", port=private_redis.port)) as line:
        await line.ask("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read")
    reader = RedisConfig.from_url(f"redis://reader:pw@{private_redis.address}")
    with pytest.raises(StoreError, match="ACL SETUSER"):
        await open_namespace(reader, "any")


async def test_refusals_come_as_values_among_the_answers(config: RedisConfig, namespace: str) -> None:
    """One refused command does not hide the answers to the others, in either kind of line."""
    commands = [("SET", f"{namespace}:k", "v"), ("NOSUCH",), ("EVALSHA", "0" * 40, 0), ("GET", f"{namespace}:k")]
    async with opened(config) as line:
        answers = await line.ask_all(commands)
    blocking = ThreadLine(config, name="test", reply_timeout_s=5.0)
    try:
        assert await asyncio.to_thread(blocking.ask_all, commands) == answers
    finally:
        blocking.close()
    ok, unknown, no_script, value = answers
    assert (ok, value) == (b"OK", b"v")
    assert isinstance(unknown, Refusal)
    assert unknown.kind == "unknown command"
    assert isinstance(no_script, Refusal)
    assert no_script.kind == "no script"


async def test_a_line_connects_anew_after_a_loss_and_sends_nothing_twice(private_redis: ServerProcess) -> None:
    """A call on a lost connection fails, and the next one works on a new connection."""
    config = RedisConfig(host="127.0.0.1", port=private_redis.port)
    async with opened(config) as line:
        await line.ask("INCR", "n")
        await private_redis.restart()
        with pytest.raises(StoreError):
            await line.ask("INCR", "n")
        assert await line.ask("GET", "n") == b"1"
        assert line.connections == 2


def test_a_connection_that_was_reset_while_idle_is_an_error_and_heals(private_redis: ServerProcess) -> None:
    """On uvloop, too, whose closed transports raise something of their own."""
    uvloop = pytest.importorskip("uvloop")

    async def ask() -> None:
        proxy = Proxy(free_port(system_random()), upstream_port=private_redis.port)
        async with proxy, opened(RedisConfig(host="127.0.0.1", port=proxy.port)) as line:
            await line.ask("PING")
            proxy.cut(system_random(), share=1.0)
            # The loop hears of the reset some turns later; then the transport is closed.
            for _ in range(100):
                await asyncio.sleep(0)
            with pytest.raises(StoreError, match="does not answer"):
                await line.ask("PING")
            assert await line.ask("PING") == b"PONG"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


async def test_a_frozen_server_is_given_up_in_time(private_redis: ServerProcess) -> None:
    """A server that accepts and does not answer is an error, while connecting and while asking, and heals."""
    config = RedisConfig(host="127.0.0.1", port=private_redis.port)
    line = Line(config, name="test", reply_timeout_s=0.1)
    await line.ask("PING")
    await private_redis.pause()
    try:
        with pytest.raises(StoreError, match="no answer in time"):
            await line.ask("PING")
    finally:
        await private_redis.resume()
    assert await line.ask("PING") == b"PONG"
    await line.close()


async def test_a_cancellation_is_never_swallowed(config: RedisConfig) -> None:
    """A task that asks without end ends when it is cancelled, at whichever moment of a call that falls."""

    async def ask_for_ever() -> None:
        line = Line(config, name="test")
        try:
            while True:
                await line.ask("PING")
                await line.close()
        finally:
            await line.close()

    for turns in range(60):
        task = asyncio.create_task(ask_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)
        assert task.cancelled()
