"""An application: the services that a worker runs, made by `app(...)` and loaded from `"module:attribute"`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from perdure.schemas.errors import DefinitionError, SettingsError

from .context_managers import check_factory
from .definitions import Definition
from .handler import Handler
from .options import HandlerOptions, InvocationRetryPolicy
from .payload_codec import PayloadCodec, checked_codec
from .subscriptions import Subscription, checked_subscriptions


@dataclass(frozen=True, slots=True)
class Application:
    """What `perdure worker MODULE:APP` runs.

    Attributes:
        services: The services by name, in the order given.
        handlers: Every handler by (service name, handler name), its options resolved against the application's.
        lifespan: Entered around a worker's life.
        payload_codec: What values go through on their way to Redis and Kafka, and back.
        subscriptions: Topics of others whose records invoke handlers; their handlers are named.
    """

    services: Mapping[str, Definition]
    handlers: Mapping[tuple[str, str], Handler]
    lifespan: Lifespan | None = None
    payload_codec: PayloadCodec | None = None
    subscriptions: tuple[Subscription, ...] = ()

    def __iter__(self) -> Iterator[Handler]:
        """All handlers, service by service."""
        return iter(self.handlers.values())

    def handler(self, service: str, name: str) -> Handler | None:
        """Return a handler, or `None` where this application has none of that name."""
        return self.handlers.get((service, name))


Lifespan = Callable[[Application], AbstractAsyncContextManager[None]]
"""Called with the application when a worker starts: what it returns is entered around the worker's life."""


def app(
    services: Iterable[Definition],
    *,
    inactivity_timeout: timedelta | None = None,
    journal_retention: timedelta | None = None,
    idempotency_retention: timedelta | None = None,
    invocation_retry_policy: InvocationRetryPolicy | None = None,
    lifespan: Lifespan | None = None,
    payload_codec: PayloadCodec | None = None,
    subscriptions: Iterable[Subscription] = (),
) -> Application:
    """Make an application of services. They take no more handlers from here on.

    Args:
        services: At least one service, object or workflow, each with at least one handler.
        inactivity_timeout: For handlers whose own and service's options leave it open, as the options below.
        journal_retention: How long journals are kept after completion.
        idempotency_retention: How long results are kept after completion.
        invocation_retry_policy: How failed attempts are retried.
        lifespan: Called with the application in each worker process, for an async context manager that is entered
            before the worker takes records and left after it has stopped; a failure to enter it ends the worker. What
            takes longer to leave than a worker may take to stop is cut off.
        payload_codec: Encodes what values become on their way to Redis and Kafka, to compress or encrypt them. Workers
            and clients of a namespace need the same one.
        subscriptions: Existing topics whose records invoke handlers of these services, each record once.

    Raises:
        DefinitionError: There is none, one has no handlers or is not a service, two have names that Kafka takes for the
            same, or an option is out of its bounds or of another type.
    """
    defaults = HandlerOptions(
        inactivity_timeout=inactivity_timeout,
        journal_retention=journal_retention,
        idempotency_retention=idempotency_retention,
        invocation_retry_policy=invocation_retry_policy,
    )
    by_name = _checked_services(services)
    codec = checked_codec(payload_codec)
    if lifespan is not None:
        check_factory("lifespan", lifespan)
    handlers = {
        (service.name, handler.name): replace(handler, options=_over(handler, defaults))
        for service in by_name.values()
        for handler in service.handlers.values()
    }
    for service in by_name.values():
        service.seal()
    subscribed = checked_subscriptions(subscriptions, handlers)
    return Application(MappingProxyType(by_name), MappingProxyType(handlers), lifespan, codec, subscribed)


def load_application(target: str) -> Application:
    """Import the application that `"package.module:attribute"` names.

    The current directory comes first on `sys.path`, as it does for `python -m`.

    Raises:
        SettingsError: The text, the module or the attribute is not there or not an application; says what to write.
        Exception: Whatever the module itself raises while it is imported, a DefinitionError for one.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute or "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".") or "package.module"
        raise SettingsError(f"{target!r} is not MODULE:ATTRIBUTE. Write {dotted}:{attribute or 'application'}.")
    module = _import(module_name, target)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SettingsError(_missing_attribute(module, attribute))
        found = getattr(found, part)
    if isinstance(found, Application):
        return found
    advice = f"make one: {attribute}_app = app([{attribute}])" if isinstance(found, Definition) else _others(module)
    raise SettingsError(f"{target} is a {type(found).__name__} and not an application; {advice}.")


def _checked_services(services: Iterable[Definition]) -> dict[str, Definition]:
    if isinstance(services, Definition):
        raise DefinitionError(f"app(...) takes a list of services: app([{services!r}]).")
    by_name: dict[str, Definition] = {}
    topics: dict[str, str] = {}
    for service in services:
        if not isinstance(service, Definition):
            raise DefinitionError(f"app(...) takes services; {service!r} is of type {type(service).__name__}.")
        if service.name in by_name:
            raise DefinitionError(f"app(...) has two services of the name {service.name!r}. Rename one of them.")
        service.check()
        # Kafka refuses a topic that differs from another only in '.' and '_'.
        for topic in (service.name, f"{service.name}.resume"):
            other = topics.setdefault(topic.replace(".", "_"), service.name)
            if other != service.name:
                raise DefinitionError(
                    f"The services {other!r} and {service.name!r} would have topics that Kafka takes for the same "
                    "('.' and '_' are one to it, and each has a topic ending in '.resume'). Rename one of them."
                )
        by_name[service.name] = service
    if not by_name:
        raise DefinitionError("app(...) needs at least one service.")
    return by_name


def _over(handler: Handler, defaults: HandlerOptions) -> HandlerOptions:
    try:
        return handler.options.over(defaults)
    except DefinitionError as error:
        raise DefinitionError(f"{handler.target} ({handler.source}), with the options of app(...): {error}") from error


def _import(module_name: str, target: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise SettingsError(
                f"There is no module {error.name!r} for {target!r}, neither in {here} nor among installed packages. "
                "Start the command in the project's directory, or correct the name."
            ) from error
        raise SettingsError(
            f"{module_name} imports {error.name!r}, which is not installed here. Install it, or correct the import."
        ) from error


def _missing_attribute(module: ModuleType, attribute: str) -> str:
    close = difflib.get_close_matches(attribute, vars(module), n=3)
    meant = f"did you mean {' or '.join(close)}?" if close else f"{_others(module)}."
    return f"The module {module.__name__} has no attribute {attribute!r}; {meant}"


def _others(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Application)]
    if names:
        return f"its applications are: {', '.join(names)}"
    return "it has no application: make one with application = app([service])"
