"""The page as people see it: a live cluster of five agents on a Consul of its own, and a headless Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from rigs.browser import Fleet, Looker, Site, chromium_at, shop
from rigs.consul import PrivateConsul
from rigs.sked import Rig


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with chromium_at(chromium) as one:
        yield one


@pytest.fixture(scope="module")
def consul_of_fleet(
    chromium: str, consul_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateConsul]:
    consul = PrivateConsul(consul_binary, tmp_path_factory.mktemp("consul"), {})
    consul.start()
    yield consul
    consul.kill()


@pytest.fixture(scope="module")
def fleet(consul_of_fleet: PrivateConsul, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Five hosts with the services of ``shop``; the tests of one file share it."""
    rig = Rig(consul_of_fleet.url, tmp_path_factory.mktemp("fleet"))
    made = None
    try:
        made = Fleet(rig)
        rig.apply(shop())
        rig.until("web and api", lambda: sum(task["healthy"] for task in rig.items()) >= 7)
        yield made
    finally:
        made.end() if made else rig.clean_up()


@pytest.fixture(scope="module")
def site(fleet: Fleet) -> Site:
    return Site(fleet.rig)


@pytest.fixture
def look(browser: Browser, site: Site) -> Iterator[Callable[..., Looker]]:
    """``look()`` opens a window, with the options of Playwright's ``new_context``. At the end none of them may have
    met an error."""
    opened: list[Looker] = []

    def make(*, url: str = "", **options: object) -> Looker:
        sizes = {"viewport": {"width": 1280, "height": 800}}
        opened.append(Looker(browser.new_context(**(sizes | options)), url or site.url))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    wrong = [line for one in opened for line in one.wrong]
    for one in opened:
        one.close()
    assert not wrong, "\n".join(wrong)
