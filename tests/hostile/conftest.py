"""What the doors have in common: a canary that must not sing, and a note of what came of each case."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from hostile.corpus import Case
from sked_core.runtime.plugins.registry import Plugins

SECRET = "canary-of-the-secrets-8f2a"


_asked: list[str] = []
"""Whom this process has asked for anything since the last look, or whose address."""


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        _asked.append(str(arguments[1]))
    elif event == "socket.getaddrinfo" and not _is_address(str(arguments[0])):
        _asked.append(str(arguments[0]))


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host.partition("%")[0]))
    except ValueError:
        return False


sys.addaudithook(_hear)


class Notes:
    """What came of each case at a door, for scripts/hostile-table. Written only where SKED_HOSTILE_NOTES names a
    folder."""

    def __init__(self, door: str) -> None:
        self._door, self._said = door, list[dict[str, str]]()

    def add(self, case: Case, outcome: str) -> None:
        """``outcome``: refused, isolated, denied (by a gate), normalised."""
        self._said.append({"case": case.name, "category": case.category, "door": self._door, "outcome": outcome})

    def write(self) -> None:
        folder = os.environ.get("SKED_HOSTILE_NOTES")
        if folder and self._said:
            worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
            with (Path(folder) / f"{worker}.jsonl").open("a") as file:
                file.writelines(json.dumps(one) + "\n" for one in self._said)


@pytest.fixture(scope="module")
def notes(request: pytest.FixtureRequest) -> Iterator[Notes]:
    found = Notes(request.module.DOOR)
    yield found
    found.write()


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """Plugins are found once instead of for each of hundreds of commands."""
    found = Plugins.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plugins, "load", classmethod(lambda cls, _rules=None: found))
        yield


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What writes a file by a name that it was given does so here, and is noticed; the environment holds a secret."""
    folder = tmp_path / "canary"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def asked_on_purpose() -> str:
    """The address of the server that the test itself asks, as Python writes it."""
    return ""


@pytest.fixture
def nobody_is_asked(asked_on_purpose: str) -> Iterator[None]:
    """No server that the input names is asked, wherever it is, and no resolver for the address of one."""
    _asked.clear()
    yield
    assert [one for one in _asked if one != asked_on_purpose] == []
