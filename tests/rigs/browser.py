"""A cluster of five hosts with a page, and a browser that looks at it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from rigs.local import free_ports
from rigs.sked import SKED, Proc, Rig

ZONES = {"web-1": "a", "web-2": "a", "web-3": "b", "db-1": "b", "db-2": "c"}
PATIENCE_MS = 60_000
LIFETIME = 1800
"""Seconds after which a task ends by itself: nothing is left behind even where a test is killed."""
SIZES = ("--memory", "4g", "--cpu", "4", "--disk", "20g")


class Site:
    """``sked web`` as a process, which can be killed and started again on its port."""

    def __init__(self, rig: Rig, *options: str, tls: bool = False) -> None:
        self.rig, self._options = rig, options
        self.port = free_ports(1)[0]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.proc: Proc | None = None
        self.start()

    def start(self) -> None:
        command = [str(SKED), "web", "--listen", f"127.0.0.1:{self.port}", *self._options]
        self.proc = Proc(command, self.rig.folder / f"web-{self.port}.log", self.rig.env)
        self.rig.procs.append(self.proc)
        self.rig.until("a page", self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def kill(self) -> None:
        assert self.proc is not None
        self.proc.kill()


class Fleet:
    """Five agents and a scheduler on one store. Hosts have the plain names of ``ZONES``, so that pictures in the docs
    are the same each time: use a store of its own."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        rig.host = lambda name: name  # type: ignore[method-assign]
        rig.mark = rig.folder.name
        self.agents = {name: self.agent(name) for name in ZONES}
        rig.run("scheduler")
        rig.hosts_ready(len(ZONES))

    def agent(self, name: str) -> Proc:
        number = list(ZONES).index(name) + 1
        # Ports of a range of its own, away from those that other tests on this machine are given.
        low = 21000 + (os.getpid() % 7) * 1000 + number * 100
        ports = ("--port-range", f"{low}-{low + 99}")
        own = ("--address", f"10.0.0.{number}", "--tag", f"zone={ZONES[name]}", *SIZES, *ports)
        return self.rig.run("agent", *own, host=name)

    def end(self) -> None:
        """Stop all tasks, then the processes."""
        with contextlib.suppress(AssertionError):
            for cluster in self.rig.items("clusters"):
                self.rig.sked("delete", f"cluster/{cluster['name']}", "-y")
            deadline = time.monotonic() + 30
            while self.rig.items() and time.monotonic() < deadline:
                time.sleep(0.2)
        self.rig.clean_up()


def container(name: str, start: str = f"exec sleep {LIFETIME}", **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "type": "bash", "executor": {"start": start}, **more}]


def web(version: int = 1, *, port: bool = True, start: str = "", **more: Any) -> dict[str, Any]:
    """A definition of a small HTTP server, checked each second."""
    serve = (
        start or f"echo version {version} of web; exec timeout {LIFETIME} python3 -m http.server --bind 127.0.0.1 $PORT"
    )
    check = {"http": "http://127.0.0.1:$PROVIDED_PORT/", "interval": "1s"}
    return {
        "name": "web",
        "version": version,
        "provide_port": port,
        "memory": 300,
        "cpu_units": 200,
        "containers": container("web", serve, checks=[check]),
        **more,
    }


def shop() -> dict[str, Any]:
    """What is declared at first: one service that is well, one that logs, one with nowhere to go."""
    names = ["web", "api", "worker"]
    chatty = f"for i in $(seq {LIFETIME}); do echo request $i; sleep 1; done"
    return {
        "clusters": [{"name": "default", "services": names}],
        "services": [
            {"name": "web", "task_name": "web", "task_version": 1, "desired": 4},
            {"name": "api", "task_name": "api", "task_version": 1, "desired": 3},
            {"name": "worker", "task_name": "worker", "task_version": 1, "desired": 2,
             "placement": {"require": ["zone in b, c"]}},
        ],
        "task_definitions": [
            web(),
            {"name": "api", "version": 1, "memory": 800, "cpu_units": 500, "containers": container("api", chatty)},
            {"name": "worker", "version": 1, "memory": 3600, "containers": container("worker")},
        ],
    }  # fmt: skip


class Looker:
    """A browser window that remembers what went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url, self.context = url, context
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.wrong: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in self.expected):
            self.wrong.append(f"{message.type}: {message.text}")

    def go(self, path: str, *, live: bool = False) -> Page:
        """Open a page of the site; ``live``: and wait until it is kept up to date."""
        self.page.goto(self.url + path)
        if live:
            self.live()
        return self.page

    def live(self) -> None:
        self.until("document.documentElement.dataset.live === 'ok'")

    def until(self, expression: str) -> None:
        """Wait until JavaScript says so. Playwright's own way to wait evaluates text inside of the page, which the
        page's policy forbids."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(expression):
            if time.monotonic() > deadline:
                said = self.page.locator("body").inner_text()
                raise AssertionError(f"never: {expression}\n{said}\n{self.wrong}")
            self.page.wait_for_timeout(50)

    def sees(self, selector: str, text: str) -> None:
        """Wait until something that matches holds the text."""
        self.page.locator(selector, has_text=text).first.wait_for()

    def barriers(self, axe: str) -> list[str]:
        """What axe-core finds on the page as it is."""
        # The page's own policy lets no script in but its own: this one comes by the debugger.
        self.page.evaluate(f"() => {{ if (!window.axe) {{ {axe} }} }}")
        found = self.page.evaluate(
            "() => axe.run(document, {resultTypes: ['violations']}).then(all => all.violations.map(one =>"
            " one.id + ': ' + one.nodes.map(node => node.target + ' ' + node.failureSummary).join(' | ')))"
        )
        assert isinstance(found, list)
        return found

    def close(self) -> None:
        self.context.close()


@contextlib.contextmanager
def chromium_at(path: str) -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def picture(page: Page, name: str) -> None:
    """A picture for the docs, where ``SKED_PICTURES`` asks for them: tests leave the tree as it was."""
    if os.environ.get("SKED_PICTURES"):
        folder = Path(__file__).resolve().parents[2] / "docs" / "images"
        folder.mkdir(exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", animations="disabled")


def tokens_file(folder: Path, **roles: str) -> tuple[Path, dict[str, str]]:
    """A file with a token for each name, and those tokens."""
    tokens = {name: f"{name}-{'0123456789abcdef' * 2}" for name in roles}
    path = folder / "tokens"
    path.write_text("".join(f"{name} {role} {tokens[name]}\n" for name, role in roles.items()))
    path.chmod(0o600)
    return path, tokens
