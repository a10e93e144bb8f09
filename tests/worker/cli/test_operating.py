"""`perdure invocations cancel|kill|pause|resume|restart|purge`, `awakeable`, `signal`, `promise`, `state`, `--key`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from perdure import Client
from perdure.schemas.ids import id_of_workflow, new_invocation_id
from perdure.worker.clock import system_random
from tests.integration.conftest import quick_settings
from tests.integration.controlled import Controlled, reach
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until

from .conftest import Command


@pytest.fixture
def deployment(redis_url: str, bootstrap_servers: str, namespace: str) -> Deployment:
    """A worker in this process, in the namespace that the command is told of."""
    return Deployment(quick_settings(redis_url, bootstrap_servers, namespace))


@pytest.fixture
async def world(places: None, deployment: Deployment) -> AsyncIterator[Controlled]:
    """The application, which a worker runs."""
    made = Controlled()
    async with deployment.sender(made.application), deployment.worker(made.application):
        yield made


@pytest.fixture
async def client(world: Controlled, deployment: Deployment) -> AsyncIterator[Client]:
    """To bring about what the command meets."""
    async with deployment.client() as entered:
        yield entered


def rows(stdout: str) -> list[list[str]]:
    """A table without its header."""
    return [line.split("\t") for line in stdout.splitlines()[1:]]


async def test_one_is_paused_resumed_and_purged(world: Controlled, client: Client, perdure: Command) -> None:
    """Each says what it did, or that there was nothing to do."""
    handle = await world.put(client, "suspended")
    invocation_id = handle.invocation_id
    assert (await perdure("invocations", "pause", invocation_id, "--yes")).stdout.splitlines()[1] == (
        f"{invocation_id}\tdone"
    )
    again = await perdure("invocations", "pause", invocation_id, "-y")
    assert rows(again.stdout) == [[invocation_id, "nothing to do: paused"]]
    refused = await perdure("invocations", "restart", invocation_id, "-y")
    assert refused.exit_code == 1
    assert "only what is completed" in refused.stdout
    assert (await perdure("invocations", "resume", invocation_id, "-y", "--json")).stdout
    assert (await perdure("awakeable", "resolve", world.awakeables[0], '{"a": [1]}')).stdout == "done\n"
    assert await handle.result(timeout=PATIENCE) == {"a": [1]}
    late = await perdure("awakeable", "reject", world.awakeables[0], "too late")
    assert (late.exit_code, late.stdout) == (1, "")
    assert "completed already" in late.stderr
    assert (await perdure("invocations", "purge", invocation_id, "-y")).exit_code == 0
    gone = await perdure("invocations", "purge", invocation_id, "-y", "--json")
    assert gone.exit_code == 1
    assert "retention ended" in orjson.loads(gone.stdout)[0]["error"]


async def test_somebody_is_asked_first(world: Controlled, client: Client, perdure: Command) -> None:
    """With the names of those that are meant; no is no."""
    handle = await world.put(client, "suspended")
    no = await perdure("invocations", "kill", "--handler", "leaves", input="n\n")
    assert no.exit_code == 1
    assert handle.invocation_id in no.stderr
    assert "kill 1 invocation?" in no.stderr
    assert (await handle.status()).status == "suspended"
    yes = await perdure("invocations", "kill", "--handler", "leaves", input="y\n")
    assert (yes.exit_code, rows(yes.stdout)[-1]) == (0, [handle.invocation_id, "done"])
    assert (await handle.status()).status == "completed"


async def test_many_are_met_by_flags(world: Controlled, client: Client, perdure: Command) -> None:
    """A dry run names them; a bound leaves some; status, failure text and age choose."""
    handles = [await world.put(client, "paused") for _ in range(3)]
    ids = {handle.invocation_id for handle in handles}
    chosen = ("--status", "paused", "--failure", "OUT OF luck", "--younger-than", "1h", "--service", "Work")
    dry = await perdure("invocations", "cancel", *chosen, "--dry-run")
    assert {row[0] for row in rows(dry.stdout)} == ids
    as_json = orjson.loads((await perdure("invocations", "cancel", *chosen, "--dry-run", "--json")).stdout)
    assert {view["id"] for view in as_json} == ids
    assert {(await handle.status()).status for handle in handles} == {"paused"}
    world.broken = False
    some = await perdure("invocations", "cancel", *chosen, "--limit", "2", "--yes", "--json")
    assert [row["changed"] for row in orjson.loads(some.stdout)] == [True, True]
    assert "more than 2" in some.stderr

    async def two_ended() -> bool:
        return len(rows((await perdure("invocations", "list", "--status", "completed")).stdout)) == 2

    await wait_until(two_ended)
    nobody = await perdure("invocations", "kill", "--key", "nobody's")
    assert (nobody.exit_code, nobody.stdout) == (0, "")
    assert "No invocation is meant" in nobody.stderr
    assert (await perdure("invocations", "kill", "--key", "nobody's", "--json")).stdout == "[]\n"
    both = await perdure("invocations", "resume", *ids, "--dry-run")
    assert set(both.stdout.split()) == ids


async def test_a_listing_goes_on_where_it_ended(world: Controlled, client: Client, perdure: Command) -> None:
    """Page by page, with the same flags."""
    for _ in range(3):
        await client.call(world.echo, 1, timeout=PATIENCE)
    found: list[str] = []
    more: list[str] = []
    while True:
        page = await perdure("invocations", "list", "--handler", "echo", "--limit", "2", *more)
        found += [row[0] for row in rows(page.stdout)]
        if "--cursor" not in page.stderr:
            break
        more = ["--cursor", page.stderr.split("--cursor ")[1].strip()]
    assert len(set(found)) == len(found) == 3


async def test_a_restart_says_the_new_id(world: Controlled, client: Client, perdure: Command) -> None:
    """And keeps what it is told to keep."""
    handle = await world.put(client, "completed")
    done = await perdure("invocations", "restart", handle.invocation_id, "--keep", "2", "-y")
    ((old, new),) = rows(done.stdout)
    assert old == handle.invocation_id
    assert await client.result(new, timeout=PATIENCE) == await handle.result()
    too_many = await perdure("invocations", "restart", handle.invocation_id, "--keep", "9", "-y", "--json")
    assert too_many.exit_code == 1
    assert "has 2 commands" in orjson.loads(too_many.stdout)[0]["error"]


async def test_keys_promises_and_state(world: Controlled, client: Client, perdure: Command) -> None:
    """A workflow is sent by key, its promise completed, its state read and mended."""
    sent = await perdure("send", "Sign/run", '"ada"', "--key", "w", "--json")
    run = orjson.loads(sent.stdout)
    assert run == {"id": id_of_workflow("Sign", "w"), "already_accepted": False}
    await reach(client.workflow_run(world.run, "w"), "running", "suspended")
    again = await perdure("send", "Sign/run", '"bob"', "--key", "w")
    assert again.stdout.strip() == run["id"]
    assert "accepted before" in again.stderr
    opened = await perdure("promise", "get", "Sign", "w", "click")
    assert (opened.exit_code, opened.stdout) == (1, "")
    assert "is open" in opened.stderr
    assert (await perdure("promise", "get", "Sign", "w", "click", "--json")).stdout == '{\n  "completed": false\n}\n'
    held = await perdure("state", "set", "Sign", "w", "name", '"eve"')
    assert held.exit_code == 1
    assert run["id"] in held.stderr
    assert (await perdure("promise", "resolve", "Sign", "w", "click", "-", input='"yes"')).stdout == "done\n"
    twice = await perdure("promise", "reject", "Sign", "w", "click", "no")
    assert twice.exit_code == 1
    assert "completed already" in twice.stderr
    assert (await perdure("promise", "get", "Sign", "w", "click")).stdout == '"yes"\n'
    assert (await perdure("call", "Sign/run", '"x"', "--key", "w")).stdout == '"ada yes"\n'
    assert (await perdure("promise", "reject", "Sign", "v", "click", "no", "--code", "418")).exit_code == 0
    rejected = await perdure("promise", "get", "Sign", "v", "click")
    assert "code 418: no" in rejected.stderr
    assert orjson.loads((await perdure("promise", "get", "Sign", "v", "click", "--json")).stdout)["failure"]

    assert (await perdure("call", "Account/add", "5", "--key", "k")).stdout == "5\n"
    assert (await perdure("state", "get", "Account", "k")).stdout == "name\tvalue\ntotal\t5\n"
    assert (await perdure("state", "set", "Account", "k", "total", "123456789012345678901234567890")).stdout == "done\n"
    assert (await perdure("state", "get", "Account", "k", "total")).stdout == "123456789012345678901234567890\n"
    assert (await perdure("state", "set", "Account", "k", "note", '"x"')).exit_code == 0
    assert orjson.loads((await perdure("state", "get", "Account", "k", "note", "--json")).stdout) == {"note": "x"}
    assert (await perdure("state", "clear", "Account", "k", "total")).stdout == "done\n"
    assert orjson.loads((await perdure("state", "get", "Account", "k", "--json")).stdout) == {"note": "x"}
    assert (await perdure("state", "get", "Account", "k", "total")).exit_code == 1
    holder = await client.send(world.hold, key="k")
    await wait_until(lambda: world.effects["hold k"])
    assert holder.invocation_id in (await perdure("state", "clear", "Account", "k", "--all")).stderr
    assert (await perdure("state", "clear", "Account", "k", "--all", "--force")).exit_code == 0
    assert (await perdure("signal", "send", holder.invocation_id, "go", "1")).stdout == "done\n"
    assert await holder.result(timeout=PATIENCE) == "held"
    other = await client.send(world.hold, key="k")
    await reach(other, "running", "suspended")
    assert (await perdure("signal", "reject", other.invocation_id, "go", "red", "--code", "418")).exit_code == 0
    late = await perdure("invocations", "show", other.invocation_id)
    assert other.invocation_id in late.stdout


UNKNOWN = new_invocation_id("Shop", None, system_random())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["invocations", "kill"], "either ids, or flags"),
        (["invocations", "kill", UNKNOWN, "--status", "paused"], "not both"),
        (["invocations", "kill", "that"], "inv_"),
        (["invocations", "kill", "--status", "tired"], "no status 'tired'"),
        (["invocations", "kill", "--older-than", "long"], "--older-than 'long'"),
        (["invocations", "kill", "--limit", "0"], "--limit"),
        (["invocations", "restart", UNKNOWN, "--keep", "-1"], "--keep"),
        (["invocations", "list", "--cursor", "there"], "not a place in a listing"),
        (["awakeable", "resolve", "that"], "awk_"),
        (["awakeable", "resolve", "awk_1", "{"], "not JSON"),
        (["signal", "send", "that", "go"], "inv_"),
        (["promise", "get", "Sign/run", "k", "click"], "not the name"),
        (["state", "get", "Account", ""], "characters"),
        (["state", "clear", "Account", "k"], "names of values, or --all"),
        (["state", "clear", "Account", "k", "total", "--all"], "names of values, or --all"),
        (["dead", "show", "there"], "not the place of a dead letter"),
        (["dead", "show", "3/99"], "no dead letter 3/99"),
        (["send", "Account/add", "1"], "give key="),
    ],
)
async def test_bad_input_is_exit_code_2(
    world: Controlled, perdure: Command, arguments: list[str], message: str
) -> None:
    """And says what to do next."""
    ended = await perdure(*arguments)
    assert ended.exit_code == 2, ended
    assert message in " ".join(ended.stderr.replace("│", " ").split())
    assert ended.stdout == ""


async def test_a_namespace_that_nobody_made_is_not_made(places: None, perdure: Command) -> None:
    """A typing error in its name changes nothing."""
    for command in (
        ["invocations", "kill", UNKNOWN, "--yes"],
        ["awakeable", "resolve", f"awk_{UNKNOWN[4:]}_0"],
        ["state", "get", "Account", "k"],
    ):
        for _ in range(2):
            ended = await perdure(*command)
            assert ended.exit_code == 2
            assert "has no namespace" in ended.stderr


async def test_dead_letters_are_put_back(
    world: Controlled, client: Client, deployment: Deployment, perdure: Command
) -> None:
    """Listed, shown, and produced again byte for byte to where they were."""
    from tests.integration.deployment import record

    assert (await perdure("dead", "list")).stdout == "place\tat\trecord\treason\n"
    topic = deployment.topic("Work")
    headers = (("a", b"1"), ("perdure-reason", b"mine"), ("b", None))
    async with deployment.sender(world.application) as sender:
        await sender.send(record(topic, b"not json", key=b"\xff", headers=headers))
        await sender.send(record(topic, b'{"no": "handler"}'))

    letters: list[dict[str, Any]] = []

    async def both_are_there() -> bool:
        letters[:] = orjson.loads((await perdure("dead", "list", "--json")).stdout)
        return len(letters) == 2

    # Each look is a run of the command.
    await wait_until(both_are_there)
    assert {letter["about"]["topic"] for letter in letters} == {topic}
    place = next(letter["place"] for letter in letters if letter["value"] == "not json")
    one = orjson.loads((await perdure("dead", "show", place, "--json")).stdout)
    assert one["headers"] == [["a", "1"], ["perdure-reason", "mine"], ["b", None]]
    shown = dict(line.split("\t", 1) for line in (await perdure("dead", "show", place)).stdout.splitlines())
    assert shown["value"] == "not json"
    assert shown["reason"] == one["about"]["reason"]
    assert len(rows((await perdure("dead", "list", "--limit", "1")).stdout)) == 1

    dry = await perdure("dead", "requeue", place, "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, "")
    assert (await perdure("dead", "requeue", place, input="n\n")).exit_code == 1
    again = await perdure("dead", "requeue", place.removeprefix("0/"), "--yes")
    assert (again.exit_code, again.stdout) == (0, f"{place}\n")
    found = await deployment.read(topic, lambda records: len(records) >= 3)
    twins = [each for each in found if each.value == b"not json"]
    assert len(twins) == 2
    assert {(each.key, each.headers, each.partition) for each in twins} == {(b"\xff", headers, twins[0].partition)}
