"""Programs that a test may have to do without."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str, reason: str) -> NoReturn:
    """Skip the test that calls, or fail it where SKED_TEST_REQUIRE names ``what``."""
    if what in os.environ.get("SKED_TEST_REQUIRE", "").split(","):
        pytest.fail(f"SKED_TEST_REQUIRE names {what}, but {reason}")
    pytest.skip(reason)


def program(name: str, package: str = "") -> str:
    """The path of a program. ``package``: of Debian, which has it, if that has another name."""
    found = shutil.which(name)
    return found or missing(name, f"there is no {name} program: apt-get install {package or name}")
