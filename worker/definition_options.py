"""What authors give to definitions and their decorators, checked where it is written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import NamedTuple

from perdure.schemas.errors import DefinitionError

from .context_managers import ContextManagerFactory, checked_factories
from .options import HandlerOptions, InvocationRetryPolicy


class CheckedOptions(NamedTuple):
    """What is left of `GivenOptions` when they were found right."""

    metadata: Mapping[str, str]
    options: HandlerOptions
    context_managers: tuple[ContextManagerFactory, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOptions:
    """What definitions and decorators have in common, as it was given.

    `Service`, `VirtualObject` and `Workflow` say what each option means, and have those that mean something there.
    """

    metadata: Mapping[str, str] | None
    inactivity_timeout: timedelta | None
    abort_timeout: timedelta | None
    journal_retention: timedelta | None
    ingress_private: bool | None
    invocation_retry_policy: InvocationRetryPolicy | None
    invocation_context_managers: Sequence[ContextManagerFactory] | None
    idempotency_retention: timedelta | None = None
    workflow_retention: timedelta | None = None
    state_preload: bool | list[str] | None = None
    enable_lazy_state: bool | None = None

    def check(self, where: str) -> CheckedOptions:
        """Return what was given, as the engine takes it.

        Args:
            where: What it was given to, for messages.

        Raises:
            DefinitionError: Something is out of its bounds, or not supported yet.
        """
        unsupported = ("abort_timeout", "ingress_private")
        given = [name for name in unsupported if getattr(self, name) is not None]
        if given:
            raise DefinitionError(
                f"{where}: {', '.join(given)} is not supported yet, and would do nothing. Leave it out."
            )
        metadata = dict(self.metadata or {})
        if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
            raise DefinitionError(f"{where}: metadata maps strings to strings.")
        try:
            options = self._options()
            context_managers = checked_factories("invocation_context_managers", self.invocation_context_managers)
        except DefinitionError as error:
            raise DefinitionError(f"{where}: {error}") from error
        return CheckedOptions(MappingProxyType(metadata), options, context_managers)

    def _options(self) -> HandlerOptions:
        return HandlerOptions(
            inactivity_timeout=self.inactivity_timeout,
            journal_retention=self.journal_retention,
            idempotency_retention=self.idempotency_retention,
            invocation_retry_policy=self.invocation_retry_policy,
            workflow_retention=self.workflow_retention,
            state_preload=self._state_preload(),
        )

    def _state_preload(self) -> bool | tuple[str, ...] | None:
        given, lazy = self.state_preload, self.enable_lazy_state
        if lazy is None:
            return tuple(given) if isinstance(given, list) else given
        if given is not None:
            raise DefinitionError(
                "state_preload and enable_lazy_state are one option, the latter is the old name of its opposite. "
                "Give state_preload only."
            )
        if not isinstance(lazy, bool):
            raise DefinitionError(f"enable_lazy_state=... is True or False, not {lazy!r}.")
        return not lazy
