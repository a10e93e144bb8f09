"""`docs/testing.md`: each of its examples is run as it stands there, on the lane's servers."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from perdure.testing import ServerAddresses
from perdure.worker.harness_servers import KAFKA_VARIABLE, REDIS_VARIABLE
from tests.documents import ROOT, blocks

FILES = {block.title: block.text for block in blocks(ROOT / "docs" / "testing.md") if block.title}
TESTS = sorted(name for name in FILES if name.startswith("test_"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with every file of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


async def run(project: Path, servers: ServerAddresses, *arguments: str) -> str:
    """Run Python in the project, as a user with these servers would, and return what it printed."""
    places = {REDIS_VARIABLE: servers.redis_url, KAFKA_VARIABLE: servers.bootstrap_servers}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error::ResourceWarning", *arguments),
        cwd=project,
        env={**os.environ, **places},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


async def test_the_tests_pass(project: Path, perdure_servers: ServerAddresses) -> None:
    """All tests of the page pass in one run, in the mode that its pytest.ini says."""
    auto = [name for name in TESTS if name != "test_strict.py"]
    functions = sum(text.count("async def test_") for text in (FILES[name] for name in auto))
    output = await run(project, perdure_servers, "-m", "pytest", "-q", "-p", "no:randomly", *auto)
    # Two values here, three values there.
    assert f"{functions + 1 + 2} passed" in output


async def test_strict_mode_is_enough(project: Path, perdure_servers: ServerAddresses) -> None:
    """With pytest-asyncio's default mode the page's example for it passes, and so does a fixture that has the mark."""
    strict = ("-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-o", "asyncio_mode=strict")
    output = await run(project, perdure_servers, *strict, "test_strict.py", "test_one_for_all.py")
    assert "4 passed" in output


async def test_without_pytest(project: Path, perdure_servers: ServerAddresses) -> None:
    """The example for unittest passes, and pytest was not even imported for it."""
    output = await run(project, perdure_servers, "-X", "importtime", "check_shop.py")
    assert "Ran 1 test" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if line.startswith("import time:")}
    assert "perdure.testing" in imported
    assert "pytest" not in imported
