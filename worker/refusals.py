"""PURE. Why an invocation did not take what somebody brought to it."""

from __future__ import annotations

from perdure.journal.store import Delivery
from perdure.schemas.ids import InvocationId
from perdure.schemas.limits import CANCELLATIONS_MAX, RECEIVED_BYTES_MAX, RECEIVED_MAX


def refusal(delivery: Delivery, invocation_id: InvocationId, awaited_index: int = -1) -> str:
    """Why an invocation did not take what was brought to it, for people; empty where it did, or needs nothing more."""
    match delivery.result:
        case "full":
            return (
                f"{invocation_id} was sent too much: at most {RECEIVED_MAX} signals and results of awakeables with "
                f"{RECEIVED_BYTES_MAX} bytes in all, and {CANCELLATIONS_MAX} cancellations. Let it end and send a "
                "successor what is left, or kill it."
            )
        case "no-awakeable":
            return (
                f"Command {awaited_index} of {invocation_id} is no awakeable, but of type {delivery.status}: the id "
                "was not made by ctx.awakeable(), or the handler has changed since."
            )
        case _:
            return ""
