"""What the doors have in common: a canary that must not sing, and a note of what came of each case."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.corpus import Case
from sked_core.runtime.plugins import Plugins

SECRET = "canary-of-the-secrets-8f2a"


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
        patch.setattr(Plugins, "load", classmethod(lambda cls: found))
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
