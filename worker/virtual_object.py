"""Virtual objects: handlers with a key and state of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from perdure.schemas.errors import DefinitionError
from perdure.schemas.limits import QUEUE_MAX

from .context_managers import ContextManagerFactory
from .definition_options import GivenOptions
from .definitions import Definition, HandlerForm, HandlerFunction
from .handler import HandlerMode, ServiceKind
from .options import InvocationRetryPolicy
from .serde import DEFAULT_SERDE, Serde


class VirtualObject(Definition):
    """A named group of handlers that are invoked with a key, each key an object with state of its own.

    Exclusive handlers run one at a time for each key, in order of admission, and write the state. Shared handlers run
    at any time and only read it. Options given here hold for every handler that does not give its own.

    Args:
        name: Letters, digits, `.`, `_` and `-`; part of the topic's name.
        description: For people.
        metadata: Strings of your own, kept with the definition.
        inactivity_timeout: How long an attempt waits in memory before it is suspended.
        abort_timeout: Not supported yet.
        journal_retention: How long journals are kept after completion.
        idempotency_retention: How long results are kept after completion.
        enable_lazy_state: The old name of the opposite of `state_preload`.
        ingress_private: Not supported yet.
        invocation_retry_policy: How failed attempts are retried.
        invocation_context_managers: Functions that each return an async context manager, as for `Service`.
        state_preload: `True`, the default: an attempt begins with the object's state at hand, unless it is large.
            `False`: each name is read when it is asked for. A list: as `True`, for handlers that read these names.
        queue_max: How many invocations may wait for one object, from 1 to `limits.QUEUE_MAX` (10,000), which is the
            default. Beyond it the partition that the next one is in waits.

    Raises:
        DefinitionError: The name is not valid, an option is out of its bounds or not supported yet.
    """

    kind = ServiceKind.OBJECT

    def __init__(
        self,
        name: str,
        description: str | None = None,
        metadata: Mapping[str, str] | None = None,
        inactivity_timeout: timedelta | None = None,
        abort_timeout: timedelta | None = None,
        journal_retention: timedelta | None = None,
        idempotency_retention: timedelta | None = None,
        enable_lazy_state: bool | None = None,
        ingress_private: bool | None = None,
        invocation_retry_policy: InvocationRetryPolicy | None = None,
        invocation_context_managers: Sequence[ContextManagerFactory] | None = None,
        state_preload: bool | list[str] | None = None,
        queue_max: int | None = None,
    ) -> None:
        given = GivenOptions(
            metadata=metadata,
            inactivity_timeout=inactivity_timeout,
            abort_timeout=abort_timeout,
            journal_retention=journal_retention,
            idempotency_retention=idempotency_retention,
            enable_lazy_state=enable_lazy_state,
            ingress_private=ingress_private,
            invocation_retry_policy=invocation_retry_policy,
            invocation_context_managers=invocation_context_managers,
            state_preload=state_preload,
        )
        # From 1 on: a queue in which nobody may wait is full even while the object is free.
        if queue_max is not None and (type(queue_max) is not int or not 1 <= queue_max <= QUEUE_MAX):
            raise DefinitionError(
                f"VirtualObject({name!r}): queue_max=... is an integer from 1 to {QUEUE_MAX}, not {queue_max!r}."
            )
        super().__init__(name, description, given, queue_max=queue_max)

    def handler(
        self,
        name: str | None = None,
        kind: Literal["exclusive", "shared"] = "exclusive",
        accept: str = "application/json",
        content_type: str = "application/json",
        input_serde: Serde[Any] = DEFAULT_SERDE,
        output_serde: Serde[Any] = DEFAULT_SERDE,
        metadata: Mapping[str, str] | None = None,
        inactivity_timeout: timedelta | None = None,
        abort_timeout: timedelta | None = None,
        journal_retention: timedelta | None = None,
        idempotency_retention: timedelta | None = None,
        enable_lazy_state: bool | None = None,
        ingress_private: bool | None = None,
        invocation_retry_policy: InvocationRetryPolicy | None = None,
        invocation_context_managers: Sequence[ContextManagerFactory] | None = None,
        state_preload: bool | list[str] | None = None,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register an async function `(ctx)` or `(ctx, argument)` as a handler, and return it unchanged.

        `kind` is "exclusive" (one at a time for each key, writes state) or "shared" (at any time, reads state). The
        rest is as for `Service.handler` and for the object, of whose options these override each by itself.

        Raises:
            DefinitionError: On use as a decorator; names the function with `file:line` and what is wrong with it. At
                once, where `kind` is neither.
        """
        if kind not in ("exclusive", "shared"):
            raise DefinitionError(f'{self!r}.handler(kind=...) is "exclusive" or "shared", not {kind!r}.')
        given = GivenOptions(
            metadata=metadata,
            inactivity_timeout=inactivity_timeout,
            abort_timeout=abort_timeout,
            journal_retention=journal_retention,
            idempotency_retention=idempotency_retention,
            enable_lazy_state=enable_lazy_state,
            ingress_private=ingress_private,
            invocation_retry_policy=invocation_retry_policy,
            invocation_context_managers=invocation_context_managers,
            state_preload=state_preload,
        )
        form = HandlerForm(HandlerMode(kind), name, accept, content_type, input_serde, output_serde)
        return self._decorator(form, given)
