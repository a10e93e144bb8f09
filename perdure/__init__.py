"""Durable execution for Python on the Kafka and the Redis that a team already runs.

```python
from perdure import Context, Service, app

payments = Service("Payments")

@payments.handler()
async def charge(ctx: Context, order: str) -> str:
    return await ctx.run("charge the card", lambda: f"receipt for {order}")

application = app([payments])
```

Run it with `perdure dev module:application`.
"""

from perdure.schemas.errors import (
    BrokerError,
    DefinitionError,
    InvocationNotFoundError,
    PerdureError,
    RetryableError,
    SerdeError,
    SettingsError,
    StoreError,
    TerminalError,
    UsageError,
)
from perdure.worker.application import Application, app
from perdure.worker.client import Client, Handle
from perdure.worker.context import Context, Request
from perdure.worker.futures import DurableFuture
from perdure.worker.options import InvocationRetryPolicy, RunOptions
from perdure.worker.payload_codec import PayloadCodec
from perdure.worker.record_source import RecordSource
from perdure.worker.scope import StepInfo, current_step
from perdure.worker.serde import BytesSerde, DefaultSerde, JsonSerde, PydanticJsonSerde, Serde
from perdure.worker.service import Service
from perdure.worker.settings import Settings
from perdure.worker.subscriptions import Subscription
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

__all__ = [
    "Application",
    "BrokerError",
    "BytesSerde",
    "Client",
    "Context",
    "DefaultSerde",
    "DefinitionError",
    "DurableFuture",
    "Handle",
    "InvocationNotFoundError",
    "InvocationRetryPolicy",
    "JsonSerde",
    "PayloadCodec",
    "PerdureError",
    "PydanticJsonSerde",
    "RecordSource",
    "Request",
    "RetryableError",
    "RunOptions",
    "Serde",
    "SerdeError",
    "Service",
    "Settings",
    "SettingsError",
    "StepInfo",
    "StoreError",
    "Subscription",
    "TerminalError",
    "UsageError",
    "VirtualObject",
    "Workflow",
    "app",
    "current_step",
]
