"""The built wheel, in an empty environment beside a user's project with a `worker.py` and a `schemas/` of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.tidy_rules import LAYERS

ROOT = Path(__file__).resolve().parents[1]

REPORT = """
import importlib, json, sys
print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.argv[1:]}))
"""


def run(*command: str | Path, directory: Path) -> str:
    """Run a command as a user would, without this checkout on the path, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PERDURE"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(target: str, source: Path, directory: Path) -> Path:
    """Build `source` as a wheel or an sdist, with the installed hatchling so that nothing is downloaded."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", directory, directory=source)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that holds the wheel.

    Its dependencies are those of the environment that runs the tests, by one line in a .pth file: installing them
    again would need a network and a minute. A path that a .pth file adds is searched, but its own .pth files are not
    read, so that this checkout, installed there as editable, stays out of sight.
    """
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, directory=environment)
    interpreter = environment / "bin" / "python"
    site_packages = run(
        interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", directory=environment
    )
    (Path(site_packages.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, directory=environment)
    return interpreter


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project whose modules have the names of our folders."""
    (tmp_path / "worker.py").write_text("")
    (tmp_path / "journal.py").write_text("")
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("")
    (tmp_path / "report.py").write_text(REPORT)
    return tmp_path


def our_files(*suffixes: str) -> set[str]:
    """Return the files of the three packages, as paths in the wheel."""
    return {
        f"perdure/{path.relative_to(ROOT).as_posix()}"
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*")
        if path.suffix in suffixes
    }


def test_the_wheel_holds_the_import_package_and_nothing_else(wheel: Path) -> None:
    """Modules, Lua scripts, py.typed and the licence are there; no folder of ours is at the top, and one file is."""
    names = set(zipfile.ZipFile(wheel).namelist())
    public = {"perdure/__init__.py", "perdure/__main__.py", "perdure/testing.py", "perdure/py.typed"}
    assert names >= our_files(".py", ".lua") | public
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"perdure", "_perdure_pytest.py"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith(".pyc")]


def test_an_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """A wheel built from the source distribution, as some indexes and packagers do, lacks nothing."""
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    rebuilt = build("wheel", tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "again")
    assert sorted(zipfile.ZipFile(rebuilt).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_a_users_own_worker_and_schemas_stay_theirs(python: Path, project: Path) -> None:
    """`import worker` is the user's module, `perdure.worker` is ours, in one process."""
    ours = ["perdure", *(f"perdure.{layer}" for layer in LAYERS)]
    found = json.loads(run(python, "report.py", "worker", "journal", "schemas", *ours, directory=project))
    assert Path(found["worker"]) == project / "worker.py"
    assert Path(found["journal"]) == project / "journal.py"
    assert Path(found["schemas"]) == project / "schemas" / "__init__.py"
    installed = Path(found["perdure"]).parent
    assert installed.is_relative_to(python.parents[1])
    assert [Path(found[f"perdure.{layer}"]) for layer in LAYERS] == [installed / n / "__init__.py" for n in LAYERS]


def test_every_module_can_be_imported_beside_them(python: Path, project: Path) -> None:
    """No module of ours finds the user's `worker` or `schemas` where it means its own."""
    paths = [Path(name).with_suffix("").parts for name in our_files(".py")]
    modules = sorted(".".join(parts) for parts in paths if parts[-1] not in ("__init__", "__main__"))
    found = json.loads(run(python, "report.py", *modules, directory=project))
    assert all(Path(file).is_relative_to(python.parents[1]) for file in found.values())


def test_the_command_is_installed(python: Path, project: Path) -> None:
    """`perdure --help` and `python -m perdure --help` run from the user's project."""
    assert "Usage" in run(python.with_name("perdure"), "--help", directory=project)
    assert "Usage" in run(python, "-m", "perdure", "--help", directory=project)
