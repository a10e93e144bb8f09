"""Services: `perdure.worker.service`. What all kinds of definitions share is shown in `test_definitions.py`."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.worker.handler import HandlerMode, ServiceKind, handler_of
from perdure.worker.service import Service


def test_handlers_of_services_have_no_keys() -> None:
    """And so neither state nor a queue; nothing keeps one of their invocations from running beside another."""
    shop = Service("Shop")

    @shop.handler()
    async def buy(ctx: object) -> None: ...

    handler = handler_of(buy)
    assert (handler.kind, handler.mode, handler.keyed) == (ServiceKind.SERVICE, HandlerMode.PLAIN, False)
    assert (handler.state_preload, handler.queue_max, handler.options.workflow_retention_ms) == (False, None, None)
    assert (str(handler.mode), str(handler.kind)) == ("", "service")


@pytest.mark.parametrize("option", ["state_preload", "enable_lazy_state", "queue_max", "workflow_retention", "kind"])
def test_services_have_no_options_of_objects(option: str) -> None:
    """They would mean nothing."""
    options: dict[str, Any] = {option: True}
    with pytest.raises(TypeError, match=option):
        Service("Shop", **options)
    with pytest.raises(TypeError, match=option):
        Service("Shop").handler(**options)
