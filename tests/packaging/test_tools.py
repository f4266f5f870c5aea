"""Installing with the tools that keep programs apart, from the wheels and without an index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rigs.needs import missing


def run(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240)


@pytest.fixture(scope="module")
def wheelhouse(house: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels that more can be put into."""
    return Path(shutil.copytree(house, tmp_path_factory.mktemp("wheelhouse") / "wheels", copy_function=os.link))


@pytest.fixture
def tool(environment: Callable[[Path], object], tmp_path: Path) -> Callable[[str], Path]:
    """The path of a program that is installed from where pip gets everything, into an environment of its own."""

    def get(name: str) -> Path:
        made = environment(tmp_path / f"{name}-tool")
        try:
            made.fetch(name)  # type: ignore[attr-defined]
        except AssertionError as error:
            missing(name, f"{name} can't be had from where pip gets everything: {str(error)[-200:]}")
        return made.folder / "bin" / name  # type: ignore[attr-defined,no-any-return]

    return get


def check(sked: Path, home: Path) -> None:
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    assert run(sked, "version", env=env).stdout.startswith("sked ")
    rows = {
        row["name"]: row["error"] for row in json.loads(run(sked, "plugins", "-o", "json", env=env).stdout)["items"]
    }
    assert rows == {"core": "", "bash": "", "consul": ""}


def test_uv_tool_install(tool: Callable[[str], Path], wheelhouse: Path, tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "UV_PYTHON_DOWNLOADS": "never"}
    env |= {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    source = ["--no-index", "--find-links", wheelhouse, "--python", sys.executable]
    ran = run(
        tool("uv"), "tool", "install", *source, "sked-core", "--with", "sked-bash", "--with", "sked-consul", env=env
    )
    assert ran.returncode == 0, ran.stderr
    check(tmp_path / "bin" / "sked", tmp_path / "home")


def test_pipx(tool: Callable[[str], Path], wheelhouse: Path, tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    env |= {
        "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
        "PIPX_MAN_DIR": str(tmp_path / "man"),
    }
    # pipx keeps a new pip of its own, which it gets from where the packages come from.
    got = run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheelhouse, "pip")
    assert got.returncode == 0, got.stderr
    pipx, source = tool("pipx"), f"--no-index --find-links {wheelhouse}"
    for command in (["install", "sked-core"], ["inject", "sked-core", "sked-bash", "sked-consul"]):
        ran = run(pipx, command[0], f"--pip-args={source}", *command[1:], env=env)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    check(tmp_path / "bin" / "sked", tmp_path / "home")


def test_pip_without_an_index(environment: Callable[[Path], object], tmp_path: Path) -> None:
    made = environment(tmp_path / "venv")
    made.install("sked-core", "sked-bash", "sked-consul")  # type: ignore[attr-defined]
    check(made.folder / "bin" / "sked", tmp_path / "home")  # type: ignore[attr-defined]
