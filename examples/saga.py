"""Book a trip in three steps; when one of them fails for good, undo those that are done, newest first.

The compensations are steps like any other: they survive crashes, are retried until they succeed, and are never done
twice once they are recorded. Run it with `perdure dev examples.saga:application`, and then
`perdure call Trips/book '{"destination": "Oslo"}'`, or with `"sold_out": "hotel"`.
"""

from __future__ import annotations

from pydantic import BaseModel

from examples.ledger import Ledger
from perdure import Context, Service, TerminalError, app, current_step

trips = Service("Trips")


class Trip(BaseModel):
    """What to book. `sold_out` names what cannot be had: flight, car or hotel."""

    destination: str
    sold_out: str = ""


@trips.handler()
async def book(ctx: Context, trip: Trip) -> list[str]:
    """Return the three bookings, or raise what made the trip impossible after undoing what was booked."""
    bookings: list[str] = []
    undo: list[str] = []
    try:
        for part in ("flight", "car", "hotel"):
            # Before the step: a booking that failed half-way may exist, and cancelling what does not exist is harmless.
            undo.append(part)
            bookings.append(await ctx.run(f"book {part}", reserve, args=(part, trip)))
    except TerminalError:
        for part in reversed(undo):
            await ctx.run(f"cancel {part}", cancel, args=(part,))
        raise
    return bookings


def reserve(part: str, trip: Trip) -> str:
    """Book one part; returns its booking number."""
    if part == trip.sold_out:
        raise TerminalError(f"No {part} to {trip.destination} can be had.", status_code=409)
    return _record(f"book {part}")


def cancel(part: str) -> None:
    """Undo a booking; harmless where there is none."""
    _record(f"cancel {part}")


def _record(effect: str) -> str:
    step = current_step()
    assert step is not None, "called as a step"
    Ledger().record(step.invocation_id, effect, key=step.idempotency_key)
    return step.idempotency_key


application = app([trips])
