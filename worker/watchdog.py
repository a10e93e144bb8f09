"""Run one server as a child that ends when whoever started this process ends, however that was.

Law: this file is executed by path (`python -I -S watchdog.py LOG COMMAND...`), imports the standard library only and
so starts in 20 ms. Its standard input is a pipe whose other end only the parent holds: the kernel closes that end even
when the parent is killed with SIGKILL, on Linux and macOS alike, and the end of the pipe is the end of the server.

```
stdin   a signal number a line: sent to the server      stdout  the server's pid, then "sent" for each signal
exit    with the server's exit code (128 + n if signal n ended it) as soon as the server ends
```
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType


def main(arguments: list[str]) -> None:
    """Run `arguments[1:]` with its output appended to the file `arguments[0]`; see the module's text."""
    log_path, *command = arguments
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    with open(log_path, "ab") as log:
        # Who starts this program names the command; there is no shell.
        server = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _answer(str(server.pid))
        threading.Thread(target=_exit_with, args=(server,), daemon=True).start()
        for line in sys.stdin:
            server.send_signal(int(line))
            _answer("sent")
    finally:
        server.kill()
        server.wait()


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _exit_with(server: subprocess.Popen[bytes]) -> None:
    code = server.wait()
    # os._exit, because the main thread is blocked in a read that nothing interrupts portably.
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1:])
