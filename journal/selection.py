"""PURE. Which invocations are meant: filters over what is known of them, and places in their listing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Self

from perdure.schemas.entries import Failure
from perdure.schemas.errors import UsageError
from perdure.schemas.ids import is_invocation_id

from .inspection import InvocationView
from .keys import STATUSES
from .transitions import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationFilter:
    """Invocations that fulfil all of these; what is not given excludes nothing.

    Attributes:
        statuses: One of them.
        service: Whose handler.
        handler: Its name.
        key: Of the object or workflow.
        older_than: Admitted longer ago.
        younger_than: Admitted later than so long ago.
        failure: Text in the last failure or in the failure that it ended with, in whatever case.

    Raises:
        UsageError: A status does not exist.
    """

    statuses: tuple[str, ...] = ()
    service: str | None = None
    handler: str | None = None
    key: str | None = None
    older_than: timedelta | None = None
    younger_than: timedelta | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.statuses) - set(STATUSES))
        if unknown:
            raise UsageError(f"There is no status {unknown[0]!r}: they are {', '.join(STATUSES)}.")

    def in_order(self) -> tuple[str, ...]:
        """The statuses to look at, in the order in which they are listed."""
        return tuple(status for status in STATUSES if not self.statuses or status in self.statuses)

    def matches(self, view: InvocationView, *, now_ms: int) -> bool:
        """Whether it is one of them. Ages are counted up to `now_ms`."""
        wanted = ((self.service, view.service), (self.handler, view.handler), (self.key, view.key))
        if any(asked is not None and asked != found for asked, found in wanted):
            return False
        # It may have moved on since it was found in an index.
        if view.status not in self.in_order():
            return False
        return self._of_age(view, now_ms) and self._failed(view)

    def _of_age(self, view: InvocationView, now_ms: int) -> bool:
        if self.older_than is None and self.younger_than is None:
            return True
        age = timedelta(milliseconds=now_ms - (view.admitted_at_ms or 0))
        return (self.older_than is None or age > self.older_than) and (
            self.younger_than is None or age < self.younger_than
        )

    def _failed(self, view: InvocationView) -> bool:
        if self.failure is None:
            return True
        ended = view.outcome.message if isinstance(view.outcome, Failure) else ""
        return any(self.failure.casefold() in text.casefold() for text in (view.last_failure or "", ended))


class Cursor(NamedTuple):
    """Where a listing goes on: in the rows of one status past a place, or at their beginning."""

    status: str
    after: Place | None

    def __str__(self) -> str:
        """As it travels."""
        return self.status if self.after is None else f"{self.status}~{self.after.score}~{self.after.invocation_id}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str(cursor)` wrote.

        Raises:
            UsageError: It is not that.
        """
        status, _, rest = text.partition("~")
        score, _, invocation_id = rest.partition("~")
        if status in STATUSES and not rest:
            return cls(status, None)
        if status not in STATUSES or not score.isdecimal() or not is_invocation_id(invocation_id):
            raise UsageError(f"{text!r} is not a place in a listing: leave it out to begin at the first page.")
        return cls(status, Place(int(score), invocation_id))
