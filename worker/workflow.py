"""Workflows: one run for each key, and handlers that talk to it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from perdure.schemas.errors import DefinitionError

from .context_managers import ContextManagerFactory
from .definition_options import GivenOptions
from .definitions import Definition, HandlerForm, HandlerFunction
from .handler import Handler, HandlerMode, ServiceKind
from .options import InvocationRetryPolicy
from .serde import DEFAULT_SERDE, Serde

WORKFLOW_RETENTION: Final = timedelta(hours=24)
"""How long a workflow can be asked for its result, and its key not be used again, unless its `main` says otherwise."""


class Workflow(Definition):
    """A named group of handlers around one `main`, which runs once for each key.

    `main` writes the state of its key; the other handlers are shared: they run at any time, before, while and after it
    runs, read the state, and resolve promises. Options given here hold for every handler that does not give its own.

    Args:
        name: Letters, digits, `.`, `_` and `-`; part of the topic's name.
        description: For people.
        metadata: Strings of your own, kept with the definition.
        inactivity_timeout: How long an attempt waits in memory before it is suspended.
        abort_timeout: Not supported yet.
        journal_retention: How long journals are kept after completion.
        idempotency_retention: How long results of shared handlers are kept after completion; that of `main` is kept for
            its `workflow_retention`.
        enable_lazy_state: The old name of the opposite of `state_preload`.
        ingress_private: Not supported yet.
        invocation_retry_policy: How failed attempts are retried.
        invocation_context_managers: Functions that each return an async context manager, as for `Service`.
        state_preload: `True`, the default: an attempt begins with the workflow's state at hand, unless it is large.
            `False`: each name is read when it is asked for. A list: as `True`, for handlers that read these names.

    Raises:
        DefinitionError: The name is not valid, an option is out of its bounds or not supported yet.
    """

    kind = ServiceKind.WORKFLOW

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
        super().__init__(name, description, given)

    def main(
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
        workflow_retention: timedelta | None = None,
        enable_lazy_state: bool | None = None,
        ingress_private: bool | None = None,
        invocation_retry_policy: InvocationRetryPolicy | None = None,
        invocation_context_managers: Sequence[ContextManagerFactory] | None = None,
        state_preload: bool | list[str] | None = None,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register an async function `(ctx)` or `(ctx, argument)` as the workflow itself, and return it unchanged.

        It runs once for each key: who submits the key again gets the same run. `workflow_retention` (24 hours by
        default) is how long its result, its state and its promises are kept after it ended; then the key may be used
        again. The rest is as for `Service.handler`.

        Raises:
            DefinitionError: On use as a decorator; names the function with `file:line` and what is wrong with it, such
                as that there is a `main` already.
        """
        given = GivenOptions(
            metadata=metadata,
            inactivity_timeout=inactivity_timeout,
            abort_timeout=abort_timeout,
            journal_retention=journal_retention,
            workflow_retention=WORKFLOW_RETENTION if workflow_retention is None else workflow_retention,
            enable_lazy_state=enable_lazy_state,
            ingress_private=ingress_private,
            invocation_retry_policy=invocation_retry_policy,
            invocation_context_managers=invocation_context_managers,
            state_preload=state_preload,
        )
        form = HandlerForm(HandlerMode.MAIN, name, accept, content_type, input_serde, output_serde)
        return self._decorator(form, given)

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
        enable_lazy_state: bool | None = None,
        ingress_private: bool | None = None,
        invocation_retry_policy: InvocationRetryPolicy | None = None,
        invocation_context_managers: Sequence[ContextManagerFactory] | None = None,
        state_preload: bool | list[str] | None = None,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register an async function `(ctx)` or `(ctx, argument)` as a shared handler, and return it unchanged.

        It runs at any time, reads the state and resolves promises. The rest is as for `Service.handler` and for the
        workflow, of whose options these override each by itself.

        Raises:
            DefinitionError: On use as a decorator; names the function with `file:line` and what is wrong with it.
        """
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
        form = HandlerForm(HandlerMode.SHARED, name, accept, content_type, input_serde, output_serde)
        return self._decorator(form, given)

    def check(self) -> None:
        """Refuse what is not complete yet.

        Raises:
            DefinitionError: There is no `main`.
        """
        if self._main() is None:
            raise DefinitionError(
                f"{self!r} has no main. Decorate the function that is the workflow with its .main(), and import its "
                "module before app(...)."
            )

    def _add(self, handler: Handler) -> None:
        if handler.mode is HandlerMode.MAIN and (other := self._main()):
            raise DefinitionError(
                f"{self._where(handler.fn)}: there is a main already, {other.name!r}, defined at {other.source}. A "
                "workflow has one; make this one a handler, or the main of another workflow."
            )
        super()._add(handler)

    def _main(self) -> Handler | None:
        return next((handler for handler in self.handlers.values() if handler.mode is HandlerMode.MAIN), None)
