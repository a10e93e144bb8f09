"""What a replayed command is given, held against what was recorded: names are compared by the machine, arguments here.

What differs is no divergence: bytes differ where a field was added, or a codec seals them anew. It is mostly a mistake,
all the same, and so it is told.
"""

from __future__ import annotations

from typing import Any

from perdure.schemas.commands import Call, Resolve, Send, SetState
from perdure.schemas.entries import Success, Waiting, Written
from perdure.schemas.errors import SerdeError

from .sealing import Sealer


def changed(recorded: Waiting | Written, issued: Waiting | Written, sealer: Sealer | None) -> str | None:
    """What is different in an argument, for people, without the values, which may be secrets; `None`: nothing."""
    before, now = _arguments(recorded), _arguments(issued)
    try:
        different = [
            _described(name, before[name], now.get(name))
            for name in before
            if _opened(before[name], sealer) != _opened(now.get(name), sealer)
        ]
    except SerdeError:
        # Sealed with a key that is gone: nobody can say, and nobody needs to read it.
        return None
    return "; ".join(different) or None


def _arguments(command: Waiting | Written) -> dict[str, Any]:
    match command:
        case Call() | Send():
            headers = tuple(sorted(command.headers))
            return {"argument": command.value, "headers": headers, "idempotency key": command.idempotency_key}
        case SetState():
            return {"value": command.value}
        case Resolve(outcome=Success(value)):
            return {"value": value}
        case Resolve():
            return {"failure": command.outcome}
        case _:
            return {}


def _opened(value: Any, sealer: Sealer | None) -> Any:
    return sealer.open(value) if sealer is not None and isinstance(value, bytes) else value


def _described(name: str, before: Any, now: Any) -> str:
    if not isinstance(before, bytes) or not isinstance(now, bytes):
        return f"another {name}"
    common = next((at for at, (old, new) in enumerate(zip(before, now, strict=False)) if old != new), None)
    at = min(len(before), len(now)) if common is None else common
    return f"another {name}: {len(before)} bytes in the journal, {len(now)} now, different from byte {at} on"
