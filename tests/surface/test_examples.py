"""Every command shows how it is used, and what it shows can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

import click
import pytest

from sked_core.surface import cli
from sked_core.surface.options import Command


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


ALL = [(path, one) for path, one in commands(cli.cli, "sked") if isinstance(one, Command)]


def words(line: str) -> Sequence[str]:
    """Those of the part of a pipeline that calls sked, without where its output goes."""
    [part] = [part for part in re.split(r" \| ", line) if part.startswith("sked ")]
    found = shlex.split(part, comments=True)
    return found[: found.index(">")] if ">" in found else found


def parsed(args: Sequence[str]) -> click.Command:
    """The command that ``args`` would call, having taken all of them. Raises click.UsageError."""
    ctx = cli.cli.make_context("sked", list(args))
    while isinstance(group := ctx.command, click.Group):
        name, command, rest = group.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        assert command is not None
        ctx = command.make_context(name, rest, parent=ctx)
    return ctx.command


@pytest.mark.parametrize(("path", "command"), ALL)
def test_the_help_of_every_command_has_examples_that_call_it(path, command, sked) -> None:
    assert command.examples, f"{path} has no examples: @command(name, 'sked …')"
    for line in command.examples:
        assert len(line) <= 100
        assert parsed(words(line)[1:]) is command, line
    assert sked(*path.split()[1:], "--help").out.endswith("".join(f"  {line}\n" for line in command.examples))


@pytest.mark.parametrize("line", ["sked tasks --by-sevice web", "sked scale web", "sked rollout undo web --to four"])
def test_a_line_that_cant_be_typed_is_found_out(line) -> None:
    with pytest.raises(click.UsageError):
        parsed(words(line)[1:])
