"""`perdure state`: looking at the state of objects and workflows, and mending it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .failures import FAILED, end, reported
from .flags import App, AsJson, Namespace, RedisUrl, settings_with
from .output import print_json, print_table

ObjectName = Annotated[str, typer.Argument(metavar="OBJECT", help="The object's or workflow's name.")]
ObjectKey = Annotated[str, typer.Argument(metavar="KEY", help="Its key.")]
Force = Annotated[bool, typer.Option(help="Also while an exclusive handler has the object.")]

group = typer.Typer(help="Look at the state of objects, and mend it.", no_args_is_help=True)


@group.command("get")
@reported
def get_state(
    of: ObjectName,
    key: ObjectKey,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One value; all without it.")] = None,
    as_json: AsJson = False,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Print the state of an object, or one value of it."""
    from perdure.worker.serde import JSON

    from .operating import operate
    from .values import print_value

    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    state = operate(settings, lambda client: client.read_state(of, key))
    if name is None:
        if as_json:
            print_json({each: _shown(value) for each, value in state.items()})
        else:
            print_table(("name", "value"), [(each, _text(value, JSON)) for each, value in state.items()])
    elif name not in state:
        end(f"{of}/{key} has no state {name!r}: look with `perdure state get {of} {key}`.", code=FAILED)
    elif as_json:
        print_json({name: _shown(state[name])})
    else:
        print_value(state[name])


@group.command("set")
@reported
def set_state(
    of: ObjectName,
    key: ObjectKey,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The value's name.")],
    value: Annotated[str, typer.Argument(metavar="JSON", help="The value; - reads it from stdin.")],
    force: Force = False,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Write one value of an object's state."""
    from .operating import operate
    from .values import read_value

    given = read_value(value)
    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    operate(settings, lambda client: client.set_state(of, key, {name: given}, force=force))
    typer.echo("done")


@group.command("clear")
@reported
def clear_state(
    of: ObjectName,
    key: ObjectKey,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which values.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole state.")] = False,
    force: Force = False,
    app: App = None,
    redis_url: RedisUrl = None,
    namespace: Namespace = None,
) -> None:
    """Remove values of an object's state, or all of it."""
    from perdure.schemas.errors import UsageError

    from .operating import operate

    if bool(names) == everything:
        raise UsageError("Say what to remove: either names of values, or --all.")
    settings = settings_with(redis_url=redis_url, namespace=namespace, app=app)
    operate(settings, lambda client: client.clear_state(of, key, names or None, force=force))
    typer.echo("done")


def _shown(value: Any) -> Any:
    """A value for JSON; one that is sealed is called that."""
    from perdure.journal.inspection import preview
    from perdure.schemas.payloads import SEALED

    return preview(value) if isinstance(value, bytes) and value.startswith(SEALED) else value


def _text(value: Any, serde: Any) -> str:
    shown = _shown(value)
    if isinstance(shown, bytes):
        return repr(shown)
    return shown if shown is not value else str(serde.serialize(value).decode())
