"""Wheels: of the packages of the workspace, and of all that these need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
CONSTRAINTS = ROOT / "constraints.txt"
TOOLS = ("hatchling", "editables", "pytest", "hypothesis", "mypy", "ruff")
"""What plugins are built, tried and checked with, by the `pyproject.toml` that `sked plugins new` writes."""


def run(command: list[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs it to its end; a failure shows all that it said."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, **options)
    assert ran.returncode == 0, f"{command} ended with {ran.returncode}:\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    return ran


def build(target: Path, *projects: Path) -> None:
    """Wheels of ``projects`` alone, built by the hatchling that is installed: nothing is fetched."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", target]
    run([sys.executable, "-m", "pip", "wheel", *options, *projects])


def gather(target: Path, *what: str | Path) -> None:
    """Wheels of ``what`` and of all that it needs, from where pip gets everything."""
    options = ["--quiet", "--no-build-isolation", "--constraint", CONSTRAINTS, "--wheel-dir", target]
    run([sys.executable, "-m", "pip", "wheel", *options, *what])


def only(house: Path) -> dict[str, str]:
    """Variables that have pip take what is in ``house``, and nothing else."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(house), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


# Most of what is installed is never imported, and to compile all of it takes longer than the rest. Of options that
# begin with "no" pip has it the other way round.
UNCOMPILED = {"PIP_NO_COMPILE": "0"}
