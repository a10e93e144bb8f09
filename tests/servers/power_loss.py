"""What a loss of power takes from Redis's append-only file: at most what came after the last barrier."""

from __future__ import annotations

from pathlib import Path

BARRIER = b":barrier:"
COMMAND = b"\r\n*"
"""Where one command ends and the next one begins. Values of ours hold no bare line breaks."""


def append_only_file(data_dir: Path) -> Path:
    """The file that Redis appends to now."""
    return sorted((data_dir / "appendonlydir").glob("*.incr.aof"))[-1]


def lose_unvouched(data_dir: Path, *, kept_bytes: int = 0) -> int:
    """Cut off of the append-only file all that came after the last barrier: nobody was told that it is durable.

    Args:
        data_dir: Of a Redis that does not run.
        kept_bytes: So much of the file stays in any case.

    Returns:
        How many bytes are gone. Where that cuts a transaction in two, Redis drops the rest of it, too.
    """
    log = append_only_file(data_dir)
    content = log.read_bytes()
    end = content.find(COMMAND, max(content.rfind(BARRIER), kept_bytes - len(COMMAND), 0))
    if end < 0:
        return 0
    log.write_bytes(content[: end + 2])
    return len(content) - end - 2
