"""Commands that show or send values of an application with a payload codec, with `--app` and without."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from perdure.worker.application import Application, load_application
from perdure.worker.client import Client
from tests.integration.conftest import quick_settings
from tests.integration.controlled import reach
from tests.integration.deployment import Deployment
from tests.waiting import PATIENCE, wait_until

from .conftest import Command

VAULT = '''
"""An application whose values are sealed."""

from perdure import Context, ObjectContext, PayloadCodec, Service, TerminalError, VirtualObject, app

vault, safe = Service("Vault"), VirtualObject("Safe")
names = []


class Turned(PayloadCodec):
    applies_to_failures = True

    def encode(self, data: bytes, /) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        return data[::-1]


@vault.handler()
async def waits(ctx: Context, text: str) -> str:
    name, value = ctx.awakeable(type_hint=str)
    await ctx.run("tell", lambda: names.append(name))
    return text + await value


@vault.handler()
async def fails(ctx: Context, text: str) -> None:
    raise TerminalError(f"no {text}", 418)


@safe.handler()
async def put(ctx: ObjectContext, text: str) -> str:
    ctx.set("text", text)
    return text


application = app([vault, safe], payload_codec=Turned())
'''

TARGET = "vault_for_tests:application"


@pytest.fixture
async def deployed(
    places: None,
    redis_url: str,
    bootstrap_servers: str,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Application, Client]]:
    """The application on a worker, and a client with its codec."""
    (tmp_path / "vault_for_tests.py").write_text(VAULT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "vault_for_tests", raising=False)
    application = load_application(TARGET)
    deployment = Deployment(quick_settings(redis_url, bootstrap_servers, namespace))
    async with (
        deployment.sender(application),
        deployment.worker(application),
        Client(deployment.settings, payload_codec=application.payload_codec) as client,
    ):
        yield application, client


async def test_values_are_sent_sealed_and_shown_open_with_the_application(
    deployed: tuple[Application, Client], perdure: Command
) -> None:
    """What a command sends is sealed as a client's would be, and what it shows can be read."""
    _, client = deployed
    sent = await perdure("send", "Vault/waits", '"hush"', "--app", TARGET)
    invocation_id = sent.stdout.strip()
    names = sys.modules["vault_for_tests"].names
    await wait_until(lambda: names)
    assert (await perdure("awakeable", "resolve", names[0], '"-hush"', "--app", TARGET)).stdout == "done\n"
    assert await client.result(invocation_id, timeout=PATIENCE) == "hush-hush"
    shown = await perdure("invocations", "show", invocation_id, "--app", TARGET)
    assert "hush-hush" in shown.stdout
    journal = await perdure("journal", "show", invocation_id, "--app", TARGET)
    assert '"hush"' in journal.stdout
    assert '"hush-hush"' in journal.stdout
    followed = await perdure("journal", "show", invocation_id, "--follow", "--json", "--app", TARGET)
    assert orjson.loads(followed.stdout.splitlines()[-1])["result"] == "hush-hush"
    called = await perdure("call", "Safe/put", '"gold"', "--key", "k", "--app", TARGET)
    assert called.stdout == '"gold"\n'
    assert (await perdure("state", "get", "Safe", "k", "text", "--app", TARGET)).stdout == '"gold"\n'
    await perdure("state", "set", "Safe", "k", "text", '"silver"', "--app", TARGET)
    assert await client.read_state("Safe", "k") == {"text": "silver"}
    failed = await perdure("call", "Vault/fails", '"mercy"', "--app", TARGET)
    assert (failed.exit_code, failed.stderr) == (1, "perdure: The invocation failed with code 418: no mercy\n")


async def test_sealed_values_are_called_sealed_without_it(
    deployed: tuple[Application, Client], perdure: Command
) -> None:
    """Nothing of them reaches the terminal, and a note says what opens them."""
    _, client = deployed
    assert await client.call("Safe/put", "hush", key="k", timeout=PATIENCE) == "hush"
    handle = await client.send("Safe/put", "hush", key="k")
    await handle.result(timeout=PATIENCE)
    invocation_id = handle.invocation_id
    shown = [
        await perdure("invocations", "show", invocation_id),
        await perdure("invocations", "show", invocation_id, "--json"),
        await perdure("journal", "show", invocation_id),
        await perdure("journal", "show", invocation_id, "--json"),
        await perdure("state", "get", "Safe", "k"),
        await perdure("state", "get", "Safe", "k", "--json"),
        await perdure("state", "get", "Safe", "k", "text"),
    ]
    for each in shown:
        assert "(sealed, 6 bytes)" in each.stdout
        assert "hsuh" not in each.stdout
    assert "give --app MODULE:APP" in shown[-1].stderr
    failed = await perdure("call", "Vault/fails", '"mercy"')
    assert "code 418: (sealed by its application's payload codec: give --app" in failed.stderr
    page = await perdure("invocations", "list", "--json", "--service", "Vault")
    (listed,) = orjson.loads(page.stdout)
    assert listed["failure"]["message"] == "(sealed)"


async def test_a_kill_is_sealed_with_the_application(
    deployed: tuple[Application, Client], perdure: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the flag, or by PERDURE_APP."""
    _, client = deployed
    for flags in (("--app", TARGET), ()):
        handle = await client.send("Vault/waits", "x")
        await reach(handle, "running", "suspended")
        await perdure("invocations", "kill", handle.invocation_id, "-y", *flags)
        shown = await perdure("invocations", "show", handle.invocation_id, "--json")
        expected = "(sealed)" if flags else "killed"
        assert orjson.loads(shown.stdout)["failure"]["message"] == expected
    monkeypatch.setenv("PERDURE_APP", TARGET)
    handle = await client.send("Vault/waits", "x")
    await reach(handle, "running", "suspended")
    await perdure("invocations", "kill", handle.invocation_id, "-y")
    monkeypatch.delenv("PERDURE_APP")
    shown = await perdure("invocations", "show", handle.invocation_id, "--json")
    assert orjson.loads(shown.stdout)["failure"]["message"] == "(sealed)"


async def test_an_application_that_is_not_there_is_named(places: None, perdure: Command) -> None:
    """Before anything is sent."""
    refused = await perdure("call", "Vault/waits", '"x"', "--app", "no_such_module:application")
    assert refused.exit_code == 2
    assert "no_such_module" in refused.stderr
