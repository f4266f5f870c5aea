"""Shells complete commands, options and live names; each is driven for real where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from rigs.needs import program
from sked_core.model.types import Host, Service
from sked_core.surface import cli
from sked_core.testing.builders import a_definition

Complete = Callable[..., list[str]]
DRIVERS = {
    "bash": """\
source <(sked completion bash)
complete -p sked >/dev/null || exit 9
COMP_WORDS=({words})
COMP_CWORD={last}
_sked_completion sked
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "zsh": """\
autoload -Uz compinit && compinit -u -D
compadd() {{ local names=${{@[-1]}}; print -l -- ${{(P)names}}; }}
_describe() {{ print -l -- ${{(P)3}}; }}
eval "$(sked completion zsh)"
words=({words}) CURRENT=$(({last} + 1))
_sked_completion
""",
    "fish": """\
sked completion fish | source
complete -C "{line}"
""",
}


@pytest.fixture
def complete(tmp_path: Path, url: str) -> Complete:
    """``complete("bash", "explain", "we")``: what the shell offers in place of the last word."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "sked"
    # As patient as a busy machine needs it; people are not.
    script.write_text(
        f"#!{sys.executable}\nfrom sked_core.surface import cli, completing\n"
        "completing.PATIENCE_SECONDS = 60.0\ncli.main()\n"
    )
    script.chmod(0o755)

    def run(shell: str, *words: str, **environment: str) -> list[str]:
        path = program(shell)
        quoted = " ".join(f"'{word}'" for word in ("sked", *words))
        text = DRIVERS[shell].format(words=quoted, last=len(words), line=" ".join(("sked", *words)))
        variables = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        variables |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SKED_BACKEND": url} | environment
        norc = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        ran = subprocess.run(
            [path, *norc, "-c", text], env=variables, capture_output=True, text=True, timeout=250, check=True
        )
        assert ran.stderr == ""
        return [line.partition("\t")[0].partition(":")[0] for line in ran.stdout.splitlines() if line]

    return run


@pytest.fixture
def some(store, declare, issue, task) -> None:
    declare(Service(name="web", task_name="web", task_version=4), Service(name="worker", task_name="w", task_version=1))
    declare(Service(name="api", task_name="api", task_version=1), Host(name="host-1"), Host(name="other.local"))
    declare(a_definition("web", version=4))
    issue(task(service="web"), task(service="web", instance=1))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_real_shell_completes_commands_options_and_live_names(complete, some, shell) -> None:
    assert {"simulate", "services", "state", "status"} <= set(complete(shell, "s"))
    assert complete(shell, "tasks", "--by-s") == ["--by-service"]
    assert complete(shell, "explain", "w") == ["web", "worker"]
    assert complete(shell, "cordon", "host-1", "o") == ["other.local"]
    assert complete(shell, "hosts", "-o", "j") == ["json", "jsonl"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("tasks", "--by-service", "wo"), ["worker"]),
        (("tasks", "--by-host", ""), ["host-1", "other.local"]),
        (("explain", "default-web-4-"), ["default-web-4-0", "default-web-4-1"]),
        (("logs", "w"), ["web", "worker"]),
        (("logs", "default-web-4-"), ["default-web-4-0", "default-web-4-1"]),
        (("exec", "d"), ["default-web-4-0", "default-web-4-1"]),
        (("web", "--lis"), ["--listen"]),
        (("no-such-command", "roll"), ["rollout"]),
        (("describe", ""), ["service/", "task/", "host/", "cluster/", "task_definition/"]),
        (("describe", "ho"), ["host/host-1", "host/other.local"]),
        (("describe", "task_definition/"), ["task_definition/web/4"]),
        (("delete", "service/a"), ["service/api"]),
        (("rollout", "undo", "a"), ["api"]),
        (("rollout", "pa"), ["pause"]),
        (("rebalance", "web", "wor"), ["worker"]),
        (("scale", "zzz"), []),
        (("scale", "../.."), []),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
)
def test_names_are_those_in_the_store(complete, some, words, offered) -> None:
    assert complete("bash", *words) == offered


def test_the_store_of_the_command_line_is_asked(complete, some, url) -> None:
    elsewhere = {"SKED_BACKEND": "consul://127.0.0.1:1"}
    assert complete("bash", "--backend", url, "explain", "w", **elsewhere) == ["web", "worker"]


@pytest.mark.parametrize("backend", ["consul://127.0.0.1:1", "nonsense://", "sqlite:///proc/none/sked.db"])
def test_it_is_silent_when_the_store_is_away(complete, backend) -> None:
    assert complete("bash", "explain", "w", SKED_BACKEND=backend) == []
    assert complete("bash", "roll", SKED_BACKEND=backend) == ["rollout"]


def test_commands_are_completed_without_importing_any() -> None:
    code = (
        "import sys; from sked_core.surface.cli import cli; import click;"
        "print([one.value for one in cli.shell_complete(click.Context(cli), 'ta')],"
        " [name for name in sys.modules if name.startswith(('sked_core.surface.commands.', 'sked_core.runtime'))])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "['tasks'] []\n"


def test_every_name_that_a_command_takes_is_completed() -> None:
    def arguments(group: click.Group, path: str) -> list[tuple[str, click.Parameter]]:
        ctx = click.Context(group)
        found: list[tuple[str, click.Parameter]] = []
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            if isinstance(command, click.Group):
                found += arguments(command, f"{path} {name}")
            else:
                found += [(f"{path} {name}", one) for one in command.params]
        return found

    names = {"SERVICE", "HOST", "TASK", "SERVICE|TASK", "HOST...", "CLUSTER", "KIND/NAME", "[KIND/]NAME"}
    said = [
        (path, one.name)
        for path, one in arguments(cli.cli, "sked")
        if (one.metavar or (isinstance(one, click.Argument) and one.name == "service" and "SERVICE")) in names
        and one._custom_shell_complete is None
        and path not in ("sked report", "sked run agent", "sked run combined", "sked agent", "sked combined")
    ]
    assert said == []
