"""Workflows: `perdure.worker.workflow`. What all kinds of definitions share is shown in `test_definitions.py`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure.schemas.errors import DefinitionError
from perdure.worker.application import app
from perdure.worker.handler import HandlerMode, ServiceKind, handler_of
from perdure.worker.workflow import Workflow

DAY_MS = 86_400_000


async def again(ctx: object) -> None:
    """What would be a second main."""


def test_a_workflow_has_a_main_and_shared_handlers() -> None:
    """In whatever order they are defined."""
    signup = Workflow("Signup", idempotency_retention=timedelta(hours=1))

    @signup.handler()
    async def confirm(ctx: object, code: str) -> None: ...

    @signup.main()
    async def run(ctx: object, address: str) -> str:
        return address

    main, shared = handler_of(run), handler_of(confirm)
    assert (main.name, main.mode, main.kind) == ("run", HandlerMode.MAIN, ServiceKind.WORKFLOW)
    assert (shared.name, shared.mode, shared.kind) == ("confirm", HandlerMode.SHARED, ServiceKind.WORKFLOW)
    assert main.keyed
    assert shared.keyed
    assert main.queue_max is None
    assert list(app([signup]).handlers) == [("Signup", "confirm"), ("Signup", "run")]


def test_results_of_workflows_are_kept_for_a_day_unless_main_says_otherwise() -> None:
    """The retention is that of `main` alone."""
    brief, usual = Workflow("Brief"), Workflow("Usual")

    @brief.main(workflow_retention=timedelta(minutes=1))
    async def run(ctx: object) -> None: ...

    @usual.main()
    async def run_usually(ctx: object) -> None: ...

    @usual.handler()
    async def look(ctx: object) -> None: ...

    assert handler_of(run).options.workflow_retention_ms == 60_000
    assert handler_of(run_usually).options.workflow_retention_ms == DAY_MS
    assert handler_of(look).options.workflow_retention_ms is None


@pytest.mark.parametrize("retention", [5, -timedelta(1), timedelta.max])
def test_a_wrong_retention_is_refused_by_name(retention: Any) -> None:
    """And by the function's place."""
    with pytest.raises(DefinitionError, match=rf"again \({__file__}:\d+\) of Workflow\('Signup'\): workflow_retention"):
        Workflow("Signup").main(workflow_retention=retention)(again)


def test_a_second_main_is_refused() -> None:
    """It tells where the first one is, and the first one stays."""
    signup = Workflow("Signup")

    @signup.main()
    async def run(ctx: object) -> None: ...

    first = handler_of(run)
    with pytest.raises(DefinitionError, match=f"again .* there is a main already, 'run', defined at {first.source}"):
        signup.main()(again)
    assert signup.handlers == {"run": first}


def test_a_workflow_without_main_makes_no_application() -> None:
    """Nothing would ever run for its keys."""
    signup = Workflow("Signup")

    @signup.handler()
    async def confirm(ctx: object) -> None: ...

    with pytest.raises(DefinitionError, match=r"Workflow\('Signup'\) has no main\. Decorate .* \.main\(\)"):
        app([signup])


def test_main_has_no_idempotency_retention() -> None:
    """Its key is what makes it happen once."""
    options: dict[str, Any] = {"idempotency_retention": timedelta(1)}
    with pytest.raises(TypeError, match="idempotency_retention"):
        Workflow("Signup").main(**options)
