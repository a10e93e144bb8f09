"""`examples/greeter.py` greets."""

from __future__ import annotations

from examples.greeter import application, greet
from tests.waiting import PATIENCE

from .conftest import Running


async def test_it_greets(running: Running) -> None:
    """The smallest program works."""
    async with running(application) as client:
        assert await client.call(greet, "Ada", timeout=PATIENCE) == "Hello, Ada!"
