"""Whom a handler calls, and with what; everything that it names is held to its bounds at the call. PURE.

What could not be written to the journal, or not be produced to Kafka, must be refused here, where the author sees it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from perdure.schemas.entries import Headers, Outcome, Success
from perdure.schemas.errors import SerdeError, UsageError
from perdure.schemas.ids import InvocationId, is_invocation_id, read_awakeable_id
from perdure.schemas.limits import HEADERS_BYTES_MAX, HEADERS_MAX, KEY_LENGTH_MAX, NAME_LENGTH_MAX, PAYLOAD_BYTES_MAX

_SERVICE = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{NAME_LENGTH_MAX - 1}}}")
"""As `definitions` names services: their names become those of topics."""

LATEST_MS = 253_402_300_799_999
"""The end of the year 9999: what begins later has no date in a record."""


class Callee(NamedTuple):
    """Who is called. `main` where it is a workflow's one run."""

    service: str
    handler: str
    key: str | None
    main: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.service}/{self.handler}"


class Asked(NamedTuple):
    """How a call is made beside whom and with what."""

    idempotency_key: str | None = None
    headers: Mapping[str, str] | None = None
    delay_ms: int = 0


def named_callee(service: str, handler: str, key: str | None) -> Callee:
    """Return who is called by names that somebody wrote; those of a handler were looked at when it was defined.

    Raises:
        UsageError: A name is not one.
    """
    if _SERVICE.fullmatch(_unicode("A service's name", service).decode()) is None:
        raise UsageError(f"{service!r:.200} is not the name of a service, as it was given to Service(...).")
    return Callee(service, checked_name("A handler", handler), key)


def checked_headers(callee: Callee, argument: bytes, asked: Asked) -> Headers:
    """Return the headers of a call that is within its bounds.

    Raises:
        UsageError: A key or a header is not one, or there are too many.
        SerdeError: The argument is too large.
    """
    if callee.key is not None:
        _check_text(f"A key, here for {callee.name},", callee.key, characters_max=KEY_LENGTH_MAX)
    if asked.idempotency_key is not None:
        _check_text("An idempotency key", asked.idempotency_key, characters_max=KEY_LENGTH_MAX)
    if len(argument) > PAYLOAD_BYTES_MAX:
        raise SerdeError(
            f"The argument of {callee.name} has {len(argument)} bytes; at most {PAYLOAD_BYTES_MAX} are allowed."
        )
    headers = asked.headers
    if not headers:
        return ()
    if len(headers) > HEADERS_MAX:
        raise UsageError(f"A call has at most {HEADERS_MAX} headers, not {len(headers)}.")
    made = tuple((_unicode("A header's name", name).decode(), _unicode("A header", headers[name])) for name in headers)
    headers_bytes = sum(len(name.encode()) + len(value) for name, value in made)
    if headers_bytes > HEADERS_BYTES_MAX:
        raise UsageError(f"The headers of a call have at most {HEADERS_BYTES_MAX} bytes, not {headers_bytes}.")
    return made


def checked_outcome(what: str, outcome: Outcome) -> Outcome:
    """Return what a handler completes something with.

    Raises:
        SerdeError: The value is too large.
    """
    if isinstance(outcome, Success) and len(outcome.value) > PAYLOAD_BYTES_MAX:
        raise SerdeError(f"{what} has {len(outcome.value)} bytes; at most {PAYLOAD_BYTES_MAX} are allowed.")
    return outcome


def checked_awakeable(name: object) -> tuple[InvocationId, int]:
    """Return whose awakeable it is, and its command index.

    Raises:
        UsageError: It cannot be the id of one.
    """
    found = read_awakeable_id(name) if isinstance(name, str) else None
    if found is None:
        raise UsageError(
            f"{name!r:.200} is not the id of an awakeable: those are awk_..., as ctx.awakeable() returns them."
        )
    return found


def checked_id(text: object) -> InvocationId:
    """Return the id of an invocation.

    Raises:
        UsageError: It is not one.
    """
    if not isinstance(text, str) or not is_invocation_id(text):
        raise UsageError(f"{text!r:.200} is not an invocation id: those are inv_ and 27 hexadecimal digits.")
    return InvocationId(text)


def checked_name(what: str, name: str) -> str:
    """Return the name of something, such as `A signal`.

    Raises:
        UsageError: It is empty, too long, or no Unicode text.
    """
    _check_text(f"The name of {what[0].lower()}{what[1:]}", name, characters_max=NAME_LENGTH_MAX)
    return name


def _check_text(what: str, text: str, *, characters_max: int) -> None:
    _unicode(what, text)
    size = len(text)
    if not 0 < size <= characters_max:
        raise UsageError(f"{what} has 1 to {characters_max} characters, not {size}: {text!r:.100}.")


def _unicode(what: str, text: object) -> bytes:
    if not isinstance(text, str):
        raise UsageError(f"{what} is a string, and {text!r:.200} is of type {type(text).__name__}.")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        # Half a character: JSON, and so the journal, has none.
        raise UsageError(f"{what} is Unicode text, and {text!r:.200} is not: {error}.") from error
