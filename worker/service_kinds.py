"""PURE. What workers leave in Redis about their services, for those that know a handler's name only."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from .application import Application
from .handler import HandlerMode, ServiceKind

Description = tuple[ServiceKind | None, Mapping[str, HandlerMode]]
"""A service's kind and the mode of each handler, as far as they are known."""


def describe_services(application: Application) -> dict[str, str]:
    """A description of each service."""
    return {
        name: orjson.dumps(
            {"kind": service.kind, "handlers": {each.name: each.mode for each in service.handlers.values()}}
        ).decode()
        for name, service in application.services.items()
    }


def mains_in(descriptions: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """The handlers, by service and name, that run once for each key, as far as descriptions say so."""
    told = {service: read_description(text) for service, text in descriptions.items()}
    return frozenset(
        (service, name)
        for service, (_, handlers) in told.items()
        for name, mode in handlers.items()
        if mode is HandlerMode.MAIN
    )


def read_description(text: str | None) -> Description:
    """What a description says: the service's kind, and each handler's mode; nothing where it says nothing known."""
    try:
        told = orjson.loads(text or "{}")
        kind = ServiceKind(told["kind"])
        return kind, {str(name): HandlerMode(mode) for name, mode in told["handlers"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        # Of another version: then it is as if there were none.
        return None, {}
