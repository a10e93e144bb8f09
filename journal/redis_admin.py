"""Redis beside the hot path: a namespace's set-up, what a server says of itself, and single lines to it.

Law: the only module that imports redis. A line is one raw connection, without a pool and without retries: a pool may
send a command again after a timeout, and may ask WAITAOF on another connection than the one that wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from perdure.schemas.errors import SettingsError, StoreError
from perdure.schemas.ids import PLACES

from .durability import ServerFacts, read_facts
from .keys import Keys
from .redis_config import RedisConfig

FORMAT: Final = 1
"""Version of what stands under a namespace's keys; a worker refuses one that it does not know."""

SLOTS_DEFAULT: Final = 64

CONNECT_TIMEOUT_S: Final = 5.0
REPLY_TIMEOUT_S: Final = 5.0

Word = str | bytes | int
Command = Sequence[Word]


class NamespaceSettings(NamedTuple):
    """What was fixed when the namespace was made."""

    slots: int
    format: int


async def open_namespace(config: RedisConfig, namespace: str, *, slots: int | None = None) -> NamespaceSettings:
    """Make the namespace if it is new, and return what is in force.

    Args:
        config: The server.
        namespace: Its name.
        slots: How many it must have, at most 1,024; `None` takes what it has, and 64 where it is new.

    Raises:
        SettingsError: It has another number of slots, or was written by a newer version, or the login is wrong.
        StoreError: Redis does not answer or refuses.
    """
    if slots is not None and not 1 <= slots <= PLACES:
        raise SettingsError(f"PERDURE_SLOTS={slots} is not in 1..{PLACES}.")
    key = Keys(namespace, slots=1).settings
    async with opened(config) as line:
        await line.ask("HSETNX", key, "slots", SLOTS_DEFAULT if slots is None else slots)
        await line.ask("HSETNX", key, "format", FORMAT)
        found = _settings(namespace, await line.ask("HMGET", key, "slots", "format"))
    if found is None:
        raise StoreError(
            f"The settings of the namespace {namespace!r} vanished from Redis while it was opened: try again."
        )
    if slots is not None and found.slots != slots:
        raise SettingsError(
            f"The namespace {namespace!r} has {found.slots} slots and PERDURE_SLOTS asks for {slots}. Slots are fixed "
            f"when a namespace is made: set PERDURE_SLOTS={found.slots}, or use a new namespace."
        )
    return found


async def read_namespace(config: RedisConfig, namespace: str) -> NamespaceSettings | None:
    """Return what is in force without making anything; `None` where the namespace is not there yet.

    Raises:
        SettingsError: It was written by a newer version, or the login is wrong.
        StoreError: Redis does not answer or refuses.
    """
    async with opened(config) as line:
        return _settings(namespace, await line.ask("HMGET", Keys(namespace, slots=1).settings, "slots", "format"))


async def server_facts(config: RedisConfig) -> ServerFacts:
    """Ask the server what it is and how it persists. What an ACL or a managed service hides is `None` in the answer.

    Raises:
        SettingsError: The login is wrong.
        StoreError: Redis does not answer.
    """
    names = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "stream-node-max-bytes")
    async with opened(config) as line:
        # One by one: a refusal of one name says nothing of the others.
        info, *pairs = await line.ask_all([("INFO",), *[("CONFIG", "GET", name) for name in names]])
    fields: dict[str, str] = {}
    if isinstance(info, bytes):
        split = (text.partition(":") for text in info.decode().splitlines() if not text.startswith("#"))
        fields = {name: value for name, _, value in split}
    settings = {pair[0].decode(): pair[1].decode() for pair in pairs if isinstance(pair, list) and pair}
    return read_facts(fields, settings)


class Refusal(NamedTuple):
    """The server's answer that it will not do it."""

    kind: Literal["unknown command", "no permission", "no script", "other"]
    text: str

    def to_error(self, config: RedisConfig) -> StoreError:
        """The error that says what to do."""
        if self.kind == "no permission":
            mend = "grant it to the user with ACL SETUSER."
            return StoreError(f"Redis {config.address} forbids a command ({self.text}): {mend}")
        return StoreError(f"Redis {config.address} refuses a command: {self.text}.")


class Line:
    """One connection, made when it is needed and never behind one's back within a call. Nothing is sent twice.

    `SettingsError` from any call: the login is wrong. `StoreError`: the connection was lost or no answer came in time;
    it is closed then, and the next call connects anew.
    """

    def __init__(self, config: RedisConfig, *, name: str, reply_timeout_s: float = REPLY_TIMEOUT_S) -> None:
        self.config = config
        self.connections = 0
        """How many times it was connected so far."""
        self._reply_timeout_s = reply_timeout_s
        make = redis.asyncio.connection.SSLConnection if config.tls else redis.asyncio.connection.Connection
        # Timeouts are our own: redis-py's use asyncio.wait_for, which before Python 3.12 may swallow a cancellation.
        arguments = _arguments(config, name=name, reply_timeout_s=None)
        self._connection = make(**arguments, retry=AsyncRetry(NoBackoff(), 0))

    async def connect(self) -> None:
        """Connect if there is no connection.

        Raises:
            SettingsError: The login is wrong.
            StoreError: There is nobody, or it refuses.
        """
        if not self._connection.is_connected:
            with _translated(self.config):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._connection.connect()  # type: ignore[no-untyped-call]  # redis-py's own
            self.connections += 1

    async def ask(self, *command: Word) -> Any:
        """Return the answer to one command.

        Raises:
            SettingsError: The login is wrong.
            StoreError: The connection was lost, no answer came in time, or it was refused.
        """
        (reply,) = await self.ask_all([command])
        if isinstance(reply, Refusal):
            raise reply.to_error(self.config)
        return reply

    async def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands in one write on one connection and return their answers, `Refusal`s among them.

        Raises:
            SettingsError: The login is wrong.
            StoreError: The connection was lost, or no answer came in time.
        """
        await self.connect()
        await self.send(*commands)
        return [await self.read() for _ in commands]

    async def send(self, *commands: Command) -> None:
        """Send without reading. Only after `connect`.

        Raises:
            StoreError: The connection was lost.
        """
        with _translated(self.config):
            packed = self._connection.pack_commands(commands)
            async with asyncio.timeout(self._reply_timeout_s):
                await self._connection.send_packed_command(packed, check_health=False)

    async def read(self) -> Any:
        """Return the next answer.

        Raises:
            StoreError: The connection was lost, or no answer came in time.
        """
        with _translated(self.config):
            try:
                async with asyncio.timeout(self._reply_timeout_s):
                    return await self._connection.read_response(timeout=math.inf)
            except ResponseError as error:
                return _refusal(error)

    async def close(self) -> None:
        """Close the connection if there is one. Safe to repeat."""
        with contextlib.suppress(RedisError):
            await self._connection.disconnect(nowait=True)


class ThreadLine:
    """`Line` for threads: blocks. Not thread-safe."""

    def __init__(self, config: RedisConfig, *, name: str, reply_timeout_s: float) -> None:
        self.config = config
        make = redis.connection.SSLConnection if config.tls else redis.connection.Connection
        arguments = _arguments(config, name=name, reply_timeout_s=reply_timeout_s)
        # Any, because redis-py leaves the methods of its blocking connection untyped.
        self._connection: Any = make(**arguments, retry=Retry(NoBackoff(), 0))

    def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """As `Line.ask_all`.

        Raises:
            SettingsError: The login is wrong.
            StoreError: The connection was lost, or no answer came in time.
        """
        with _translated(self.config):
            packed = self._connection.pack_commands(commands)
            self._connection.send_packed_command(packed, check_health=False)
            return [self._read() for _ in commands]

    def close(self) -> None:
        """Close the connection if there is one. Safe to repeat."""
        self._connection.disconnect()

    def _read(self) -> Any:
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return _refusal(error)


@contextlib.asynccontextmanager
async def opened(config: RedisConfig) -> AsyncIterator[Line]:
    """A line for a few questions.

    Raises:
        SettingsError: The login is wrong.
        StoreError: There is nobody, or it refuses.
    """
    line = Line(config, name="perdure-admin")
    try:
        await line.connect()
        yield line
    finally:
        await line.close()


def _arguments(config: RedisConfig, *, name: str, reply_timeout_s: float | None) -> dict[str, Any]:
    tls = {
        "ssl_ca_certs": config.tls_ca_file,
        "ssl_certfile": config.tls_cert_file,
        "ssl_keyfile": config.tls_key_file,
        "ssl_cert_reqs": "required" if config.tls_verify else "none",
        "ssl_check_hostname": config.tls_check_hostname,
    }
    return {
        "host": config.host,
        "port": config.port,
        "db": config.db,
        "username": config.username,
        "password": config.password,
        "client_name": name,
        "socket_timeout": reply_timeout_s,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        # RESP2: a subscription's messages are plain arrays, and nothing that is used here needs RESP3.
        "protocol": 2,
        "decode_responses": False,
        "health_check_interval": 0,
        "retry_on_timeout": False,
        "retry_on_error": [],
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        **(tls if config.tls else {}),
    }


def _settings(namespace: str, reply: list[bytes | None]) -> NamespaceSettings | None:
    slots, version = reply
    if slots is None or version is None:
        return None
    if int(version) > FORMAT:
        raise SettingsError(
            f"The namespace {namespace!r} has format {int(version)}, and this version of perdure knows up to {FORMAT}: "
            "upgrade it."
        )
    return NamespaceSettings(int(slots), int(version))


def _refusal(error: ResponseError) -> Refusal:
    text = str(error).rstrip(".")
    if isinstance(error, NoPermissionError):
        return Refusal("no permission", text)
    if isinstance(error, NoScriptError):
        return Refusal("no script", text)
    return Refusal("unknown command" if text.lower().startswith("unknown command") else "other", text)


@contextlib.contextmanager
def _translated(config: RedisConfig) -> Iterator[None]:
    # The text of redis-py's errors holds no password; nor do the server's own replies.
    try:
        yield
    except AuthenticationError as error:
        raise SettingsError(
            f"Redis {config.address} refuses the login ({error}): mend the user or password in PERDURE_REDIS_URL."
        ) from error
    except ResponseError as error:
        # Reached while connecting only: answers to commands are values.
        raise _refusal(error).to_error(config) from error
    except (ConnectionError, TimeoutError, OSError) as error:
        why = str(error) or "no answer in time"
        raise StoreError(
            f"Redis {config.address} does not answer ({why}): start it, or mend PERDURE_REDIS_URL."
        ) from error
    except RedisError as error:
        raise StoreError(f"The connection to Redis {config.address} cannot be used: {error}.") from error
