"""Applications: what they are made of, and how they are found by name."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure.journal.retry import RetryPolicy
from perdure.schemas.errors import DefinitionError, SettingsError
from perdure.worker.application import Application, app, load_application
from perdure.worker.handler import handler_of
from perdure.worker.options import InvocationRetryPolicy
from perdure.worker.payload_codec import PayloadCodec
from perdure.worker.service import Service
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

PROGRAM = """
from perdure.worker.application import app
from perdure.worker.service import Service

greeter = Service("Greeter")


@greeter.handler()
async def greet(ctx, name: str) -> str:
    return name


class Group:
    inner = app([greeter])


application = Group.inner
"""


def service_of(name: str, **options: Any) -> Service:
    """A service with one handler, `run`."""
    service = Service(name, **options)

    @service.handler()
    async def run(ctx: object) -> None: ...

    return service


def test_an_application_knows_its_services_and_handlers() -> None:
    """By name, in the order given; an unknown name is None, since a worker may meet one."""
    shop, bank = service_of("Shop"), service_of("Bank")
    application = app([shop, bank])
    assert list(application.services.items()) == [("Shop", shop), ("Bank", bank)]
    assert [handler.target for handler in application] == ["Shop/run", "Bank/run"]
    assert application.handler("Bank", "run") == bank.handlers["run"]
    assert application.handler("Bank", "walk") is None
    assert application.handler("Club", "run") is None


@asynccontextmanager
async def connected(application: Application) -> AsyncIterator[None]:
    """A lifespan."""
    yield


class Reversed(PayloadCodec):
    """A codec."""

    def encode(self, data: bytes, /) -> bytes:
        """Turn it around."""
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        """Turn it back."""
        return data[::-1]


def test_objects_and_workflows_are_run_beside_services() -> None:
    """One application may have all of them."""
    counter, signup = VirtualObject("Counter"), Workflow("Signup")

    @counter.handler()
    async def add(ctx: object) -> None: ...

    @signup.main()
    async def run(ctx: object) -> None: ...

    application = app([service_of("Shop"), counter, signup])
    assert [handler.kind for handler in application] == ["service", "object", "workflow"]
    assert application.handler("Signup", "run") == handler_of(run)


def test_an_application_has_a_lifespan_and_a_payload_codec() -> None:
    """What was given, and none unless it was."""
    codec = Reversed()
    application = app([service_of("Shop")], lifespan=connected, payload_codec=codec)
    assert application.lifespan is connected
    assert application.payload_codec is codec
    plain = app([service_of("Bank")])
    assert (plain.lifespan, plain.payload_codec) == (None, None)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"lifespan": 5}, "lifespan=...: 5 is no function"),
        ({"lifespan": connected(app([service_of("Some")]))}, "lifespan=...: .* without calling it"),
        ({"payload_codec": Reversed}, "payload_codec=... takes an instance"),
    ],
)
def test_what_is_no_lifespan_or_codec_is_refused(options: dict[str, Any], why: str) -> None:
    """And the services may still be mended: they are not sealed."""
    shop = service_of("Shop")
    with pytest.raises(DefinitionError, match=why):
        app([shop], **options)

    @shop.handler()
    async def late(ctx: object) -> None: ...


def test_options_of_the_application_come_last() -> None:
    """They hold where neither handler nor service says anything, and change nothing in other applications."""
    shop = service_of("Shop", invocation_retry_policy=InvocationRetryPolicy(max_attempts=4))
    policy = InvocationRetryPolicy(max_attempts=9, initial_interval=timedelta(seconds=1))
    application = app(
        (service for service in [shop]),
        inactivity_timeout=timedelta(seconds=1),
        journal_retention=timedelta(seconds=2),
        idempotency_retention=timedelta(seconds=3),
        invocation_retry_policy=policy,
    )
    handler = application.handler("Shop", "run")
    assert handler is not None
    assert handler.options.retry().policy == RetryPolicy(1000, 2.0, 60_000, 4, None)
    assert handler.options.inactivity_timeout_ms == 1000
    assert handler.options.journal_retention_ms == 2000
    assert handler.options.idempotency_retention_ms == 3000
    assert handler_of(handler.fn).options.inactivity_timeout is None
    assert app([shop]).handler("Shop", "run") == shop.handlers["run"]


def test_services_take_no_handlers_once_they_are_in_an_application() -> None:
    """Defined after app(...), a handler would never run."""
    shop = service_of("Shop")
    app([shop])

    async def late(ctx: object) -> None: ...

    with pytest.raises(DefinitionError, match=r"late .*comes after app"):
        shop.handler()(late)


def test_an_application_that_is_refused_seals_nothing() -> None:
    """The definition can be mended."""
    shop = service_of("Shop")
    with pytest.raises(DefinitionError):
        app([shop, Service("Empty")])

    async def late(ctx: object) -> None: ...

    shop.handler()(late)
    assert list(shop.handlers) == ["run", "late"]


@pytest.mark.parametrize(
    ("services", "why"),
    [
        ([], "at least one service"),
        ([service_of("A"), service_of("A")], "two services of the name 'A'"),
        ([Service("A")], "has no handlers"),
        ([service_of("a.b"), service_of("a_b")], r"'a.b' and 'a_b' would have topics"),
        ([service_of("a"), service_of("a_resume")], r"'a' and 'a_resume' would have topics"),
        ([service_of("a_resume"), service_of("a")], r"'a_resume' and 'a' would have topics"),
        (service_of("A"), r"takes a list of services: app\(\[Service\('A'\)\]\)"),
        (["A"], "'A' is of type str"),
    ],
)
def test_services_that_make_no_application_are_refused(services: Any, why: str) -> None:
    """By name, and before anything runs."""
    with pytest.raises(DefinitionError, match=why):
        app(services)


def test_options_that_contradict_a_handlers_are_refused() -> None:
    """The handler is named."""
    shop = service_of("Shop", invocation_retry_policy=InvocationRetryPolicy(initial_interval=timedelta(seconds=5)))
    policy = InvocationRetryPolicy(max_interval=timedelta(seconds=1))
    with pytest.raises(DefinitionError, match=rf"Shop/run \({__file__}:\d+\), with the options of app"):
        app([shop], invocation_retry_policy=policy)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's project: the current directory, not on `sys.path`; what it imports is forgotten afterwards."""
    (tmp_path / "shop_project.py").write_text(PROGRAM)
    package = tmp_path / "shop_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "program.py").write_text(PROGRAM)
    (package / "needs_more.py").write_text("import a_module_that_is_not_there\n")
    (package / "wrong.py").write_text("from perdure.worker.service import Service\nService('')\n")
    (package / "empty.py").write_text("value = 5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("shop_project", "shop_package"))]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "target", ["shop_project:application", "shop_package.program:application", "shop_package.program:Group.inner"]
)
def test_an_application_is_loaded_by_name(project: Path, target: str) -> None:
    """From the current directory, which need not be on the path."""
    application = load_application(target)
    assert isinstance(application, Application)
    assert application.handler("Greeter", "greet") is not None
    assert sys.path[0] == str(project)


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("shop_project", "Write shop_project:application."),
        ("", "Write package.module:application."),
        (":", "Write package.module:application."),
        ("shop_project:", "Write shop_project:application."),
        ("shop_package/program.py:application", "Write shop_package.program:application."),
        ("./shop_project.py", "Write shop_project:application."),
        ("shop_project.py:greeter", "Write shop_project:greeter."),
        ("nowhere:application", "no module 'nowhere' for 'nowhere:application'"),
        ("shop_package.nowhere:application", "no module 'shop_package.nowhere'"),
        ("shop_project.inner:application", "no module 'shop_project.inner'"),
        ("shop_package.needs_more:application", "imports 'a_module_that_is_not_there', which is not installed"),
        ("shop_project:aplication", "did you mean application?"),
        ("shop_project:zzz", "its applications are: application"),
        ("shop_project:Group.outer", "no attribute 'Group.outer'"),
        ("shop_project:greeter", "is a Service and not an application; make one: greeter_app = app([greeter])"),
        ("shop_project:greet", "is a function and not an application; its applications are: application"),
        ("shop_package.empty:value", "it has no application"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_write(project: Path, target: str, advice: str) -> None:
    """Each mistake has its own advice."""
    with pytest.raises(SettingsError) as caught:
        load_application(target)
    assert advice in str(caught.value)


def test_a_programs_own_error_is_shown_as_it_is(project: Path) -> None:
    """A wrong definition is not hidden behind a wrong name."""
    with pytest.raises(DefinitionError, match="is not a name"):
        load_application("shop_package.wrong:application")
