"""The code keeps its shape (`tidy_rules.py`), and each rule is shown to catch a planted violation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import tidy_rules
from tests.tidy_rules import Source

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("schemas", "journal", "worker", "tests", "examples", "benchmarks")

Rule = Callable[[Source], Iterator[str]]


def sources(pattern: str) -> list[Source]:
    """Return every file of ours that matches, the links under `perdure/` left aside."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob(pattern))]
    found += sorted((ROOT / "perdure").glob(pattern)) + sorted(ROOT.glob(pattern))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in found]


PYTHON = sources("*.py")
LUA = sources("*.lua")


@pytest.mark.parametrize("source", PYTHON, ids=lambda source: source.path)
def test_python_is_tidy(source: Source) -> None:
    """Imports, names, sizes, docstrings and the use of clocks are as CONTRIBUTING.md says."""
    assert [f"{source.path}: {wrong}" for rule in tidy_rules.PYTHON_RULES for wrong in rule(source)] == []


@pytest.mark.parametrize("source", LUA, ids=lambda source: source.path)
def test_lua_is_tidy(source: Source) -> None:
    """Scripts are short, well named, and start with their contract."""
    assert [f"{source.path}: {wrong}" for rule in tidy_rules.LUA_RULES for wrong in rule(source)] == []


def test_the_rules_see_the_code() -> None:
    """No folder is overlooked, and every module that has to be pure exists."""
    assert {source.layer for source in PYTHON} >= {*tidy_rules.LAYERS, "tests", "perdure"}
    assert {source.path for source in PYTHON} >= tidy_rules.PURE
    assert LUA


LONG = "def long() -> None:\n    '''Long.'''\n" + "    pass\n" * 60
DOC = '"""Doc."""\n'

PLANTED = [
    (tidy_rules.direction, "schemas/ids.py", "import perdure.journal.keys", "schemas may not import"),
    (tidy_rules.direction, "journal/store.py", "from perdure.worker.clock import Clock", "journal may not import"),
    (tidy_rules.direction, "journal/store.py", "from perdure import worker", "journal may not import"),
    (tidy_rules.direction, "journal/store.py", "def f():\n    import perdure.worker.clock", "journal may not import"),
    (tidy_rules.direction, "worker/engine.py", "from perdure import Service", "worker may not import"),
    (tidy_rules.direction, "worker/engine.py", "from ..journal import keys", "leaves worker"),
    (tidy_rules.purity, "journal/machine.py", "import asyncio", "may not import asyncio"),
    (tidy_rules.purity, "worker/offsets.py", "from time import monotonic", "may not import time"),
    (tidy_rules.purity, "schemas/codec.py", "import socket", "may not import socket"),
    (tidy_rules.purity, "journal/machine.py", "from .wire import Wire", "perdure.journal.wire, which is not pure"),
    (tidy_rules.purity, "journal/machine.py", "from . import wire", "perdure.journal.wire, which is not pure"),
    (tidy_rules.purity, "journal/machine.py", "from perdure.journal import wire", "which is not pure"),
    (tidy_rules.clients, "worker/engine.py", "import aiokafka", "only worker/kafka.py may import aiokafka"),
    (tidy_rules.clients, "journal/keys.py", "from redis.asyncio import Redis", "only journal/redis_line.py"),
    (tidy_rules.clients, "worker/kafka.py", "import hiredis", "only journal/link.py"),
    (tidy_rules.import_names, "examples/saga.py", "import worker", "write perdure.worker"),
    (tidy_rules.import_names, "tests/test_x.py", "from schemas.ids import x", "write perdure.schemas.ids"),
    (tidy_rules.sizes, "worker/engine.py", "x = 1\n" * 401, "401 lines"),
    (tidy_rules.sizes, "journal/scripts/append.lua", "-- x\n" * 401, "401 lines"),
    (tidy_rules.sizes, "worker/engine.py", LONG, "long has 61 lines"),
    (tidy_rules.names, "worker/utils.py", "", "'utils' says nothing"),
    (tidy_rules.names, "journal/common/x.py", "", "'common' says nothing"),
    (tidy_rules.names, "worker/logging.py", "", "standard library"),
    (tidy_rules.time_and_chance, "worker/engine.py", "import time\ntime.time()", "time.time belongs in"),
    (tidy_rules.time_and_chance, "worker/engine.py", "import time as t\nt.time_ns()", "time.time_ns"),
    (tidy_rules.time_and_chance, "worker/engine.py", "from time import time\nf(time)", "time.time"),
    (tidy_rules.time_and_chance, "schemas/ids.py", "from datetime import datetime\ndatetime.now()", "datetime.now"),
    (tidy_rules.time_and_chance, "schemas/ids.py", "import uuid\nField(default_factory=uuid.uuid4)", "uuid.uuid4"),
    (tidy_rules.time_and_chance, "journal/retry.py", "import random\nrandom.uniform(1, 2)", "random.uniform"),
    (tidy_rules.time_and_chance, "journal/retry.py", "from random import Random\nRandom()", "random.Random"),
    (tidy_rules.docstrings, "worker/x.py", "", "the module has no docstring"),
    (tidy_rules.docstrings, "worker/x.py", DOC + "def f(): ...", "f has no docstring"),
    (tidy_rules.docstrings, "worker/x.py", DOC + "class C:\n    '''C.'''\n    async def m(self): ...", "m has no"),
    (tidy_rules.unfinished, "worker/x.py", "x = 1  # TODO later", "line 1: finish it"),
    (tidy_rules.lua_header, "journal/scripts/x.lua", "-- KEYS[1] a\n-- ARGV[1] b\nreturn 1", "does not say Returns"),
    (tidy_rules.lua_header, "journal/scripts/x.lua", "-- ARGV[1]\n-- Returns 1\n\n-- KEYS[1]", "does not say KEYS[1]"),
]


@pytest.mark.parametrize(("rule", "path", "text", "said"), PLANTED)
def test_a_planted_violation_is_caught(rule: Rule, path: str, text: str, said: str) -> None:
    """Each rule names what is wrong with a file made to break it."""
    wrong = list(rule(Source(path, text)))
    assert len(wrong) == 1
    assert said in wrong[0]


def test_each_rule_has_a_planted_violation() -> None:
    """A rule that nothing was planted for might never bite."""
    assert {rule for rule, *_ in PLANTED} == {*tidy_rules.PYTHON_RULES, *tidy_rules.LUA_RULES}


ALLOWED = [
    (tidy_rules.direction, "worker/engine.py", "from perdure.journal import keys\nfrom .clock import Clock"),
    (tidy_rules.direction, "journal/store.py", "from . import keys\nfrom perdure.schemas.ids import InvocationId"),
    (tidy_rules.direction, "examples/saga.py", "from perdure import Service"),
    (tidy_rules.purity, "journal/retry.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncio"),
    (tidy_rules.purity, "journal/machine.py", "from perdure.schemas import entries\nfrom .retry import RetryPolicy"),
    (tidy_rules.clients, "tests/test_x.py", "import aiokafka"),
    (tidy_rules.sizes, "worker/engine.py", LONG.replace("    pass\n", "", 1)),
    (tidy_rules.time_and_chance, "worker/clock.py", "import time\ntime.time()"),
    (tidy_rules.time_and_chance, "worker/x.py", "import random\nrandom.Random(1)\ndef f(g: random.Random): ..."),
    (tidy_rules.time_and_chance, "worker/x.py", "import time\ntime.monotonic()\nself.time.time()"),
    (tidy_rules.docstrings, "worker/x.py", DOC + "def _f(): ...\nclass _C:\n    def m(self): ..."),
    (tidy_rules.unfinished, "worker/x.py", "x = 'TODO'"),
    (tidy_rules.lua_header, "journal/scripts/x.lua", "-- Does.\n-- KEYS[1] a\n-- ARGV[1] b\n-- Returns 1\nreturn 1"),
]


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_what_is_allowed_passes(rule: Rule, path: str, text: str) -> None:
    """The rules leave alone what only looks like a violation."""
    assert list(rule(Source(path, text))) == []
