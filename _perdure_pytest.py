"""The pytest plugin: fixtures that run applications. Not in `perdure`, since every run of pytest imports this.

A run whose tests do not use the fixtures pays for this file and nothing else.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from perdure.testing import HarnessFactory, ServerAddresses


@pytest.fixture(scope="session")
def perdure_servers() -> ServerAddresses:
    """Where Redis and Kafka are, for the whole session. Override it to use servers of your own."""
    from perdure.testing import shared_servers

    return shared_servers()


@pytest.fixture(scope="session")
def perdure_harness(perdure_servers: ServerAddresses) -> HarnessFactory:
    """What runs an application on these servers: `perdure.testing.harness`, to be used as that is."""
    from perdure.testing import harness

    return partial(harness, servers=perdure_servers)
