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

from perdure.journal.selection import InvocationFilter
from perdure.schemas.errors import (
    BrokerError,
    ConflictError,
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
from perdure.worker.calling import SendHandle
from perdure.worker.client import Client
from perdure.worker.client_handle import Handle
from perdure.worker.combinators import (
    as_completed,
    first_success,
    gather,
    gather_results,
    select,
    wait_completed,
    with_timeout,
)
from perdure.worker.context import Context, Request, current_context
from perdure.worker.futures import DurableCallFuture, DurableFuture
from perdure.worker.handler_log import HandlerLogFilter, get_logger
from perdure.worker.object_context import (
    DurablePromise,
    ObjectContext,
    ObjectSharedContext,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.worker.options import InvocationRetryPolicy, RunOptions
from perdure.worker.payload_codec import PayloadCodec
from perdure.worker.record_source import RecordSource
from perdure.worker.scope import StepInfo, current_step
from perdure.worker.serde import BytesSerde, DefaultSerde, JsonSerde, PydanticJsonSerde, Serde
from perdure.worker.service import Service
from perdure.worker.settings import Settings
from perdure.worker.subscriptions import Subscription
from perdure.worker.sync_client import SyncClient
from perdure.worker.virtual_object import VirtualObject
from perdure.worker.workflow import Workflow

__all__ = [
    "Application",
    "BrokerError",
    "BytesSerde",
    "Client",
    "ConflictError",
    "Context",
    "DefaultSerde",
    "DefinitionError",
    "DurableCallFuture",
    "DurableFuture",
    "DurablePromise",
    "Handle",
    "HandlerLogFilter",
    "InvocationFilter",
    "InvocationNotFoundError",
    "InvocationRetryPolicy",
    "JsonSerde",
    "ObjectContext",
    "ObjectSharedContext",
    "PayloadCodec",
    "PerdureError",
    "PydanticJsonSerde",
    "RecordSource",
    "Request",
    "RetryableError",
    "RunOptions",
    "SendHandle",
    "Serde",
    "SerdeError",
    "Service",
    "Settings",
    "SettingsError",
    "StepInfo",
    "StoreError",
    "Subscription",
    "SyncClient",
    "TerminalError",
    "UsageError",
    "VirtualObject",
    "Workflow",
    "WorkflowContext",
    "WorkflowSharedContext",
    "app",
    "as_completed",
    "current_context",
    "current_step",
    "first_success",
    "gather",
    "gather_results",
    "get_logger",
    "select",
    "wait_completed",
    "with_timeout",
]
