"""Services: stateless handlers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from .context_managers import ContextManagerFactory
from .definition_options import GivenOptions
from .definitions import Definition, HandlerForm, HandlerFunction
from .handler import HandlerMode, ServiceKind
from .options import InvocationRetryPolicy
from .serde import DEFAULT_SERDE, Serde


class Service(Definition):
    """A named group of stateless handlers: invocations run at once and in any order.

    Options given here hold for every handler that does not give its own.

    Args:
        name: Letters, digits, `.`, `_` and `-`; part of the topic's name.
        description: For people.
        metadata: Strings of your own, kept with the definition.
        inactivity_timeout: How long an attempt waits in memory before it is suspended.
        abort_timeout: Not supported yet.
        journal_retention: How long journals are kept after completion.
        idempotency_retention: How long results are kept after completion.
        ingress_private: Not supported yet.
        invocation_retry_policy: How failed attempts are retried.
        invocation_context_managers: Functions that each return an async context manager. They are called, and what they
            return is entered, around each attempt: in this order, those of the handler after those of the service.
            What they raise is as if the handler raised it.

    Raises:
        DefinitionError: The name is not valid, an option is out of its bounds or not supported yet.
    """

    kind = ServiceKind.SERVICE

    def __init__(
        self,
        name: str,
        description: str | None = None,
        metadata: Mapping[str, str] | None = None,
        inactivity_timeout: timedelta | None = None,
        abort_timeout: timedelta | None = None,
        journal_retention: timedelta | None = None,
        idempotency_retention: timedelta | None = None,
        ingress_private: bool | None = None,
        invocation_retry_policy: InvocationRetryPolicy | None = None,
        invocation_context_managers: Sequence[ContextManagerFactory] | None = None,
    ) -> None:
        given = GivenOptions(
            metadata=metadata,
            inactivity_timeout=inactivity_timeout,
            abort_timeout=abort_timeout,
            journal_retention=journal_retention,
            idempotency_retention=idempotency_retention,
            ingress_private=ingress_private,
            invocation_retry_policy=invocation_retry_policy,
            invocation_context_managers=invocation_context_managers,
        )
        super().__init__(name, description, given)

    def handler(
        self,
        name: str | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        input_serde: Serde[Any] = DEFAULT_SERDE,
        output_serde: Serde[Any] = DEFAULT_SERDE,
        metadata: Mapping[str, str] | None = None,
        inactivity_timeout: timedelta | None = None,
        abort_timeout: timedelta | None = None,
        journal_retention: timedelta | None = None,
        idempotency_retention: timedelta | None = None,
        ingress_private: bool | None = None,
        invocation_retry_policy: InvocationRetryPolicy | None = None,
        invocation_context_managers: Sequence[ContextManagerFactory] | None = None,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register an async function `(ctx)` or `(ctx, argument)` as a handler, and return it unchanged.

        Type hints decide how the argument is read and the result written, where no serde is given; the docstring is the
        description. Options are as for the service, of which they override each by itself; context managers come after
        the service's. `accept` and `content_type` describe the handler and are enforced by nothing.

        Raises:
            DefinitionError: On use as a decorator; names the function with `file:line` and what is wrong with it.
        """
        given = GivenOptions(
            metadata=metadata,
            inactivity_timeout=inactivity_timeout,
            abort_timeout=abort_timeout,
            journal_retention=journal_retention,
            idempotency_retention=idempotency_retention,
            ingress_private=ingress_private,
            invocation_retry_policy=invocation_retry_policy,
            invocation_context_managers=invocation_context_managers,
        )
        return self._decorator(
            HandlerForm(HandlerMode.PLAIN, name, accept, content_type, input_serde, output_serde), given
        )
