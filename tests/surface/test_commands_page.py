"""The page on commands names what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sked_core.client import outcomes
from sked_core.client.settings import ConfigFile
from sked_core.surface import cli

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text()


def commands() -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(cli.cli)
    for name in cli.cli.list_commands(ctx):
        command = cli.cli.get_command(ctx, name)
        assert command is not None
        yield f"sked {name}", command
        if isinstance(command, click.Group):
            yield from ((f"sked {name} {inner}", command.commands[inner]) for inner in command.commands)


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_is_on_the_page(name, command) -> None:
    assert name in PAGE
    options = [
        option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts
    ]
    assert [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", PAGE)] == []


def test_every_setting_is_on_the_page() -> None:
    assert [name for name in ConfigFile.__struct_fields__ if name not in PAGE] == []


def test_every_exit_code_is_on_the_page() -> None:
    codes = {value for name, value in vars(outcomes).items() if name.isupper() and isinstance(value, int)}
    assert codes | {0} == {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
