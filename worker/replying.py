"""Telling outcomes to whoever waits for them elsewhere: reply topics, callers, the dead letters.

Each outcome that somebody waits for is in `due` until it is acknowledged: everything here may be cut off, and is done
again then. Receivers know repeats by the invocation's id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from perdure.journal.store import Caller, Store
from perdure.schemas.entries import Failure, Outcome
from perdure.schemas.errors import PerdureError
from perdure.schemas.ids import InvocationId
from perdure.schemas.records import encode_reply

from .answered import SIDE_FAILED
from .broker import Outgoing
from .dead_letters import pointing_letter
from .outbox import Outbox, Replacing
from .readings import DEAD_LETTER_REPLY

logger = logging.getLogger(__name__)


def reply_to(topic: str, invocation_id: InvocationId, outcome: Outcome) -> Replacing:
    """The reply of an outcome, and what its topic is told where it does not take one of that size."""
    reply = Outgoing(topic, invocation_id.encode(), encode_reply(invocation_id, outcome))
    said = (
        f"The outcome makes a reply of {len(reply.value or b'')} bytes, more than {topic} takes in one record: ask for "
        "it by its id."
    )
    return Replacing(reply, reply._replace(value=encode_reply(invocation_id, Failure(413, said, {}))))


class Replies:
    """The replies of one worker.

    Args:
        store: Where they are acknowledged.
        outbox: For what goes to topics.
        tell: Tells a caller an outcome; whether it knows it now, or never can.
        letter: Makes the dead letter of an invocation that failed; `None` where there is nothing to make it of.
        durable: Returns once outcomes that were recorded before are durable, where topics wait for that.
        spawn: Runs something on the side; errors are logged there.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        *,
        tell: Callable[[Caller, Outcome], asyncio.Future[bool]],
        letter: Callable[[InvocationId, Failure], Awaitable[Outgoing | None]],
        durable: Callable[[], Awaitable[None]] | None,
        spawn: Callable[[Awaitable[object]], None],
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._tell = tell
        self._letter = letter
        self._durable = durable
        self._spawn = spawn
        self._owed: dict[InvocationId, int] = {}
        self._told: dict[InvocationId, int] = {}

    @property
    def idle(self) -> bool:
        """Whether everything that was to be told here has been."""
        return not self._owed

    def put(
        self, invocation_id: InvocationId, topics: Sequence[str], callers: Sequence[Caller], outcome: Outcome
    ) -> None:
        """Tell an outcome, and acknowledge it when all know.

        Args:
            invocation_id: Whose.
            topics: Reply topics, and `DEAD_LETTER_REPLY` where a failure is to become a dead letter.
            callers: Commands that wait for it.
            outcome: What became of it.
        """
        if invocation_id in self._owed:
            # Its copy waits already: `due` repeats it every few seconds, which during an outage is often.
            return
        bury = DEAD_LETTER_REPLY in topics
        self._owed[invocation_id] = len(topics) + bool(callers)
        self._told.pop(invocation_id, None)
        if len(callers) == 1:
            # As it nearly always is: no task for it.
            as_of = self._store.losses
            told = self._tell(callers[0], outcome)
            told.add_done_callback(lambda told: self._told_by(invocation_id, as_of, told))
        elif callers:
            self._spawn(self._tell_all(invocation_id, callers, outcome))
        if bury and isinstance(outcome, Failure):
            self._spawn(self._bury(invocation_id, outcome))
        elif bury:
            self._done(invocation_id)
        replies = [topic for topic in topics if topic != DEAD_LETTER_REPLY]
        if replies:
            self._produce(invocation_id, [reply_to(topic, invocation_id, outcome) for topic in replies])

    def _told_by(self, invocation_id: InvocationId, as_of: int, told: asyncio.Future[bool]) -> None:
        if told.cancelled():
            self._tell_again(invocation_id)
        elif (error := told.exception()) is not None:
            self._tell_again(invocation_id)
            logger.error(SIDE_FAILED, exc_info=error)
        else:
            self._told_callers(invocation_id, as_of, all_know=told.result())

    async def _tell_all(self, invocation_id: InvocationId, callers: Sequence[Caller], outcome: Outcome) -> None:
        as_of = self._store.losses
        try:
            told = [await self._tell(caller, outcome) for caller in callers]
        except BaseException:
            self._tell_again(invocation_id)
            raise
        self._told_callers(invocation_id, as_of, all_know=all(told))

    def _told_callers(self, invocation_id: InvocationId, as_of: int, *, all_know: bool) -> None:
        if all_know:
            self._told[invocation_id] = as_of
            self._done(invocation_id)
        else:
            self._tell_again(invocation_id)

    def _tell_again(self, invocation_id: InvocationId) -> None:
        # When due.
        self._owed.pop(invocation_id, None)

    async def _bury(self, invocation_id: InvocationId, failure: Failure) -> None:
        """Produce the record that a failed invocation was made of to the dead letters."""
        try:
            letter = await self._letter(invocation_id, failure)
        except BaseException:
            self._owed.pop(invocation_id, None)
            raise
        if letter is None:
            logger.error("there is no record any more of which %s could become a dead letter", invocation_id)
            self._done(invocation_id)
        else:
            self._produce(invocation_id, [Replacing(letter, pointing_letter(letter))])

    def _produce(self, invocation_id: InvocationId, records: Sequence[Replacing]) -> None:
        if self._durable is None:
            self._put(invocation_id, records)
        else:
            self._spawn(self._put_when_durable(invocation_id, records, self._durable))

    async def _put_when_durable(
        self, invocation_id: InvocationId, records: Sequence[Replacing], durable: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            await durable()
        except PerdureError as error:
            # Nothing vouches for the outcome: `due` names the reply again, with what Redis holds then.
            self._owed.pop(invocation_id, None)
            logger.warning("the reply of %s waits for the durable point: %s", invocation_id, error)
        else:
            self._put(invocation_id, records)

    def _put(self, invocation_id: InvocationId, records: Sequence[Replacing]) -> None:
        for record, instead in records:
            self._outbox.put(record, lambda: self._done(invocation_id), instead=instead)

    def _done(self, invocation_id: InvocationId) -> None:
        left = self._owed.get(invocation_id)
        if left is None:
            return
        self._owed[invocation_id] = left - 1
        if left == 1:
            del self._owed[invocation_id]
            as_of = self._told.pop(invocation_id, None)
            self._spawn(self._store.acknowledge(invocation_id, reply=True, as_of=as_of))
