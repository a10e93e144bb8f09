"""PURE. What a client puts into Kafka for an invocation, and what it makes of an outcome."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from perdure.schemas.codec import is_json
from perdure.schemas.entries import Failure, Outcome, Success
from perdure.schemas.errors import DecodeError, SerdeError, UsageError
from perdure.schemas.ids import (
    InvocationId,
    id_of_idempotency_key,
    id_of_workflow,
    is_invocation_id,
    place_of,
    place_of_object,
)
from perdure.schemas.records import decode_invocation, plain_envelope

from .handler import HandlerMode, ServiceKind, handler_of
from .sealing import Sealer
from .serde import JSON, Serde, decode_value, encode_value


class _Nothing:
    def __repr__(self) -> str:
        return "NOTHING"


NOTHING: Final = _Nothing()
"""The argument of a handler that takes none; `None` is JSON's null."""


TARGETS_MAX: Final = 1024
"""Targets by name that are kept ready; a program calls some dozens."""


class Target(NamedTuple):
    """Which handler, and how its values travel. Without an `output_serde` results are JSON's values.

    `kind` and `mode` are the handler's; `None` for one that is known by name only.
    """

    service: str
    handler: str
    input_serde: Serde[Any]
    output_serde: Serde[Any] | None
    kind: ServiceKind | None = None
    mode: HandlerMode | None = None

    @property
    def name(self) -> str:
        """`Service/handler`."""
        return f"{self.service}/{self.handler}"

    def result_of(self, outcome: Outcome) -> Any:
        """Return the result, or raise the failure.

        Raises:
            TerminalError: The outcome is a failure.
            SerdeError: The result is not of the declared type.
        """
        if isinstance(outcome, Success) and self.output_serde is not None:
            return decode_value(self.output_serde, outcome.value, what=f"The result of {self.name}")
        return untyped_result_of(outcome)


class Options(NamedTuple):
    """What a sender may say beside the argument; the fields are those of `schemas.records.Invocation`."""

    id: str | None = None
    idempotency_key: str | None = None
    key: str | None = None
    not_before: datetime | None = None
    headers: Mapping[str, str] | None = None
    reply_to: str | None = None
    waiter: str | None = None


def target_of(target: str | Callable[..., Awaitable[Any]]) -> Target:
    """Read a target: `"Service/handler"`, or a handler function.

    Raises:
        UsageError: The text is not of that form.
        DefinitionError: The function is not a handler.
    """
    if callable(target):
        handler = handler_of(target)
        return Target(
            handler.service, handler.name, handler.input_serde, handler.output_serde, handler.kind, handler.mode
        )
    return _named_target(target)


@lru_cache(TARGETS_MAX)
def _named_target(target: str) -> Target:
    service, slash, name = target.partition("/")
    if not service or not slash or not name or "/" in name:
        raise UsageError(f"{target!r} is not a target: write Service/handler.")
    return Target(service, name, JSON, None)


def checked_id(text: str) -> InvocationId:
    """Return `text` as an invocation id.

    Raises:
        UsageError: It is none.
    """
    if not is_invocation_id(text):
        raise UsageError(f"{text!r} is not an invocation id: those are inv_ and 27 hexadecimal digits.")
    return InvocationId(text)


def untyped_result_of(outcome: Outcome) -> Any:
    """Return the result as JSON's value, or as bytes where it is not JSON; `None` where there is none.

    Raises:
        TerminalError: The outcome is a failure.
    """
    match outcome:
        case Failure():
            raise outcome.to_error()
        case Success(raw) if not raw or is_json(raw):
            return JSON.deserialize(raw)
        case Success(raw):
            try:
                # An integer beyond what a float holds is JSON, which the quick look above does not know.
                return JSON.deserialize(raw)
            except SerdeError:
                return raw


def placed(target: Target, options: Options) -> Options:
    """Hold the options against what the target is; the one id of a workflow's run is among those returned.

    Raises:
        UsageError: There is no key where there must be one, or an id that cannot be that invocation's.
    """
    if target.kind in (None, ServiceKind.SERVICE):
        return options
    if options.key is None:
        kind = "an object" if target.kind is ServiceKind.OBJECT else "a workflow"
        raise UsageError(f"{target.name} is a handler of {kind}: give key=..., which says which one.")
    if target.mode is HandlerMode.MAIN:
        run = id_of_workflow(target.service, options.key)
        if options.idempotency_key is not None or options.id not in (None, run):
            raise UsageError(
                f"{target.name} runs once for each key, which alone says which run it is: leave id and idempotency_key "
                "out."
            )
        return options._replace(id=run)
    place = place_of_object(target.service, options.key)
    if options.id is not None and is_invocation_id(options.id) and place_of(options.id) != place:
        raise UsageError(
            f"The id {options.id} was not made for {target.service}/{options.key}: leave it out, use idempotency_key, "
            "or make it with perdure.schemas.ids.new_invocation_id(service, key, ...)."
        )
    return options


def envelope_of(
    target: Target, argument: object, options: Options, *, fresh_id: InvocationId, sealer: Sealer | None = None
) -> tuple[InvocationId, bytes]:
    """Return the id that the invocation will have, and the value of its record.

    Args:
        target: Whose topic it goes to.
        argument: `NOTHING` where there is none.
        options: The sender's.
        fresh_id: Used where the options name neither an id nor an idempotency key.
        sealer: Of the application's payload codec, where it has one.

    Raises:
        UsageError: An option is out of its bounds.
        SerdeError: The argument cannot be written.
    """
    fields: dict[str, Any] = {"handler": target.handler}
    if options.idempotency_key is None:
        invocation_id = fresh_id if options.id is None else checked_id(options.id)
        fields["id"] = invocation_id
    else:
        invocation_id = id_of_idempotency_key(
            target.service, target.handler, options.key, idempotency_key=options.idempotency_key
        )
        fields |= {"idempotency_key": options.idempotency_key} | ({"id": options.id} if options.id else {})
    _add_rest(fields, options)
    try:
        envelope = orjson.dumps(fields)
        # The receiver's own check, before the record is sent to where its refusal would be a dead letter.
        if plain_envelope(fields) is None:
            decode_invocation(envelope)
    except (DecodeError, orjson.JSONEncodeError) as error:
        raise UsageError(f"{target.name} cannot be invoked like this. {error}") from error
    if argument is not NOTHING:
        raw = encode_value(target.input_serde, argument, what=f"The argument of {target.name}")
        envelope = b"%b,%b}" % (envelope[:-1], _argument(raw if sealer is None else sealer.seal(raw)))
    return invocation_id, envelope


def _add_rest(fields: dict[str, Any], options: Options) -> None:
    if options.key is not None:
        fields["key"] = options.key
    if options.not_before is not None:
        fields["not_before"] = options.not_before
    if options.headers:
        fields["headers"] = dict(options.headers)
    if options.reply_to is not None:
        fields["reply_to"] = options.reply_to
    if options.waiter is not None:
        fields["waiter"] = options.waiter


def _argument(raw: bytes) -> bytes:
    return b'"argument":%b' % raw if is_json(raw) else b'"base64":"%b"' % base64.b64encode(raw)
