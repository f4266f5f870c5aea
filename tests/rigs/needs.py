"""Programs and services that a test may have to do without."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]


def missing(what: str, reason: str) -> NoReturn:
    """Skip the test that calls, or fail it where SKED_TEST_REQUIRE names ``what``."""
    if what in os.environ.get("SKED_TEST_REQUIRE", "").split(","):
        pytest.fail(f"SKED_TEST_REQUIRE names {what}, but {reason}")
    pytest.skip(reason)


def services_env() -> dict[str, str]:
    """What ``scripts/services`` wrote down, overridden by the environment."""
    with contextlib.suppress(FileNotFoundError):
        lines = (ROOT / ".services" / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines) | dict(os.environ)
    return dict(os.environ)


def program(name: str, package: str = "") -> str:
    """The path of a program. ``package``: of Debian, which has it, if that has another name.
    One that ``scripts/services`` keeps to itself is found where that wrote it down."""
    found = shutil.which(name) or services_env().get(name.upper())
    return found or missing(name, f"there is no {name} program: apt-get install {package or name}")
