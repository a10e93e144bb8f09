"""The bench of the store's contract, once for each implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .store_contract import Bench, MemoryBench, redis_bench


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest, redis_url: str, namespace: str) -> AsyncIterator[Bench]:
    """An empty namespace in the store under test."""
    if request.param == "memory":
        yield MemoryBench(namespace)
    else:
        async with redis_bench(namespace, redis_url) as made:
            yield made


@pytest.fixture(params=["memory", "redis"])
async def spread_bench(request: pytest.FixtureRequest, redis_url: str, namespace: str) -> AsyncIterator[Bench]:
    """As `bench`, of a store that has each slot on a node of its own, as a cluster may."""
    if request.param == "memory":
        yield MemoryBench(namespace, one_node=False)
    else:
        async with redis_bench(namespace, redis_url, one_node=False) as made:
            yield made
