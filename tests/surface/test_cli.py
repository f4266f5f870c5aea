"""The command line itself: global options, exit codes, messages, and what it costs to start."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from sked_core import errors
from sked_core.client import session as client_session
from sked_core.client.outcomes import Ended
from sked_core.surface import cli
from sked_core.surface.errors import report


def test_global_options_stand_before_or_behind_the_command(sked, tmp_path, issue, task, url, monkeypatch) -> None:
    issue(task(), healthy=True)
    monkeypatch.setenv("SKED_BACKEND", "nonsense")
    expected = "default-helloworld-4-0"
    assert expected in sked("--backend", url, "tasks").out
    assert expected in sked("tasks", "--backend", url).out
    assert expected in sked("--backend", "worse", "tasks", "--backend", url).out
    assert sked("tasks").code == 2


def test_prefix_keeps_stores_apart(sked, store, manifest) -> None:
    assert sked("--prefix", "team-a", "apply", "-f", str(manifest)).code == 0
    assert "web" in sked("services", "--prefix", "team-a").out
    assert "web" not in sked("services").out
    assert "team-a/config/services/web" in store.read("team-a/").entries


def test_an_unreachable_store_exits_6_and_tells_where_it_was_named(sked) -> None:
    ran = sked("tasks", "--backend", "consul://127.0.0.1:1")
    assert (ran.code, ran.out) == (6, "")
    lines = ran.err.splitlines()
    assert lines[0].startswith("sked: cannot reach Consul at http://127.0.0.1:1 (")
    assert lines[1:] == [
        "  from: --backend consul://127.0.0.1:1",
        "  start one:       consul agent -dev",
        "  or try without:  sked run combined",
    ]


def test_a_store_of_a_kind_that_nobody_provides(sked) -> None:
    ran = sked("tasks", "--backend", "zookeeper://127.0.0.1")
    assert ran.code == 1
    assert "from: --backend zookeeper://127.0.0.1" in ran.err
    assert "pip install" in ran.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["taks"], 'no command "taks", did you mean "tasks"?'),
        (["tasks", "--bakend", "x"], "--backend"),
        (["tasks", "-o", "xml"], "xml"),
        (["tasks", "extra"], "extra"),
        (["apply"], "--file"),
        (["plugins", "new", "x"], "Choose from:\n  executor,\n  scheduler,\n"),
        (["drain"], "HOST"),
        (["apply", "-f", "x", "--timeout", "soon"], "expected a duration"),
        (["run", "everything"], "everything"),
        ([], "Usage: sked"),
        (["run"], "Usage: sked run"),
    ],
)
def test_wrong_usage_exits_2_on_stderr(sked, args, said) -> None:
    ran = sked(*args)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize(("name", "value"), [("backend", "here"), ("backend", "sqlite://here"), ("prefix", "a//b")])
def test_of_a_store_that_can_not_be_it_is_said_who_named_it(sked, monkeypatch, tmp_path, name, value) -> None:
    (tmp_path / "c.toml").write_text(f'{name} = "{value}"\n')
    ran = sked("tasks", "--config", str(tmp_path / "c.toml"))
    assert ran.code == 2 and f"\n  from: {tmp_path}/c.toml: {name} = {value}\n" in ran.err
    assert f"\n  from: --{name} {value}\n" in sked("tasks", f"--{name}", value).err
    monkeypatch.setenv(f"SKED_{name.upper()}", value)
    assert f"\n  from: SKED_{name.upper()}={value}\n" in sked("tasks").err


@pytest.mark.parametrize("group", ["run", "rollout", "state", "plugins", "policy", "signing", "config"])
def test_no_summary_is_cut_in_the_help(sked, group) -> None:
    ran = sked(group, "--help")
    assert "\nCommands:\n" in ran.out and "..." not in ran.out.partition("\nCommands:\n")[2]


@pytest.mark.parametrize("command", ["", *cli._COMMANDS, "run agent", "run scheduler", "run combined"])
def test_every_command_has_help(sked, command) -> None:
    ran = sked(*command.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert "--backend" in ran.out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidManifest([errors.Problem("a", "b")]), 3),
        (errors.InvalidValue("x"), 2),
        (errors.NotFound("x"), 4),
        (errors.Conflict("x"), 5),
        (errors.Unavailable("x"), 6),
        (errors.PluginError("x"), 1),
        (errors.StoreChanged("x"), 1),
        (errors.SkedError("x"), 1),
        (Ended("x", code=9), 9),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("x"), 2),
        (OSError(28, "No space left on device", "/x"), 1),
        (KeyError("x"), 1),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(capsys, error, code) -> None:
    assert report(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err


def test_an_unexpected_error_tells_how_to_see_the_traceback(capsys, monkeypatch) -> None:
    report(KeyError("x"))
    assert "SKED_DEBUG=1" in capsys.readouterr().err
    monkeypatch.setenv("SKED_DEBUG", "1")
    report(KeyError("x"))
    assert "KeyError" in capsys.readouterr().err


def test_messages_can_not_drive_the_terminal(capsys) -> None:
    report(errors.Unavailable("bad\x1b[2J answer", hint="try\x07 this"))
    assert capsys.readouterr().err == "sked: bad\\x1b[2J answer\n  try\\x07 this\n"


def test_a_conflict_is_tried_again_and_in_the_end_reported() -> None:
    tries = []

    def attempt() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise errors.Conflict("somebody was faster")
        return 7

    assert client_session.repeated(attempt) == 7

    def never() -> int:
        tries.append(1)
        raise errors.Conflict("somebody was faster")

    tries.clear()
    with pytest.raises(errors.Conflict):
        client_session.repeated(never)
    assert len(tries) == client_session.ATTEMPTS


@pytest.mark.parametrize("more", [(), ("-o", "jsonl"), ("--why",)])
def test_a_reader_that_leaves_early_is_no_error(issue, task, url, more) -> None:
    issue(*(task(service="s" * 60, instance=number, rejected=True, reject_reason="no") for number in range(2000)))
    command = [sys.executable, "-m", "sked_core.surface.cli", "tasks", "--backend", url, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors_said = process.stderr.read()
        assert process.wait(60) == 0
    assert errors_said == b""


def imported(*args: str) -> set[str]:
    """Names of all modules that a command line imports, in a process of its own."""
    command = [sys.executable, "-X", "importtime", "-m", "sked_core.surface.cli", *args]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SKED_")}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    lines = [line for line in ran.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


HEAVY = ("docker", "consul", "urllib3", "requests", "psutil", "ssl", "http.client", "asyncio")


def test_help_imports_no_store_executor_or_health_client() -> None:
    modules = imported("--help")
    for name in (*HEAVY, "sqlite3", "yaml", "msgspec", "pluggy", "importlib.metadata", "tomllib", "logging"):
        assert name not in modules, name
    assert not [name for name in modules if name.startswith(("sked_core.runtime", "sked_core.interfaces"))]


def test_tasks_imports_only_what_the_chosen_store_needs(tmp_path) -> None:
    modules = imported("tasks", "--backend", f"sqlite://{tmp_path}/x.db")
    for name in (*HEAVY, "yaml", "tomllib", "sked_core.runtime.health.probe_checks"):
        assert name not in modules, name
    assert "sqlite3" in modules
