"""What authors give to definitions and their decorators, checked where it is written. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from perdure.schemas.errors import DefinitionError

from .options import HandlerOptions, InvocationRetryPolicy


class CheckedOptions(NamedTuple):
    """What is left of `GivenOptions` when they were found right."""

    metadata: Mapping[str, str]
    options: HandlerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOptions:
    """What definitions and decorators have in common, as it was given; `service.Service` says what each one means."""

    metadata: Mapping[str, str] | None
    inactivity_timeout: timedelta | None
    abort_timeout: timedelta | None
    journal_retention: timedelta | None
    idempotency_retention: timedelta | None
    ingress_private: bool | None
    invocation_retry_policy: InvocationRetryPolicy | None
    invocation_context_managers: list[Any] | None

    def check(self, where: str) -> CheckedOptions:
        """Return what was given, as the engine takes it.

        Args:
            where: What it was given to, for messages.

        Raises:
            DefinitionError: Something is out of its bounds, or not supported yet.
        """
        unsupported = ("abort_timeout", "ingress_private", "invocation_context_managers")
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
        except DefinitionError as error:
            raise DefinitionError(f"{where}: {error}") from error
        return CheckedOptions(MappingProxyType(metadata), options)

    def _options(self) -> HandlerOptions:
        return HandlerOptions(
            inactivity_timeout=self.inactivity_timeout,
            journal_retention=self.journal_retention,
            idempotency_retention=self.idempotency_retention,
            invocation_retry_policy=self.invocation_retry_policy,
        )
