"""`perdure awakeable`, `perdure signal` and `perdure promise`: bringing what invocations wait for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .failures import FAILED, end, reported
from .flags import App, AsJson, InvocationIdText, Namespace, RedisUrl, settings_with
from .output import print_json

AwakeableId = Annotated[str, typer.Argument(metavar="ID", help="The id of an awakeable, awk_...")]
Value = Annotated[str | None, typer.Argument(metavar="[JSON]", help="The value; - reads it from stdin; nothing: null.")]
Message = Annotated[str, typer.Argument(metavar="MESSAGE", help="What the handler is told.")]
Code = Annotated[int, typer.Option(help="The failure's code.")]
SignalName = Annotated[str, typer.Argument(metavar="NAME", help="What the handler waits for.")]
WorkflowName = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")]
WorkflowKey = Annotated[str, typer.Argument(metavar="KEY", help="Which run.")]
PromiseName = Annotated[str, typer.Argument(metavar="NAME", help="The promise's name.")]

awakeable = typer.Typer(help="Complete awakeables.", no_args_is_help=True)
signal = typer.Typer(help="Signal invocations.", no_args_is_help=True)
promise = typer.Typer(help="Look at promises of workflows, and complete them.", no_args_is_help=True)


def _say(came: bool, what: str) -> None:
    if not came:
        end(f"{what} was completed already: nothing was changed.", code=FAILED)
    typer.echo("done")


@awakeable.command("resolve")
@reported
def resolve_awakeable(
    awakeable_id: AwakeableId,
    value: Value = None,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Complete an awakeable with a value."""
    from .operating import operate
    from .values import read_value

    given = read_value(value)
    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    _say(operate(settings, lambda client: client.resolve_awakeable(awakeable_id, given)), awakeable_id)


@awakeable.command("reject")
@reported
def reject_awakeable(
    awakeable_id: AwakeableId,
    message: Message,
    code: Code = 500,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Complete an awakeable with a failure, which its handler sees as a TerminalError."""
    from .operating import operate

    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    _say(operate(settings, lambda client: client.reject_awakeable(awakeable_id, message, code)), awakeable_id)


@signal.command("send")
@reported
def send_signal(
    invocation_id: InvocationIdText,
    name: SignalName,
    value: Value = None,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Signal an invocation; it is kept until its handler waits for that name."""
    from .operating import operate
    from .values import read_value

    given = read_value(value)
    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    _say(operate(settings, lambda client: client.send_signal(invocation_id, name, given)), invocation_id)


@signal.command("reject")
@reported
def reject_signal(
    invocation_id: InvocationIdText,
    name: SignalName,
    message: Message,
    code: Code = 500,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Signal a failure, which the handler sees as a TerminalError."""
    from .operating import operate

    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    _say(operate(settings, lambda client: client.reject_signal(invocation_id, name, message, code)), invocation_id)


@promise.command("get")
@reported
def get_promise(
    workflow: WorkflowName,
    key: WorkflowKey,
    name: PromiseName,
    as_json: AsJson = False,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Print a promise's value; exit code 1 while it is open, or where it was rejected."""
    from perdure.schemas.entries import Failure, Outcome

    from .operating import operate

    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)

    async def look(client: Any) -> Outcome | None:
        found: Outcome | None = await client.promise_outcome(workflow, key, name)
        return found

    outcome = operate(settings, look)
    if as_json:
        from perdure.journal.inspection import outcome_json

        print_json({"completed": outcome is not None} | ({} if outcome is None else outcome_json(outcome)))
        return
    match outcome:
        case None:
            end(f"The promise {name!r} of {workflow}/{key} is open.", code=FAILED)
        case Failure():
            raise outcome.to_error()
        case _:
            from perdure.worker.envelope import untyped_result_of

            from .values import print_value

            print_value(untyped_result_of(outcome))


@promise.command("resolve")
@reported
def resolve_promise(
    workflow: WorkflowName,
    key: WorkflowKey,
    name: PromiseName,
    value: Value = None,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Complete a promise with a value."""
    from .operating import operate
    from .values import read_value

    given = read_value(value)
    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    operate(settings, lambda client: client.resolve_promise(workflow, key, name, given))
    typer.echo("done")


@promise.command("reject")
@reported
def reject_promise(
    workflow: WorkflowName,
    key: WorkflowKey,
    name: PromiseName,
    message: Message,
    code: Code = 500,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Complete a promise with a failure."""
    from .operating import operate

    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    operate(settings, lambda client: client.reject_promise(workflow, key, name, message, code))
    typer.echo("done")
