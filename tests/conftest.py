"""What the tests of packaging and of the docs share: wheels of all packages, and empty environments."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def run(command: list[str | Path], **options) -> subprocess.CompletedProcess[str]:
    """Runs it to its end; a failure shows all that it said."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, **options)
    assert ran.returncode == 0, f"{command} ended with {ran.returncode}:\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    return ran


def build_wheels(target: Path, *projects: Path) -> None:
    """Wheels of ``projects`` alone, built by the hatchling that is installed: nothing is fetched."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", target]
    run([sys.executable, "-m", "pip", "wheel", *options, *projects])


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds only what was installed into it."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Environment:
        run([sys.executable, "-m", "venv", "--without-pip", folder])
        return cls(folder)

    def install(self, *what: str | Path) -> None:
        # Most of what is installed is never imported: to compile all of it takes longer than the rest.
        options = ["--quiet", "--no-compile", "--constraint", CONSTRAINTS]
        run([sys.executable, "-m", "pip", "--python", self.folder / "bin/python", "install", *options, *what])

    def run(self, program: str, *arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
        """A program of this environment, without the caller's PYTHONPATH and SKED_ settings, ended by success."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SKED_", "PYTHON"))}
        clean["XDG_STATE_HOME"] = str(self.folder / "state")
        return run([self.folder / "bin" / program, *arguments], cwd=self.folder, env=clean, **options)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One wheel for each package of the workspace; built once, also for several pytest-xdist workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "wheels"
    with (shared / "wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build_wheels(folder, ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml")))
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def environment():
    """Makes an Environment in an empty folder."""
    return Environment.create


@pytest.fixture(scope="session")
def build():
    """``build(target, *projects)`` puts a wheel of each project into ``target``."""
    return build_wheels
