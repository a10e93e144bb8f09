"""`perdure send` and `perdure call`."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from perdure.schemas.ids import is_invocation_id, new_invocation_id
from perdure.worker.clock import system_random
from tests.waiting import wait_until

from .conftest import Command

pytestmark = pytest.mark.process


async def start_of(perdure: Command) -> None:
    """Wait until the worker has made its topics and serves."""

    async def answers() -> bool:
        return (await perdure("call", "Shop/ping", "--timeout", "10s")).exit_code == 0

    await wait_until(answers)


async def test_calls_print_results_and_failures(worker: asyncio.subprocess.Process, perdure: Command) -> None:
    """A result is JSON on stdout with exit code 0; a failure is a message on stderr with exit code 1."""
    await start_of(perdure)
    done = await perdure("call", "Shop/add", '{"count": 123456789012345678901234567890}', "--header", "who=me")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == '{"count":123456789012345678901234567891,"headers":["who"]}\n'
    read = await perdure("call", "Shop/add", "-", input='{"count": 1}')
    assert orjson.loads(read.stdout)["count"] == 2
    failed = await perdure("call", "Shop/refuse")
    assert failed.exit_code == 1
    assert failed.stdout == ""
    assert "code 403: not today\n  reason: rain" in failed.stderr
    late = await perdure("call", "Shop/wait_for", '"/nowhere/at/all"', "--timeout", "100ms")
    assert late.exit_code == 1
    assert "perdure journal show inv_" in late.stderr


async def test_sends_print_the_id(worker: asyncio.subprocess.Process, perdure: Command) -> None:
    """The id is all of stdout, so that scripts can use it; a delay and a key of one's own are kept."""
    await start_of(perdure)
    sent = await perdure("send", "Shop/ping", "--delay", "1h")
    assert sent.exit_code == 0, sent.stderr
    assert is_invocation_id(sent.stdout.strip())

    async def status_of(invocation_id: str) -> str:
        shown = await perdure("invocations", "show", invocation_id, "--json")
        return str(orjson.loads(shown.stdout)["status"]) if shown.exit_code == 0 else ""

    async def scheduled() -> bool:
        return await status_of(sent.stdout.strip()) == "scheduled"

    await wait_until(scheduled)
    told = [
        await perdure("send", "Shop/ping", "--id", sent.stdout.strip(), *more) for more in ([], ["--reply-to", "r"])
    ]
    assert "It was accepted before; nothing was sent." in told[0].stderr
    assert "It was accepted before; its outcome goes to r, too." in told[1].stderr
    once = orjson.loads((await perdure("send", "Shop/ping", "--idempotency-key", "k", "--json")).stdout)
    assert not once["already_accepted"]

    async def admitted() -> bool:
        return await status_of(once["id"]) != ""

    await wait_until(admitted)
    again = await perdure("send", "Shop/ping", "--idempotency-key", "k", "--json")
    assert orjson.loads(again.stdout) == {"id": once["id"], "already_accepted": True}
    chosen = new_invocation_id("Shop", None, system_random())
    assert (await perdure("send", "Shop/ping", "--id", chosen)).stdout == f"{chosen}\n"


async def test_objects_have_a_key(worker: asyncio.subprocess.Process, perdure: Command) -> None:
    """The key says which object; without one it is refused before anything is sent."""
    await start_of(perdure)
    await perdure("send", "Basket/put", '"tea"', "--key", "ada")
    assert (await perdure("call", "Basket/put", '"cake"', "--key", "ada")).stdout == '["ada","tea","cake"]\n'
    assert (await perdure("call", "Basket/put", '"tea"', "--key", "ben")).stdout == '["ben","tea"]\n'
    nobodys = await perdure("call", "Basket/put", '"tea"')
    assert nobodys.exit_code == 2
    assert "handler of an object" in nobodys.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Shop"], "Service/handler"),
        (["Shop/ping", "{not json"], "not JSON"),
        (["Shop/ping", "text"], "'\"text\"'"),
        (["Shop/ping", "--delay", "soon"], "--delay 'soon'"),
        (["Shop/ping", "--header", "novalue"], "name=value"),
        (["Shop/ping", "--id", "mine"], "inv_"),
        (["Nowhere/ping"], "no topic"),
        (["Shop/ping", "--redis-url", "http://x"], "PERDURE_REDIS_URL"),
        (["Shop/ping", "--namespace", "a b"], "PERDURE_NAMESPACE"),
    ],
)
async def test_bad_input_is_exit_code_2(places: None, perdure: Command, arguments: list[str], message: str) -> None:
    """What was typed wrongly is said on stderr, and nothing is sent."""
    ended = await perdure("send", *arguments)
    assert ended.exit_code == 2
    assert message in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
