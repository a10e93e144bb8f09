"""What a function's signature says: how many arguments a handler takes, of which types, and what a step returns.

Pure. Only the annotations that matter are evaluated: `ctx: Context` may be imported under TYPE_CHECKING.
"""

from __future__ import annotations

import builtins
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from perdure.schemas.errors import DefinitionError

# Distinct texts of return annotations of steps; a program has some hundred.
ANNOTATIONS_MAX: Final = 1024

_EMPTY: Final = inspect.Parameter.empty
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class HandlerSignature(NamedTuple):
    """A handler's signature, found to be `(ctx)` or `(ctx, argument)`.

    Attributes:
        takes_argument: Whether there is a second parameter.
        default: Its default, `inspect.Parameter.empty` where there is none.
        argument_hint: Its type; `Any` without an annotation.
        result_hint: The return type; `Any` without an annotation.
        source: `file:line` of the definition.
    """

    takes_argument: bool
    default: object
    argument_hint: Any
    result_hint: Any
    source: str


def read_handler(fn: Callable[..., Any], *, local_names: Mapping[str, Any]) -> HandlerSignature:
    """Return the signature of an async function that can be a handler.

    Args:
        fn: What was decorated.
        local_names: Where annotations are looked up besides the function's module: the scope that defines it.

    Raises:
        DefinitionError: It is not a plain async function, does not take `(ctx)` or `(ctx, argument)`, or has an
            annotation that cannot be resolved; names the function with `file:line`.
    """
    _refuse_other_callables(fn)
    parameters = _parameters(fn)
    argument = parameters[1] if len(parameters) > 1 else None
    argument_hint = _hint_of(fn, _EMPTY if argument is None else argument.annotation, local_names=local_names)
    result_hint = _hint_of(fn, _annotations(fn).get("return", _EMPTY), local_names=local_names)
    default = _EMPTY if argument is None else argument.default
    return HandlerSignature(argument is not None, default, argument_hint, result_hint, source_of(fn))


def result_hint(action: Callable[..., Any]) -> Any:
    """Return what a step's action says that it gives, or `Any` where it says nothing.

    Partials, bound methods and callable objects are looked through; `Awaitable[X]` and `Coroutine[…, X]` give `X`.

    Raises:
        DefinitionError: The annotation names something that cannot be found in the action's module.
    """
    fn = action
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not hasattr(fn, "__annotations__"):
        fn = getattr(type(fn), "__call__", fn)  # noqa: B004  # looks for annotations, not for whether it is callable
    annotation = _annotations(fn).get("return", _EMPTY)
    if annotation is _EMPTY:
        return Any
    hint = _quick_hint(fn, annotation)
    if get_origin(hint) in (Awaitable, Coroutine):
        hint = get_args(hint)[-1]
    return hint


def source_of(fn: Callable[..., Any]) -> str:
    """Return `file:line` of a function's definition, decorators included; `<unknown>` for what has no Python source."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return "<unknown>" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def describe(fn: object) -> str:
    """Return `name (file:line)` of whatever was given as a function."""
    name = getattr(fn, "__qualname__", None) or repr(fn)
    return f"{name} ({source_of(fn)})" if callable(fn) else name


def _refuse_other_callables(fn: object) -> None:
    def refuse(why: str) -> DefinitionError:
        return DefinitionError(f"{describe(fn)} cannot be a handler: {why}")

    if isinstance(fn, functools.partial):
        raise refuse("it is a functools.partial, which has no name of its own. Write an async function that calls it.")
    if inspect.ismethod(fn):
        raise refuse("it is a bound method. Write an async function (ctx, argument) that calls it.")
    if not isinstance(fn, FunctionType):
        raise refuse(f"it is of type {type(fn).__name__}. Handlers are async functions: async def name(ctx, argument).")
    if inspect.isasyncgenfunction(fn):
        raise refuse("it is an async generator. Remove its yield: a handler returns one result.")
    if not inspect.iscoroutinefunction(fn):
        raise refuse("it is not async. Write `async def`; blocking work goes into ctx.run, which runs it in a thread.")


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    """The one or two parameters that are given; keyword-only ones with defaults are for the handler's own tests."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except NameError as error:
        raise DefinitionError(f"{describe(fn)} cannot be a handler: {error} in its annotations.") from error
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    rest = [parameter for parameter in parameters if parameter.kind not in _POSITIONAL]
    unusable = [p for p in rest if p.kind is not inspect.Parameter.KEYWORD_ONLY or p.default is _EMPTY]
    if not 1 <= len(positional) <= 2 or unusable:
        shown = ", ".join(str(parameter.replace(annotation=_EMPTY)) for parameter in parameters)
        raise DefinitionError(
            f"{describe(fn)} cannot be a handler: it takes ({shown}). A handler takes (ctx) or (ctx, argument); "
            "several values go into one model, dataclass or dict."
        )
    if positional[0].name in ("self", "cls"):
        raise DefinitionError(
            f"{describe(fn)} cannot be a handler: its first parameter is {positional[0].name}, so it is a method. "
            "Define it outside of the class, or as a static method with the handler decorator inside."
        )
    return positional


def _annotations(fn: Callable[..., Any]) -> Mapping[str, Any]:
    found = getattr(fn, "__annotations__", None)
    return found if isinstance(found, dict) else {}


def _globals(fn: Callable[..., Any]) -> dict[str, Any]:
    names: dict[str, Any] = getattr(inspect.unwrap(getattr(fn, "__func__", fn)), "__globals__", {})
    return names


def _quick_hint(fn: Callable[..., Any], annotation: Any) -> Any:
    # Steps ask at every call, and `get_type_hints` takes 15 µs for text. Most annotations are one name.
    if isinstance(annotation, str) and annotation.isidentifier():
        names = _globals(fn)
        if annotation in names:
            return names[annotation]
        if hasattr(builtins, annotation):
            return getattr(builtins, annotation)
    if annotation is None or isinstance(annotation, type):
        return annotation
    # Text within text would be left unresolved.
    if isinstance(annotation, str) and "'" not in annotation and '"' not in annotation:
        try:
            # The author's own annotation, as `typing.get_type_hints` evaluates it.
            return eval(_compiled(annotation), _globals(fn))  # noqa: S307
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            raise _unresolved(fn, annotation, error) from error
    return _hint_of(fn, annotation, local_names={})


def _hint_of(fn: Callable[..., Any], annotation: Any, *, local_names: Mapping[str, Any]) -> Any:
    if annotation is _EMPTY:
        return Any

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    try:
        # A copy: evaluating must not see, nor leave, anything in the scopes themselves.
        return get_type_hints(holder, globalns=_globals(fn), localns=dict(local_names), include_extras=True)["it"]
    # Annotations are expressions: a name that is not there, a wrong subscript, a typo.
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise _unresolved(fn, annotation, error) from error


@lru_cache(maxsize=ANNOTATIONS_MAX)
def _compiled(annotation: str) -> CodeType:
    return compile(annotation, "<annotation>", "eval", dont_inherit=True)


def _unresolved(fn: Callable[..., Any], annotation: Any, error: Exception) -> DefinitionError:
    return DefinitionError(
        f"The annotation {annotation!r} of {describe(fn)} cannot be resolved: {error}. "
        "Import the type where the program runs, not only for type checkers, and define it above the function."
    )
