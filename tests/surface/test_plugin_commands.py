"""Commands that plugins add."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from sked_core.runtime.plugins import Plugins
from sked_core.surface import cli

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
        monkeypatch.setattr(Plugins, "load", classmethod(lambda cls: cls(found)))

    return write


def test_a_command_of_a_plugin_is_found(sked, install) -> None:
    install("greeter", PLUGIN.replace("TAKE_TASKS", "False"))
    ran = sked("greet", "world")
    assert (ran.code, ran.out) == (0, "hello world\n")
    assert sked("salute", "you").out == "hello you\n"
    assert sked("gret").code == 2


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
