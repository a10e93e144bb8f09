"""One Redis or Kafka server as a child process: started, waited for, killed, paused, and never left behind.

Law: the server is the child of a watchdog (`watchdog.py`) that ends it when this process ends, even by SIGKILL.
Whoever forks this process without exec shares its end of the watchdog's pipe, and the server then ends with the last
of them; subprocesses do not. Nothing here is bound to an event loop: one may start a server and another one end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from perdure.schemas.errors import ServerProcessError

from . import watchdog

HOST = "127.0.0.1"

# Below the range from which Linux (32768) and macOS (49152) take the local ports of outgoing connections: a client
# that keeps trying a port in that range while its server is down can connect to itself and so take the port away.
PORTS = range(15_000, 30_000)

# A JVM on two busy cores needs about 10 s, and on a machine of which others take most has needed more than 30. One that
# will not serve at all mostly ends, which is seen at once.
READY_S = 120.0
# A server that ignores SIGTERM for longer is ended with SIGKILL, as an init system would.
STOP_S = 10.0
PROBE_S = 1.0
PROBE_INTERVAL_S = 0.02
LOG_TAIL_BYTES = 2_000


class Probe(NamedTuple):
    """How to tell that a server serves: what to send, and whether the first bytes of its answer mean yes."""

    request: bytes
    answered: Callable[[bytes], bool]


# While Redis loads its append-only file it answers "-LOADING" instead.
REDIS_PROBE = Probe(b"*1\r\n$4\r\nPING\r\n", lambda answer: answer.startswith(b"+PONG"))

# ApiVersions version 0, correlation id 7, no client id: the one request that every broker must understand.
# Source: Kafka protocol guide, "Retrieving supported API versions".
_API_VERSIONS = b"\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff"
KAFKA_PROBE = Probe(
    len(_API_VERSIONS).to_bytes(4, "big") + _API_VERSIONS,
    lambda answer: answer[4:10] == b"\x00\x00\x00\x07\x00\x00",
)


def free_port(generator: random.Random) -> int:
    """Return a loopback port nobody listens on now, outside the range of outgoing connections.

    Raises:
        ServerProcessError: A hundred ports in a row were taken.
    """
    for _ in range(100):
        port = generator.choice(PORTS)
        if _is_free(port):
            return port
    raise ServerProcessError(f"No free port on {HOST} in {PORTS.start}-{PORTS.stop}. Name one that is free.")


class ServerProcess:
    """A server on a fixed loopback port that can be started and ended any number of times.

    Args:
        name: What people call it, for messages.
        command: The program and its arguments; must stay in the foreground.
        port: Where `command` listens on 127.0.0.1.
        probe: How to tell that it serves.
        log_path: Where its output is appended.
        environment: Variables in addition to this process's own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        probe: Probe,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.log_path = log_path
        self._command = list(command)
        self._probe = probe
        self._environment = dict(environment or {})
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The server's own process id while it runs, else `None`."""
        return self._pid if self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._watchdog is not None and self._watchdog.poll() is None

    async def start(self) -> None:
        """Start the server and return once it serves. Starting a running server does nothing.

        Raises:
            ServerProcessError: Its port is taken; or it ended or did not serve within `READY_S`, and the message holds
                the end of its log.
        """
        if self.is_running:
            return
        await asyncio.to_thread(self._spawn)
        try:
            async with asyncio.timeout(READY_S):
                while not await self._serves():  # noqa: ASYNC110 - another process tells nobody when it serves
                    await asyncio.sleep(PROBE_INTERVAL_S)
        except TimeoutError as error:
            await self.kill()
            raise self._failure(f"did not answer on {self.address} within {READY_S:.0f} s") from error
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Ask the server to end (SIGTERM), wait, and insist (SIGKILL) after `STOP_S`. Safe to repeat."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End the server at once, as a power cut ends it (SIGKILL). Safe to repeat."""
        await self._end(signal.SIGKILL)

    def kill_blocking(self) -> None:
        """As `kill`, for the end of this process: asyncio has no threads then. Safe to repeat."""
        self._reap(signal.SIGKILL)

    async def restart(self) -> None:
        """Kill the server if it runs, and start it on the same port and data.

        Raises:
            ServerProcessError: As `start`.
        """
        await self.kill()
        await self.start()

    async def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open and nothing answers.

        Raises:
            ServerProcessError: The server does not run.
        """
        await asyncio.to_thread(self._send, signal.SIGSTOP)

    async def resume(self) -> None:
        """Let a paused server go on (SIGCONT).

        Raises:
            ServerProcessError: The server does not run.
        """
        await asyncio.to_thread(self._send, signal.SIGCONT)

    def _spawn(self) -> None:
        # Asked first, because otherwise the probe would take whoever listens there for the server.
        if not _is_free(self.port):
            raise ServerProcessError(
                f"{self.name} cannot start: another program listens on {self.address}. End it, or name another port."
            )
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(  # noqa: S603 # our own watchdog; there is no shell
            [sys.executable, "-I", "-S", watchdog.__file__, str(self.log_path), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **self._environment},
            # Ctrl-C goes to a terminal's whole foreground group; servers must outlive the worker's orderly end.
            start_new_session=True,
        )
        self._watchdog = process
        answer = _pipes(process)[1].readline()
        if not answer:
            self._reap(signal.SIGKILL)
            raise self._failure("could not be executed")
        self._pid = int(answer)

    async def _serves(self) -> bool:
        if not self.is_running:
            code = self._watchdog.poll() if self._watchdog else None
            raise self._failure(f"ended with exit code {code} before it served")
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PROBE_S):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                try:
                    writer.write(self._probe.request)
                    return self._probe.answered(await reader.read(64))
                finally:
                    writer.close()
        return False

    async def _end(self, number: signal.Signals) -> None:
        await asyncio.to_thread(self._reap, number)

    def _reap(self, number: signal.Signals) -> None:
        process, self._watchdog, self._pid = self._watchdog, None, None
        if process is None:
            return
        stdin, stdout = _pipes(process)
        with process, contextlib.suppress(BrokenPipeError):
            if number != signal.SIGKILL:
                stdin.write(b"%d\n" % number)
                stdin.flush()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
            stdin.close()
            stdout.read()

    def _send(self, number: signal.Signals) -> None:
        if self._watchdog is None or not self.is_running:
            raise ServerProcessError(f"{self.name} is not running, so it cannot be sent {number.name}. Start it first.")
        stdin, stdout = _pipes(self._watchdog)
        stdin.write(b"%d\n" % number)
        stdin.flush()
        stdout.readline()

    def _failure(self, what: str) -> ServerProcessError:
        tail = b""
        with contextlib.suppress(OSError):
            tail = self.log_path.read_bytes()[-LOG_TAIL_BYTES:]
        return ServerProcessError(
            f"{self.name} {what}. The end of its log, {self.log_path}:\n{tail.decode(errors='replace').strip()}"
        )


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError:
            return False
    return True


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None, "the watchdog is always started with pipes"
    assert process.stdout is not None, "the watchdog is always started with pipes"
    return process.stdin, process.stdout
