"""What the tests of packaging and of the docs share: wheels of all packages, and empty environments."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rigs.wheels import CONSTRAINTS, PACKAGES, TOOLS, UNCOMPILED, gather, only, run
from rigs.wheels import build as build_wheels


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds only what was installed into it."""

    folder: Path
    house: Path

    @classmethod
    def create(cls, folder: Path, house: Path) -> Environment:
        run([sys.executable, "-m", "venv", "--without-pip", folder])
        return cls(folder, house)

    def install(self, *what: str | Path) -> None:
        """From ``house``, or from where it is said to be."""
        self._pip(*what, **only(self.house))

    def fetch(self, *what: str) -> None:
        """From where pip gets everything."""
        self._pip(*what)

    def _pip(self, *what: str | Path, **variables: str) -> None:
        options = ["--python", self.folder / "bin/python", "install", "--quiet", "--constraint", CONSTRAINTS]
        run([sys.executable, "-m", "pip", *options, *what], env=os.environ | UNCOMPILED | variables)

    def run(self, program: str, *arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
        """A program of this environment, without the caller's PYTHONPATH and SKED_ settings, ended by success."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SKED_", "PYTHON"))}
        clean["XDG_STATE_HOME"] = str(self.folder / "state")
        return run([self.folder / "bin" / program, *arguments], cwd=self.folder, env=clean, **options)


def _once(name: str, make: Callable[[Path], None], factory: pytest.TempPathFactory) -> Path:
    """A folder that is made once, also for several pytest-xdist workers."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make(shared / f"{name}.draft")
            (shared / f"{name}.draft").rename(folder)
    return folder


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One wheel for each package of the workspace."""
    folder = _once("wheels", lambda target: build_wheels(target, *PACKAGES), tmp_path_factory)
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def house(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our wheels, and with all that they, and those who write plugins, need: fetched once."""
    return _once("house", lambda target: gather(target, *wheels, *TOOLS), tmp_path_factory)


@pytest.fixture(scope="session")
def environment(house: Path) -> Callable[[Path], Environment]:
    """Makes an Environment in an empty folder."""
    return lambda folder: Environment.create(folder, house)


@pytest.fixture(scope="session")
def build():
    """``build(target, *projects)`` puts a wheel of each project into ``target``."""
    return build_wheels
