"""Single lines to one Redis server, beside the hot path.

Law: the only module that imports redis. A line is one raw connection, without a pool and without retries: a pool may
send a command again after a timeout, and may ask WAITAOF on another connection than the one that wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from perdure.schemas.errors import SettingsError, StoreError

from .redis_config import RedisConfig, unreachable

CONNECT_TIMEOUT_S: Final = 5.0
REPLY_TIMEOUT_S: Final = 5.0

_ELSEWHERE: Final = (AskError, ClusterDownError, ReadOnlyError, TryAgainError)
"""What a server answers that does not serve the key now, or not any more: who asks again has to look where it is.
`MovedError` is an `AskError`."""

Word = str | bytes | int
Command = Sequence[Word]


class Refusal(NamedTuple):
    """The server's answer that it will not do it."""

    kind: Literal["unknown command", "no permission", "no script", "elsewhere", "other"]
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

    def __init__(
        self,
        config: RedisConfig,
        *,
        name: str,
        reply_timeout_s: float = REPLY_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self.config = config
        self.connections = 0
        """How many times it was connected so far."""
        self._reply_timeout_s = reply_timeout_s
        self._connect_timeout_s = connect_timeout_s
        make = redis.asyncio.connection.SSLConnection if config.tls else redis.asyncio.connection.Connection
        # Timeouts are our own: redis-py's use asyncio.wait_for, which before Python 3.12 may swallow a cancellation.
        arguments = _arguments(config, name=name, reply_timeout_s=None)
        self._connection = make(**arguments, retry=AsyncRetry(NoBackoff(), 0))

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that was not found dead."""
        connected: bool = self._connection.is_connected
        return connected

    async def connect(self) -> None:
        """Connect if there is no connection.

        Raises:
            SettingsError: The login is wrong.
            StoreError: There is nobody, or it refuses.
        """
        if not self._connection.is_connected:
            with _translated(self.config):
                async with asyncio.timeout(self._connect_timeout_s):
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
            try:
                async with asyncio.timeout(self._reply_timeout_s):
                    await self._connection.send_packed_command(packed, check_health=False)
            except RuntimeError as error:
                # uvloop's word for a transport that was reset before; asyncio's own has an OSError for it.
                raise ConnectionError(f"the connection was lost: {error}") from error

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
        arguments["socket_connect_timeout"] = min(CONNECT_TIMEOUT_S, reply_timeout_s)
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


def _refusal(error: ResponseError) -> Refusal:
    text = str(error).rstrip(".")
    if isinstance(error, NoPermissionError):
        return Refusal("no permission", text)
    if isinstance(error, NoScriptError):
        return Refusal("no script", text)
    if isinstance(error, _ELSEWHERE):
        return Refusal("elsewhere", f"{type(error).__name__.removesuffix('Error')} {text}")
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
        # redis-py says of a certificate file that is not there what it says of servers that are not.
        config.ssl_context()
        raise StoreError(unreachable(config.address, error, tls=config.tls)) from error
    except RedisError as error:
        raise StoreError(f"The connection to Redis {config.address} cannot be used: {error}.") from error
