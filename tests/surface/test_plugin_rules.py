"""``allow``, ``deny`` and ``require``: where they are said, and that every command and process keeps to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rigs.small_plugins import HOOKIMPL, package
from sked_core.client import settings
from sked_core.surface import cli

ROOT = Path(__file__).resolve().parents[2]
GREETER = f"""\
import pathlib

import click
{HOOKIMPL}
with pathlib.Path(__file__).with_suffix(".ran").open("a") as ran:
    ran.write("x")

@hookimpl
def sked_commands(cli):
    cli.add_command(click.Command("greet", callback=lambda: click.echo("hello")))

@hookimpl
def sked_schedulers():
    return {{"greet": object}}
"""
FILE = """\
[plugins]
deny = ["sked-greeter"]
"""


@pytest.fixture
def greeter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A plugin with the command ``greet``; says whether it was imported since it was asked last."""
    module = package(tmp_path, "greeter", GREETER)
    monkeypatch.setattr(cli.cli, "commands", {})
    monkeypatch.syspath_prepend(str(tmp_path))

    def imported() -> bool:
        sys.modules.pop("sked_greeter", None)
        mark = module.with_suffix(".ran")
        there = mark.exists()
        mark.unlink(missing_ok=True)
        return there

    yield imported
    sys.modules.pop("sked_greeter", None)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "sked.toml"
    path.write_text(FILE)
    return str(path)


def row(sked, *args: str) -> dict:
    items = json.loads(sked(*args, "plugins", "-o", "json").out)["items"]
    return next(item for item in items if item["name"] == "greeter")


def test_without_rules_all_that_is_installed_is_used(sked, greeter) -> None:
    assert sked("greet").out == "hello\n"
    cli.cli.commands.clear()  # another process
    assert greeter() and row(sked)["state"] == "ok"


@pytest.mark.parametrize(
    "args", [("greet", "--config", "FILE"), ("greet", "--config=FILE"), ("--config", "FILE", "greet")]
)
def test_a_command_of_a_denied_plugin_is_not_there_wherever_the_file_is_named(sked, greeter, file, args) -> None:
    assert sked(*(one.replace("FILE", file) for one in args)).code == 2
    assert not greeter()


def test_every_command_keeps_to_the_rules(sked, greeter, file, store, manifest) -> None:
    for args in (
        ("plugins",),
        ("plugins", "hooks"),
        ("plugins", "info", "greeter"),
        ("tasks",),
        ("validate", "-f", str(manifest)),
        ("apply", "-f", str(manifest)),
        ("schema",),
        ("doctor",),
        ("policy", "show"),
        ("init", "-"),
        ("explain", "web"),
    ):
        ran = sked("--config", file, *args)
        assert not greeter(), args
        assert "greeter" not in ran.err, args  # what was meant to be missed is not warned of
        sked(*args)
        assert greeter(), args
    found = row(sked, "--config", file)
    assert (found["state"], found["error"]) == ("denied", f"denied by {file}: plugins.deny")
    assert found["provides"] == []


def test_a_shell_that_completes_keeps_to_them_too(greeter, file) -> None:
    from click.testing import CliRunner

    for variables, found in (({"SKED_CONFIG": file}, False), ({}, True)):
        words = {"_SKED_COMPLETE": "bash_complete", "COMP_WORDS": "sked gree", "COMP_CWORD": "1"}
        ran = CliRunner().invoke(cli.cli, prog_name="sked", env=words | variables)
        assert ("plain,greet" in ran.output) is found
        assert greeter() is found


def test_the_nearest_place_that_names_a_rule_counts(sked, greeter, file, monkeypatch, tmp_path) -> None:
    system = tmp_path / "system.toml"
    system.write_text('[plugins]\nallow = ["sked-greeter", "sked-bash"]\ndeny = []\nrequire = ["sked-greeter"]\n')
    monkeypatch.setattr(settings, "SYSTEM_FILE", system)
    monkeypatch.setenv("SKED_PLUGINS_REQUIRE", "sked-bash")
    items = json.loads(sked("--config", file, "config", "show", "-o", "json").out)["items"]
    found = {item["name"]: (item["value"], item["origin"]) for item in items}
    assert found["plugins.deny"] == ("sked-greeter", f"{file}: plugins.deny")
    assert found["plugins.allow"] == ("sked-bash, sked-greeter", f"{system}: plugins.allow")
    assert found["plugins.require"] == ("sked-bash", "SKED_PLUGINS_REQUIRE")
    shown = sked("--config", file, "config", "show", "--origin").out
    assert f"{file}: plugins.deny" in shown and "SKED_PLUGINS_REQUIRE" in shown
    assert row(sked, "--config", file)["state"] == "denied"
    assert row(sked)["state"] == "ok"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('[plugins]\nalow = ["a"]\n', 'plugins.alow: unknown field, did you mean "allow"?'),
        ("[plugins]\nallow = [7]\n", "plugins.allow[0]"),
        ('[plugins]\ndeny = "sked-toy"\n', "plugins.deny"),
        ('[plugins]\ndeny = ["../x"]\n', "plugins.deny[0]"),
        ("plugins = 7\n", "plugins"),
    ],
)
def test_a_mistake_in_the_table_ends_it(sked, greeter, tmp_path, text, mistake) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    ran = sked("--config", str(path), "plugins")
    assert ran.code == 3 and f"{path}:" in ran.err and mistake in ran.err
    assert not greeter()


def test_processes_do_not_start_without_what_is_required(sked, greeter, url, monkeypatch, tmp_path) -> None:
    package(tmp_path, "torn", "raise RuntimeError('no luck')")
    for named, why in (
        (
            "sked-gone",
            "sked-gone is required (SKED_PLUGINS_REQUIRE), but not installed, or no plugin: pip install sked-gone",
        ),
        ("sked-torn", "sked-torn is required (SKED_PLUGINS_REQUIRE), but broken: import: RuntimeError: no luck"),
        ("sked-greeter", "sked-greeter is required (SKED_PLUGINS_REQUIRE), but denied: denied by SKED_PLUGINS_DENY"),
    ):
        monkeypatch.setenv("SKED_PLUGINS_REQUIRE", named)
        monkeypatch.setenv("SKED_PLUGINS_DENY", "sked-greeter")
        for role in ("agent", "scheduler", "combined"):
            ran = sked("--backend", url, "run", role)
            assert ran.code == 3 and why in ran.err, (role, ran)
            assert "install or repair it, or require it no more; see `sked plugins`" in ran.err
        for command in (("tasks",), ("plugins",)):
            ran = sked("--backend", url, *command)
            assert ran.code == 0 and f"warning: {why}" in ran.err


def test_what_the_store_needs_is_refused_as_lacking_before_the_store_is_asked(sked, monkeypatch) -> None:
    monkeypatch.setenv("SKED_PLUGINS_REQUIRE", "sked-paper")
    ran = sked("--backend", "paper://desk", "run", "agent")
    assert ran.code == 3 and "sked-paper is required" in ran.err


def test_a_shadow_scheduler_of_a_denied_plugin_is_not_imported_by_its_process(greeter, tmp_path) -> None:
    """It is given the rules that its scheduler has from a file."""
    from sked_core.runtime.plugins.rules import PluginRules, Rule

    variables = PluginRules(deny=Rule.of(["sked-greeter"], "a file")).environment()
    for given, imported in ((variables, False), ({}, True)):
        subprocess.run(
            [sys.executable, "-m", "sked_core.runtime.scheduling.shadow_process", "greet"],
            env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"} | given,
            input=b"",
            check=True,
            timeout=60,
        )
        assert greeter() is imported


def test_a_plugin_found_by_its_package_or_under_a_name_that_two_claim_is_told_of(sked, greeter, tmp_path) -> None:
    package(tmp_path, "rival", "").with_name("sked_rival-1.0.dist-info").joinpath("entry_points.txt").write_text(
        "[sked]\ngreeter = sked_rival\n"
    )
    items = json.loads(sked("plugins", "info", "greeter", "-o", "json").out)["items"]
    assert [item["package"] for item in items] == ["sked-greeter", "sked-rival"]
    (item,) = json.loads(sked("plugins", "info", "sked-greeter", "-o", "json").out)["items"]
    assert item["hooks"] == ["sked_commands", "sked_schedulers"] and item["module"] == "sked_greeter"
    assert sked("plugins", "info", "greeter").out.count("package:") == 2


def test_the_listing_says_who_has_commands_though_they_have_no_names_there(sked, greeter) -> None:
    (line,) = (line for line in sked("plugins").out.splitlines() if line.startswith("greeter "))
    assert "scheduler greet, commands " in line


def test_hooks_are_listed_with_what_they_are_given_and_who_has_them(sked, greeter) -> None:
    items = {item["hook"]: item for item in json.loads(sked("plugins", "hooks", "-o", "json").out)["items"]}
    assert items["sked_commands"]["arguments"] == ["cli"]
    assert "greeter" in items["sked_commands"]["plugins"] and "greeter" not in items["sked_event"]["plugins"]
    assert "core" in items["sked_schedulers"]["plugins"]
    assert all(item["summary"] for item in items.values())
    shown = sked("plugins", "hooks").out
    assert shown.startswith("hook ") and "sked_event" in shown


def test_a_rule_that_names_nothing_here_is_told_with_what_was_meant(sked, greeter, monkeypatch) -> None:
    monkeypatch.setenv("SKED_PLUGINS_DENY", "sked-greter,greeter,sked-elsewhere,sked-bash")
    said = "warning: SKED_PLUGINS_DENY names"
    told = [line for line in sked("plugins").err.splitlines() if line.startswith(said)]
    assert told == [
        f'{said} greeter, which is no package of a plugin here, did you mean "sked-greeter"?',
        f"{said} sked-elsewhere, which is no package of a plugin here",
        f'{said} sked-greter, which is no package of a plugin here, did you mean "sked-greeter"?',
    ]
    doctor = sked("doctor").out
    assert "names sked-greter, which is no package" in doctor and "sked-elsewhere" not in doctor


def test_what_a_plugin_does_at_the_end_of_a_process_keeps_no_command_from_ending(tmp_path, url) -> None:
    package(tmp_path, "lasts", "import atexit, threading\natexit.register(threading.Event().wait)\n")
    script = (
        "from sked_core.surface import cli, stragglers\nstragglers.END_SECONDS = 0.5\ncli.main(['tasks', '-o', 'json'])"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "SKED_BACKEND": url}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60, check=True)
    assert json.loads(ran.stdout)["items"] == []
    assert b"what plugins left to do took more than 0.5 s: ended without it" in ran.stderr


@pytest.mark.parametrize("closed", ["", "2>&-"])
def test_what_a_command_said_before_it_failed_is_not_lost_with_what_plugins_do_at_the_end(
    tmp_path, url, closed
) -> None:
    source = (
        "import atexit, threading\nfrom sked_core.plugin import hookimpl, InvalidValue\n"
        "atexit.register(threading.Event().wait)\n"
        "@hookimpl\ndef sked_commands(cli):\n    @cli.command()\n    def half():\n"
        "        print('one')\n        raise InvalidValue('no two')\n"
    )
    package(tmp_path, "halves", source)
    script = "from sked_core.surface import cli, stragglers\nstragglers.END_SECONDS = 0.5\ncli.main(['half'])"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "SKED_BACKEND": url}
    command = f'exec "$0" -c "$1" {closed}'
    ran = subprocess.run(
        ["sh", "-c", command, sys.executable, script], env=environment, capture_output=True, timeout=60
    )
    assert (ran.stdout, ran.returncode) == (b"one\n", 2)
    assert closed or (b"no two" in ran.stderr and b"ended without it" in ran.stderr)


def test_a_thread_that_a_plugin_leaves_does_not_keep_a_command_from_ending(tmp_path, url) -> None:
    package(tmp_path, "leaks", "import threading\nthreading.Thread(target=threading.Event().wait).start()\n")
    command = [sys.executable, "-m", "sked_core.surface.cli", "--backend", url, "tasks", "-o", "json"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ran = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    assert json.loads(ran.stdout)["items"] == []
