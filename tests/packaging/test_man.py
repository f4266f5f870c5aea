"""Manual pages and completion come from the same help that the commands show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rigs.needs import program
from sked_core.surface.cli import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    ran = subprocess.run(
        [sys.executable, ROOT / "scripts/build-man", folder], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return folder


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        assert found is not None
        yield f"{path}-{name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{path}-{name}")


ALL = dict(commands(cli, "sked"))


def shown(page: Path) -> str:
    """The page as text, without bold letters."""
    env = os.environ | {"MANWIDTH": "200", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"}
    ran = subprocess.run([program("man"), "-l", page], capture_output=True, text=True, env=env, timeout=60)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    return re.sub(r".\x08", "", ran.stdout)


def test_every_command_has_a_page_plugins_commands_too(pages: Path) -> None:
    made = {path.stem for path in pages.glob("*.1")}
    assert {"sked", "sked-web", *ALL} <= made


@pytest.mark.parametrize("name", ALL)
def test_a_page_says_what_the_help_says(name: str, pages: Path) -> None:
    text = shown(pages / f"{name}.1")
    words = re.sub(r"\s+", " ", text)
    command = ALL[name]
    assert f"{name} - " in words
    for part in re.split(r"\n\s*\n", (command.help or "").replace("\b", "")):
        assert re.sub(r"\s+", " ", part).strip().replace("…", "...") in words
    for parameter in command.get_params(click.Context(command)):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for option in parameter.opts:
                assert option in words
            assert re.sub(r"\s+", " ", parameter.help or "").replace("…", "...") in words
    for line in getattr(command, "examples", ()):
        assert line in text
    assert "SEE ALSO" in text


def test_the_page_of_sked_lists_its_commands_exit_codes_and_variables(pages: Path) -> None:
    text = shown(pages / "sked.1")
    for name in ALL:
        if name.count("-") == 1:
            assert f"{name}(1)" in text
    assert re.search(r"^ +130 +interrupted$", text, re.MULTILINE)
    assert "SKED_BACKEND" in text and "/etc/sked/sked.toml" in text


@pytest.mark.parametrize("tool", ["mandoc", "groff"])
def test_formatters_have_nothing_to_complain_of(tool: str, pages: Path) -> None:
    options = ["-T", "lint", "-W", "warning"] if tool == "mandoc" else ["-man", "-ww", "-z", "-Tutf8"]
    formatter = program(tool)
    for page in sorted(pages.glob("*.1")):
        ran = subprocess.run([formatter, *options, page], capture_output=True, text=True, timeout=60)
        assert ran.stdout + ran.stderr == "", page.name


def test_bash_completes_commands_and_options_by_what_the_command_prints(tmp_path: Path) -> None:
    sked = tmp_path / "bin" / "sked"
    sked.parent.mkdir()
    sked.write_text(f'#!/bin/sh\nexec {sys.executable} -m sked_core.surface.cli "$@"\n')
    sked.chmod(0o755)
    script = tmp_path / "completion"
    ran = subprocess.run([sked, "completion", "bash"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    script.write_text(ran.stdout)
    ask = f"""
        source {script}
        for line in "sked ap" "sked rollout u" "sked apply --dr"; do
            COMP_WORDS=($line); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
            _sked_completion sked
            echo "${{COMPREPLY[*]}}"
        done
    """
    env = os.environ | {"PATH": f"{sked.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, env=env, timeout=60)
    assert done.stdout.splitlines() == ["apply", "undo", "--dry-run"], done.stderr


@pytest.mark.parametrize(("shell", "sign"), [("bash", "complete "), ("zsh", "#compdef sked"), ("fish", "complete ")])
def test_each_shell_is_given_a_script_of_its_own(shell: str, sign: str) -> None:
    command = [sys.executable, "-m", "sked_core.surface.cli", "completion", shell]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and sign in ran.stdout and "_SKED_COMPLETE" in ran.stdout
