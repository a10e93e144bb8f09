"""Contract services without keys, and the workflow: Proxy, TestUtilsService, BlockAndWaitWorkflow."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta

from perdure.schemas.errors import TerminalError
from perdure.worker.calling import SendHandle
from perdure.worker.context import Context
from perdure.worker.object_context import WorkflowContext, WorkflowSharedContext
from perdure.worker.serde import BytesSerde
from perdure.worker.service import Service
from perdure.worker.workflow import Workflow

MY_STATE = "my-state"
DURABLE_PROMISE = "durable-promise"


@dataclass(frozen=True)
class ProxyRequest:
    """Whom to call by name, with what JSON."""

    service: str
    handler: str
    message: str
    key: str | None = None
    idempotency_key: str | None = None
    delay_ms: int = 0


@dataclass(frozen=True)
class ManyCallRequest:
    """One of several calls: sent, or awaited at the end, or called and left."""

    request: ProxyRequest
    one_way: bool
    await_at_the_end: bool = False


proxy = Service("Proxy")


@proxy.handler("call")
async def proxy_call(ctx: Context, request: ProxyRequest) -> str:
    """Call, and answer as the callee does."""
    return (await _call(ctx, request)).decode()


@proxy.handler("oneWayCall")
async def proxy_one_way_call(ctx: Context, request: ProxyRequest) -> str:
    """Send; the id of what was sent."""
    return await _send(ctx, request).invocation_id()


@proxy.handler("manyCalls")
async def proxy_many_calls(ctx: Context, requests: list[ManyCallRequest]) -> None:
    """Send and call in the order given, then wait for those that are to be awaited."""
    awaited: list[Awaitable[bytes]] = []
    for each in requests:
        if each.one_way:
            _send(ctx, each.request)
            continue
        called = _call(ctx, each.request)
        if each.await_at_the_end:
            awaited.append(called)
    for future in awaited:
        await future


def _call(ctx: Context, request: ProxyRequest) -> Awaitable[bytes]:
    return ctx.generic_call(
        request.service,
        request.handler,
        request.message.encode(),
        key=request.key,
        idempotency_key=request.idempotency_key,
    )


def _send(ctx: Context, request: ProxyRequest) -> SendHandle:
    return ctx.generic_send(
        request.service,
        request.handler,
        request.message.encode(),
        key=request.key,
        send_delay=timedelta(milliseconds=request.delay_ms),
        idempotency_key=request.idempotency_key,
    )


@dataclass(frozen=True)
class SignalToResolve:
    """A signal to an invocation, with a value or the text of a failure."""

    invocation_id: str
    name: str
    text: str


utilities = Service("TestUtilsService")


@utilities.handler("echo")
async def echo(ctx: Context, text: str) -> str:
    """Answer with what was sent."""
    return text


@utilities.handler("uppercaseEcho")
async def uppercase_echo(ctx: Context, text: str) -> str:
    """Answer in capitals."""
    return text.upper()


@utilities.handler("echoHeaders")
async def echo_headers(ctx: Context) -> dict[str, str]:
    """Answer with the request's headers."""
    return dict(ctx.request().headers)


@utilities.handler("rawEcho", input_serde=BytesSerde(), output_serde=BytesSerde())
async def raw_echo(ctx: Context, raw: bytes) -> bytes:
    """Answer with the bytes that were sent."""
    return raw


@utilities.handler("sleepConcurrently")
async def sleep_concurrently(ctx: Context, millis: list[int]) -> None:
    """Sleep all of these at once."""
    sleeps = [ctx.sleep(timedelta(milliseconds=each)) for each in millis]
    for each in sleeps:
        await each


@utilities.handler("countExecutedSideEffects")
async def count_executed_side_effects(ctx: Context, increments: int) -> int:
    """Execute steps one after the other; how many of them the attempt that answers executed itself."""
    executed = 0

    def effect() -> None:
        nonlocal executed
        executed += 1

    for _ in range(increments):
        await ctx.run_typed("count", effect)
    return executed


@utilities.handler("cancelInvocation")
async def cancel_invocation(ctx: Context, invocation_id: str) -> None:
    """Cancel another invocation."""
    ctx.cancel_invocation(invocation_id)


@utilities.handler("resolveSignal")
async def resolve_signal(ctx: Context, signal: SignalToResolve) -> None:
    """Resolve a signal of another invocation."""
    ctx.resolve_signal(signal.invocation_id, signal.name, signal.text)


@utilities.handler("rejectSignal")
async def reject_signal(ctx: Context, signal: SignalToResolve) -> None:
    """Reject a signal of another invocation."""
    ctx.reject_signal(signal.invocation_id, signal.name, signal.text)


block_and_wait_workflow = Workflow("BlockAndWaitWorkflow")


@block_and_wait_workflow.main("run")
async def block_and_wait(ctx: WorkflowContext, input: str) -> str:  # the contract's name
    """Wait for a promise, and return what it was resolved with."""
    ctx.set(MY_STATE, input)
    promise = ctx.promise(DURABLE_PROMISE, type_hint=str)
    output = await promise
    if await promise.peek() is None:
        raise TerminalError("Durable promise should be completed")
    return output


@block_and_wait_workflow.handler("unblock")
async def unblock(ctx: WorkflowSharedContext, output: str) -> None:
    """Resolve the promise."""
    await ctx.promise(DURABLE_PROMISE, type_hint=str).resolve(output)


@block_and_wait_workflow.handler("getState")
async def get_state(ctx: WorkflowSharedContext) -> str | None:
    """What the workflow was submitted with."""
    return await ctx.get(MY_STATE, type_hint=str)


SERVICES = (proxy, utilities, block_and_wait_workflow)
