"""PURE. A payload codec at work: what leaves an attempt for the journal is sealed, what comes back is opened.

Sealed bytes carry a mark, so that what was written before there was a codec, and what producers write by hand, is read
as it is. Everything in between (machine, store, Kafka) handles sealed bytes without knowing.
"""

from __future__ import annotations

import base64

import orjson

from perdure.schemas.entries import Failure, Outcome, Success
from perdure.schemas.errors import SerdeError, text_of
from perdure.schemas.payloads import SEALED, SEALED_TEXT

from .payload_codec import PayloadCodec


class Sealer:
    """Seals and opens with one codec.

    Args:
        codec: The application's.
    """

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec = codec

    def seal(self, payload: bytes) -> bytes:
        """Return what is kept in place of a payload.

        Raises:
            SerdeError: The codec failed, or did not return bytes.
        """
        return SEALED + self._encoded(payload)

    def open(self, kept: bytes) -> bytes:
        """Return the payload; what is not sealed is returned as it is.

        Raises:
            SerdeError: The codec failed, or did not return bytes.
        """
        return self._decoded(kept.removeprefix(SEALED)) if kept.startswith(SEALED) else kept

    def seal_outcome(self, outcome: Outcome) -> Outcome:
        """Seal a result, and a failure where the codec is for failures, too.

        Raises:
            SerdeError: As `seal`.
        """
        match outcome:
            case Success(payload):
                return Success(self.seal(payload))
            case Failure(code, message, metadata) if self._codec.applies_to_failures:
                inner = orjson.dumps({"message": message, "metadata": dict(metadata)})
                return Failure(code, SEALED_TEXT + base64.b64encode(self._encoded(inner)).decode())
            case Failure():
                return outcome

    def open_outcome(self, outcome: Outcome) -> Outcome:
        """The inverse of `seal_outcome`.

        Raises:
            SerdeError: As `open`.
        """
        match outcome:
            case Success(kept):
                return Success(self.open(kept))
            case Failure(code, message) if message.startswith(SEALED_TEXT):
                try:
                    sealed = base64.b64decode(message.removeprefix(SEALED_TEXT), validate=True)
                    inner = orjson.loads(self._decoded(sealed))
                    return Failure(code, inner["message"], inner["metadata"])
                except (ValueError, LookupError, TypeError) as error:
                    raise SerdeError(f"A sealed failure cannot be opened: {error!r}.") from error
            case Failure():
                return outcome

    def _encoded(self, payload: bytes) -> bytes:
        try:
            sealed = self._codec.encode(payload)
        except Exception as error:
            raise SerdeError(f"The payload codec could not encode {len(payload)} bytes: {_shown(error)}.") from error
        return _checked(sealed, "encode")

    def _decoded(self, sealed: bytes) -> bytes:
        try:
            payload = self._codec.decode(sealed)
        except Exception as error:
            raise SerdeError(
                f"The payload codec could not decode {len(sealed)} bytes: {_shown(error)}. Is it the codec that wrote "
                "them?"
            ) from error
        return _checked(payload, "decode")


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {text_of(error)}"


def _checked(value: object, what: str) -> bytes:
    if not isinstance(value, bytes):
        raise SerdeError(f"The payload codec's {what} returned {type(value).__name__}, not bytes.")
    return value
