"""Sessions on stores of a test's own, each kind of store in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rigs.local import Server
from sked_core.client.session import Session, open_session
from sked_core.client.settings import ConfigFile, Setting, Settings


def settings_of(url: str) -> Settings:
    return Settings(Setting(url), Setting(""), ConfigFile())


@pytest.fixture
def open_at() -> Iterator[Callable[[str], Session]]:
    """Opens a session at the URL of a store."""
    opened = []

    def at(url: str) -> Session:
        opened.append(open_session(settings_of(url), "somebody"))
        return opened[-1].__enter__()

    yield at
    for each in opened:
        each.__exit__(None, None, None)


@pytest.fixture
def sked(tmp_path: Path, open_at: Callable[[str], Session]) -> Session:
    return open_at(f"sqlite://{tmp_path / 'sked.db'}")


@pytest.fixture(params=["sqlite", "consul", "etcd"])
def any_sked(request: pytest.FixtureRequest, tmp_path: Path, open_at: Callable[[str], Session]) -> Session:
    """A session on an empty store of each kind."""
    if request.param == "sqlite":
        return open_at(f"sqlite://{tmp_path / 'sked.db'}")
    engine: Server = request.getfixturevalue(f"private_{request.param}")()
    return open_at(engine.url)  # type: ignore[attr-defined]
