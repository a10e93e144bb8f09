"""`examples/greeter.py` greets."""

from __future__ import annotations

from datetime import timedelta

from examples.greeter import application, greet

from .conftest import Running


async def test_it_greets(running: Running) -> None:
    """The smallest program works."""
    async with running(application) as client:
        assert await client.call(greet, "Ada", timeout=timedelta(seconds=20)) == "Hello, Ada!"
