"""Every example says how to run it and what to try, and what it says works."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from examples.ledger import Ledger
from perdure.testing import HarnessFactory
from perdure.worker.application import load_application
from tests.documents import ROOT

# Not applications; and one whose input is a Kafka topic, which no command of ours writes.
WITHOUT = {"demo", "demo_evidence", "demo_screen", "ledger", "enrichment"}
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem not in WITHOUT)


def commands_of(name: str) -> list[list[str]]:
    """The commands in the docstring of an example, as words."""
    text = ast.get_docstring(ast.parse((ROOT / "examples" / f"{name}.py").read_text())) or ""
    return [shlex.split(found) for found in re.findall(r"`(perdure [^`]*)`", text)]


@pytest.mark.process
@pytest.mark.parametrize("name", EXAMPLES)
async def test_what_the_docstring_says(
    perdure_harness: HarnessFactory, ledger: Ledger, tmp_path: Path, name: str
) -> None:
    """The application is there, and each command against it succeeds."""
    dev, *others = commands_of(name)
    assert dev == ["perdure", "dev", f"examples.{name}:application"]
    assert others, "there is something to try"
    async with perdure_harness(load_application(dev[2])) as env:
        places = {
            "PERDURE_NAMESPACE": env.namespace,
            "PERDURE_REDIS_URL": env.redis_url,
            "PERDURE_BOOTSTRAP_SERVERS": env.bootstrap_servers,
        }
        for words in others:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *words),
                cwd=tmp_path,
                env={**os.environ, **places, "PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output = (await process.communicate())[0].decode()
            assert process.returncode == 0, f"{shlex.join(words)}: {output}"
