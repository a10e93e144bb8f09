"""The store of a worker on a Redis Cluster: what a node is told of another node's writes is told behind the barrier.

On one server the order of writes protects what is acknowledged: a failover that loses what was done loses that it was
acknowledged, too. Nodes of a cluster lose their newest writes each by itself: the callee's may forget a call when the
caller's has recorded that it arrived, and nobody would make it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from perdure.schemas.errors import PerdureError
from perdure.schemas.ids import InvocationId

from .barrier import Barrier
from .keys import Keys
from .redis_scripts import Wiring
from .redis_store import RedisStore
from .store import ResumeDue

logger = logging.getLogger(__name__)

WAITING_MAX = 20_000
"""Acknowledgements that wait for the barrier: some seconds of a full load. What is beyond it is sent again when due."""


class ClusterStore(RedisStore):
    """`Store` on several nodes. The wiring is entered and left by the caller, and the barrier closed.

    Args:
        wiring: To all nodes.
        keys: The namespace's.
        barrier: Of the same nodes; to be passed once before anything is sent.
    """

    def __init__(self, wiring: Wiring, keys: Keys, barrier: Barrier) -> None:
        super().__init__(wiring, keys)
        self._barrier = barrier
        self._one_at_a_time = asyncio.Lock()
        self._begun = 0
        self._passed = False
        self._waiting = 0

    @property
    def losses(self) -> int:
        """See `Store.losses`. What a barrier over another connection vouches for may be another server's, too."""
        return super().losses + self._barrier.changes

    async def acknowledge(
        self,
        invocation_id: InvocationId,
        *,
        reply: bool = False,
        sent: Sequence[int] = (),
        cascade: bool = False,
        as_of: int | None = None,
    ) -> ResumeDue | None:
        """See `Store.acknowledge`; what it is about is durable before, or it is not acknowledged, and sent again.

        Not so kills of callees, which are acknowledged one after the other, up to whose object waits for that: one that
        is lost is of an invocation that goes on for nobody.
        """
        if as_of is not None and not cascade and (as_of != self.losses or not await self._durable()):
            return None
        return await super().acknowledge(invocation_id, reply=reply, sent=sent, cascade=cascade, as_of=as_of)

    async def _durable(self) -> bool:
        """Whether what was answered before is durable now. All that ask during one pass share the next."""
        if self._waiting >= WAITING_MAX:
            return False
        begun = self._begun
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                if self._begun == begun:
                    self._begun += 1
                    self._passed = False
                    await self._pass()
                    self._passed = True
                return self._passed
        except PerdureError as error:
            logger.debug("what was sent is not acknowledged, and sent again: %s", error)
            return False
        finally:
            self._waiting -= 1

    async def _pass(self) -> None:
        await self._barrier.pass_()
        if lag_ms := self._barrier.lag_ms:
            await asyncio.sleep(lag_ms / 1000)
            # Over the same connections still, or `losses` has grown.
            await self._barrier.pass_()
