"""Watching: what changes, as rows on a pipe, in place on a terminal, and through outages of the store."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from sked_core.client.looking.listing import HostRow, host_rows
from sked_core.client.session import Session, open_session
from sked_core.client.settings import resolve
from sked_core.errors import Unavailable
from sked_core.interfaces.store import Delete, Put, Snapshot, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Mark
from sked_core.runtime.state import marker
from sked_core.surface.commands.listing import HOSTS
from sked_core.surface.watching import watch

DEADLINE = 60.0


class Watched:
    """A command that goes on, and what it has written so far."""

    def __init__(self, args: tuple[str, ...], output: int | None, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sked_core.surface.cli", *args],
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
        )
        self._text = {"out": b"", "err": b""}
        streams = {"err": self._process.stderr.fileno()}
        if output is None:
            streams["out"] = self._process.stdout.fileno()
        for name, number in streams.items():
            threading.Thread(target=self.take, args=(name, number), daemon=True).start()

    def take(self, name: str, number: int) -> None:
        while True:
            try:
                data = os.read(number, 65536)
            except OSError:  # a terminal whose other end is closed
                return
            if not data:
                return
            self._text[name] += data

    def text(self, name: str = "out") -> str:
        return self._text[name].decode()

    def until(self, seen: Callable[[str], bool], name: str = "out") -> str:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if seen(self.text(name)):
                return self.text(name)
            assert self._process.poll() is None, self.text("err")
            time.sleep(0.02)
        raise AssertionError(f"never seen; {name}: {self.text(name)[-2000:]!r}; err: {self.text('err')!r}")

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(DEADLINE)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def watched() -> Iterator[Callable[..., Watched]]:
    """``watched("tasks", "-w")``: on a pipe. ``terminal=True``: on a terminal of 100 columns and 30 lines."""
    started: list[Watched] = []
    ends: list[int] = []

    def start(*args: str, terminal: bool = False) -> Watched:
        environment = {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if not terminal:
            one = Watched(args, None, environment)
        else:
            ours, theirs = pty.openpty()
            termios.tcsetwinsize(theirs, (30, 100))
            one = Watched(args, theirs, environment)
            os.close(theirs)
            ends.append(ours)
            threading.Thread(target=one.take, args=("out", ours), daemon=True).start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.close()
    for number in ends:
        os.close(number)


def test_on_a_pipe_the_first_look_is_whole_and_then_only_rows_that_changed(watched, store, issue, task) -> None:
    issue(task(service="web"), healthy=False)
    issue(task(service="web", instance=1), healthy=True)
    found = watched("tasks", "-w")
    whole = found.until(lambda text: text.count("\n") == 4).splitlines()
    assert [line.split()[0] for line in whole if line[0] != "-"] == ["id", "default-web-4-0", "default-web-4-1"]
    said = {"healthy": True, "output": "", "cluster": "default", "service": "web"}
    store.commit([Put(keys.health(task().host, task(service="web").id), encode(said))])
    changed = found.until(lambda text: text.count("\n") == 5).splitlines()[-1]
    assert changed == whole[2].replace("false       ", "true        ").replace("true        ", "false       ", 1)
    new = task(service="web", instance=2)
    issue(new, healthy=True)
    store.commit([marker("web", "test")])
    found.until(lambda text: "default-web-4-2" in text)
    store.commit([Delete(keys.task(new.id)), Delete(keys.host_task(new.host, new.id)), marker("web", "test")])
    found.until(lambda text: text.endswith("task/default-web-4-2 is gone\n"))
    assert found.interrupt() == 130


def test_programs_get_a_line_for_each_change_and_names_pipe_on(watched, store, up) -> None:
    up(h1=1000, h2=1000)
    lines, names = watched("hosts", "-w", "-o", "jsonl"), watched("hosts", "-w", "-o", "name")
    first = lines.until(lambda text: text.count("\n") == 2).splitlines()
    assert [json.loads(line)["name"] for line in first] == ["h1", "h2"]
    names.until(lambda text: text == "host/h1\nhost/h2\n")
    store.commit([Put(keys.mark("h2"), encode(Mark("cordoned")))])
    assert json.loads(lines.until(lambda text: text.count("\n") == 3).splitlines()[-1])["state"] == "cordoned"
    store.commit([Delete(keys.host("h1"))])
    assert json.loads(lines.until(lambda text: text.count("\n") == 4).splitlines()[-1]) == {"gone": "host/h1"}


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_document_can_not_be_watched(sked, store, output) -> None:
    for command in ("tasks", "services", "clusters", "hosts", "status", "events"):
        ran = sked(command, "-w", "-o", output)
        assert (ran.code, "-o jsonl" in ran.err) == (2, True), command


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("status",), "hosts:       2: 1 ready, 1 cordoned (h2)"),
        (("describe", "host/h2"), "  mark        cordoned by somebody "),
        (("explain", "web"), "cordoned"),
        (("top",), "h2       cordoned"),
    ],
)
def test_what_is_not_a_listing_is_watched_line_by_line(watched, store, up, running, command, line) -> None:
    up(h1=1000, h2=1000)
    running("web", "h1", memory=300)
    found = watched(*command, "-w")
    before = found.until(lambda text: "web" in text or "h2" in text)
    assert line not in before
    store.commit([Put(keys.mark("h2"), encode(Mark("cordoned")))])
    found.until(lambda text: line in text)
    assert found.interrupt() == 130


def test_what_was_decided_is_not_watched(sked, up, running) -> None:
    up(h1=1000)
    running("web", "h1", memory=300)
    assert sked("explain", "web", "-w", "--history").code == 2


def test_on_a_terminal_it_is_drawn_anew_in_place_and_in_order(watched, store, issue, task) -> None:
    for instance in (0, 2):
        issue(task(service="web", instance=instance), healthy=True)
    found = watched("tasks", "-w", terminal=True)
    found.until(lambda text: "default-web-4-2" in text)
    issue(task(service="web", instance=1), healthy=True)
    store.commit([marker("web", "test")])
    text = found.until(lambda text: "default-web-4-1" in text and text.rstrip().count("default-web-4-2") == 2)
    last = text[text.rindex("\x1b[") :]
    assert [line.split()[0] for line in last.splitlines()[1:]] == [f"default-web-4-{n}" for n in (0, 1, 2)]
    assert found.interrupt() == 130


class Unsteady:
    """The store, or none while ``away``."""

    def __init__(self, store: Store) -> None:
        self._store, self.away = store, False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def read(self, prefix: str) -> Snapshot:
        if self.away:
            raise Unavailable("the store is away")
        return self._store.read(prefix)


def test_an_outage_is_told_once_and_outlasted(store, url, up, capsys) -> None:
    up(h1=1000)
    looks: list[list[str]] = []

    def rows(seen: Session) -> list[HostRow]:
        found = host_rows(seen)
        looks.append([row.state for row in found])
        if len(looks) == 1:
            unsteady.away = True
            store.commit([Put(keys.mark("h1"), encode(Mark("draining")))])
        elif len(looks) == 2:
            unsteady.away = False
        elif looks[-1] == ["draining"]:
            raise KeyboardInterrupt
        return found

    with open_session(resolve(backend=url), "test") as sked:
        unsteady = Unsteady(sked.store)
        with pytest.raises(KeyboardInterrupt):
            watch(replace(sked, store=unsteady), HOSTS, rows, "table")
    assert looks[:2] == [["ready"], ["ready"]]
    assert capsys.readouterr().err.splitlines() == [
        "sked: the store is away; trying again",
        "sked: the store answers again",
    ]
