"""Commands that plugins add, and events that they are told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Host
from sked_core.runtime.plugins.registry import Plugins
from sked_core.surface import cli
from sked_core.testing.builders import a_task
from sked_core.testing.commands import FakeInvocation

PLUGIN = """
import click
from sked_core.plugin import hookimpl

@click.command("greet")
@click.argument("name")
def greet(name):
    click.echo(f"hello {name}")

@hookimpl
def sked_commands(cli):
    cli.add_command(greet)
    cli.add_command(greet, "tasks" if TAKE_TASKS else "salute")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Have one plugin installed, of which nothing is left afterwards."""
    monkeypatch.setattr(cli.cli, "commands", {})
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        found = [EntryPoint(name=name, value=name, group="sked")]
        monkeypatch.setattr(Plugins, "load", classmethod(lambda cls, _rules=None: cls(found)))

    return write


def test_a_command_of_a_plugin_is_found(sked, install) -> None:
    install("greeter", PLUGIN.replace("TAKE_TASKS", "False"))
    ran = sked("greet", "world")
    assert (ran.code, ran.out) == (0, "hello world\n")
    assert sked("salute", "you").out == "hello you\n"
    assert sked("gret").code == 2


FAILS = """
import click
from sked_core.plugin import NotFound, hookimpl

@click.command("fails")
@click.option("--meant", is_flag=True)
def fails(meant):
    raise NotFound("no such thing") if meant else ValueError("a bug")

@hookimpl
def sked_commands(cli):
    cli.add_command(fails)
"""


def test_a_bug_in_a_command_of_a_plugin_is_said_to_be_the_plugins(sked, install) -> None:
    install("unlucky", FAILS)
    ran = sked("fails")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "sked: command fails of unlucky failed: ValueError: a bug\n  for the traceback: SKED_DEBUG=1 sked …\n"
    )
    ran = sked("fails", "--meant")
    assert (ran.code, ran.err) == (4, "sked: no such thing\n")


LISTS_HOSTS = """
import click
from sked_core.plugin import Invocation, hookimpl

@click.command("machines")
@click.pass_obj
def machines(sked: Invocation):
    with sked.store() as store:
        click.echo(" ".join(sorted(store.read("config/hosts/").entries)))

@hookimpl
def sked_commands(cli):
    cli.add_command(machines)
"""


def test_a_command_of_a_plugin_gets_at_the_store_that_is_chosen(
    sked, install, store, url, declare, monkeypatch
) -> None:
    install("lister", LISTS_HOSTS)
    declare(Host(name="h-1"), Host(name="h-2"))
    assert sked("machines").out == "config/hosts/h-1 config/hosts/h-2\n"
    monkeypatch.delenv("SKED_BACKEND")
    assert sked("machines").out == "\n", "the store of this user, which is empty"
    assert sked("--backend", url, "machines").out == "config/hosts/h-1 config/hosts/h-2\n"
    ran = sked("--backend", "consul://127.0.0.1:1", "machines")
    assert (ran.code, ran.out) == (1, ""), "its plugin is not installed here"
    assert "sked-consul" in ran.err


def test_a_plugin_can_not_take_the_name_of_a_command_of_sked(sked, install, store) -> None:
    install("taker", PLUGIN.replace("TAKE_TASKS", "True"))
    assert sked("tasks").out.startswith("id ")
    rows = {row["name"]: row for row in json.loads(sked("plugins", "-o", "json").out)["items"]}
    assert "command tasks is one of Sked's own" in rows["taker"]["error"]
    assert rows["core"]["error"] == ""


def test_a_broken_plugin_is_a_row_and_hurts_nobody_else(sked, install, store) -> None:
    install("broken", "raise RuntimeError('no luck')")
    assert sked("tasks").code == 0
    ran = sked("plugins")
    assert ran.code == 0
    assert "no luck" in ran.out
    assert sked("greet", "x").code == 2


def test_a_plugin_that_fails_to_take_an_event_hurts_no_command(sked, install, store, declare) -> None:
    install("deaf", "from sked_core.plugin import hookimpl\n@hookimpl\ndef sked_event(event):\n    raise SystemExit(3)")
    declare(Host(name="h-1"), Host(name="h-2"))
    assert sked("cordon", "h-1", "h-2").code == 0
    assert len(store.read(keys.MARKS).entries) == 2


LISTENER = """
from pathlib import Path
from sked_core.plugin import Event, hookimpl

@hookimpl
def sked_event(event: Event):
    with Path(__file__).with_name("heard").open("a") as heard:
        print(event.who.split()[0].split("@")[0], event.what, event.subject, file=heard)
"""


def test_plugins_hear_the_events_of_commands_and_of_schedulers(store, url, declare, manifest, tmp_path) -> None:
    (tmp_path / "listener.py").write_text(LISTENER)
    info = tmp_path / "listener-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: listener\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sked]\nlistener = listener\n")
    declare(Host(name="h-1", memory=1000, cpu_units=1024, executors=["bash"]))
    store.commit([Put(keys.live("h-1"), b'{"agent": "a"}')])
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "sked_core.surface.cli", "--backend", url]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{root}", "SUDO_USER": "alice"}
    subprocess.run([*command, "apply", "-f", str(manifest)], env=environment, check=True, timeout=60)
    heard = tmp_path / "heard"
    assert "alice service.applied service/web" in heard.read_text().splitlines()
    with subprocess.Popen([*command, "run", "scheduler"], env=environment, stderr=subprocess.DEVNULL) as scheduler:
        deadline = time.monotonic() + 30
        while "scheduler task.issued task/default-web-1-1" not in heard.read_text().splitlines():
            assert time.monotonic() < deadline, heard.read_text()
            time.sleep(0.05)
        scheduler.terminate()
    assert scheduler.returncode == 0


def test_what_a_package_of_this_project_adds_stands_in_the_help_and_its_lack_is_named(sked, install) -> None:
    install("greeter", PLUGIN.replace("TAKE_TASKS", "False"))
    assert re.search(r"  web +Serve the API, and the page in a browser. \(sked-web\)", sked("--help").out)
    ran = sked("web")
    assert (ran.code, "the package sked-web brings it" in ran.err) == (2, True)


READER = """
import click
from sked_core.plugin import Put, hookimpl

@click.group("reader")
def reader():
    pass

@reader.command("all")
@click.pass_obj
def all_(sked):
    with sked.reading() as seen:
        for one in seen.tasks():
            click.echo(f"{one.task.id} {one.healthy} {one.health is not None} {one.why}")
        for one in seen.hosts():
            click.echo(f"{one.host.name} {one.state}")
        click.echo([one.name for one in seen.services()])
        click.echo([one.name for one in seen.clusters()])

@reader.command("twice")
@click.pass_obj
def twice(sked):
    with sked.store() as store, sked.reading() as reading:
        looks = reading.looks()
        click.echo(len(next(looks).hosts()))
        store.commit([Put("config/hosts/h-2", b'{"name": "h-2"}')])
        click.echo(next(len(seen.hosts()) for seen in looks if len(seen.hosts()) != 1 and not seen.stale))

@hookimpl
def sked_commands(cli):
    cli.add_command(reader)
"""


def test_a_command_of_a_plugin_reads_the_store_that_was_chosen(sked, install, running, up, store) -> None:
    install("reader", READER)
    up(h1=1000)
    running("web", "h1", "h2")
    ran = sked("reader", "all")
    assert ran.out.splitlines() == [
        "of-web-web-1-0 True True ",
        "of-web-web-1-1 True True ",
        "h1 ready",
        "['web']",
        "['of-web']",
    ]


def test_a_command_of_a_plugin_takes_the_global_options_behind_its_name(sked, install, up, tmp_path) -> None:
    install("reader", READER)
    up(h1=1000)
    assert "h1 ready" in sked("reader", "all").out
    elsewhere = f"sqlite://{tmp_path / 'other.db'}"
    for ran in (sked("reader", "all", "--backend", elsewhere), sked("--backend", elsewhere, "reader", "all")):
        assert (ran.code, ran.out) == (0, "[]\n[]\n")
    assert "no storage" in sked("reader", "all", "--backend", "nowhere://x").err


def test_a_command_of_a_plugin_sees_changes(sked, install, up) -> None:
    install("reader", READER)
    up(h1=1000)
    assert sked("reader", "twice").out.splitlines() == ["1", "2"]


def test_a_command_that_is_called_alone_reads_what_its_test_has_written() -> None:
    fake = FakeInvocation()
    with fake.store() as store, fake.reading() as seen:
        task = a_task("h1", service="web")
        store.commit([Put(keys.task(task.id), encode(task))])
        assert [(one.task.id, one.healthy) for one in seen.tasks()] == [(task.id, False)]
