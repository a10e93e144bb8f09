"""Passwords and payloads are in nothing that is printed or logged: real connections that fail, every way of looking."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from perdure.journal.link import Endpoint
from perdure.journal.redis_admin import opened
from perdure.journal.redis_config import RedisConfig
from perdure.worker.clock import system_random
from perdure.worker.server_process import ServerProcess, free_port
from perdure.worker.settings import Settings
from tests.waiting import wait_until

from .conftest import Command, end

SECRET = "s3cr3t-m4rk3r"
MORE_S = 1.0
"""How long a command is listened to after it has said what it had to: it may say more with the next try."""


def hides(text: str) -> None:
    """Hold a text to hold none of it."""
    lines = [line for line in text.splitlines() if SECRET in line]
    assert lines == []


def test_what_holds_a_password_does_not_show_it() -> None:
    """Neither settings nor what is made of them, as text, repr or JSON, nor where they are in a traceback."""
    settings = Settings.load(
        redis_url=f"redis://me:{SECRET}@host:1/2",
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="me",
        kafka_sasl_password=SECRET,
    )
    config = settings.redis_config
    assert config.password == SECRET
    held = [
        settings,
        config,
        settings.kafka_config(),
        settings.kafka_config().security,
        Endpoint("h", 1, 0, "me", SECRET),
    ]
    for each in held:
        hides(f"{each} {each!r} {[each]}")
    hides(settings.model_dump_json())
    hides(str(settings.model_dump()))
    hides(settings.redis_url_masked)


@pytest.fixture
async def guarded_redis(private_redis: ServerProcess) -> ServerProcess:
    """A Redis with a password that nobody here knows."""
    async with opened(RedisConfig(host="127.0.0.1", port=private_redis.port)) as line:
        await line.ask("CONFIG", "SET", "requirepass", "another one")
    return private_redis


def sasl_login() -> dict[str, str]:
    """A login to Kafka that is complete."""
    return {
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "me",
        "KAFKA_SASL_PASSWORD": SECRET,
    }


def settings_that_are_wrong() -> dict[str, dict[str, str]]:
    """Every way in which a setting with a password is refused."""
    sasl = sasl_login()
    return {
        "not a URL": {"REDIS_URL": f"me:{SECRET}@host:1"},
        "an odd port": {"REDIS_URL": f"redis://me:{SECRET}@h:port"},
        "a question mark in it": {"REDIS_URL": f"redis://:1?{SECRET}@host"},
        "a hash in it": {"REDIS_URL": f"redis://:1#{SECRET}@host"},
        "an unknown option": {"REDIS_URL": f"redis://:{SECRET}@h/0?no=1"},
        "no name for Sentinels": {"REDIS_URL": f"redis://h/0?sentinel_password={SECRET}"},
        "an unknown mechanism": {**sasl, "KAFKA_SASL_MECHANISM": "NONE"},
        "no user": {**sasl, "KAFKA_SASL_USERNAME": ""},
    }


@pytest.mark.parametrize("name", settings_that_are_wrong())
async def test_a_setting_that_is_refused_is_told_without_the_password(
    shop: str, clean_environment: None, perdure: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Exit code 2 and the variable's name."""
    for variable, value in settings_that_are_wrong()[name].items():
        monkeypatch.setenv(f"PERDURE_{variable}", value)
    ended = await perdure("doctor")
    assert ended.exit_code == 2
    assert "PERDURE_REDIS_URL" in ended.stderr or "PERDURE_KAFKA" in ended.stderr
    hides(ended.stdout + ended.stderr)


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["refused", "refused without a user", "nobody there", "no Sentinel", "no SASL"])
async def test_a_login_that_fails_is_told_without_the_password(
    shop: str, places: None, guarded_redis: ServerProcess, way: str
) -> None:
    """By the doctor, and by a worker that logs everything; both have tried to connect."""
    nobody = f"127.0.0.1:{free_port(system_random())}"
    variables, said = {
        "refused": ({"REDIS_URL": f"redis://me:{SECRET}@{guarded_redis.address}"}, "password in PERDURE_REDIS_URL"),
        "refused without a user": (
            {"REDIS_URL": f"redis://:{SECRET}@{guarded_redis.address}"},
            "password in PERDURE_REDIS_URL",
        ),
        "nobody there": ({"REDIS_URL": f"redis://me:{SECRET}@{nobody}"}, nobody),
        "no Sentinel": ({"REDIS_URL": f"redis://{nobody}?sentinel=x&sentinel_password={SECRET}"}, nobody),
        "no SASL": (sasl_login(), "Kafka"),
    }[way]
    environment = {**os.environ, "PERDURE_LOG_LEVEL": "DEBUG", **{f"PERDURE_{n}": v for n, v in variables.items()}}
    outputs = await asyncio.gather(
        *(output_of(command, environment, said) for command in (["doctor"], ["worker", shop]))
    )
    for text in outputs:
        assert said in text
        hides(text)


async def output_of(command: list[str], environment: dict[str, str], said: str) -> str:
    """What a command says until it ends, or a little longer than until it says that."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perdure", *command),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = process.stdout
    assert output is not None
    lines: list[bytes] = []

    async def listen() -> None:
        while line := await output.readline():
            lines.append(line)

    listening = asyncio.create_task(listen())
    try:
        done = lambda: listening.done() or said in b"".join(lines).decode()  # noqa: E731
        await wait_until(done, description=f"{command} says {said}")
        await asyncio.wait([listening], timeout=MORE_S)
    finally:
        await end(process)
        await listening
    return b"".join(lines).decode()
