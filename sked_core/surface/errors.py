"""From what was raised to what people read and scripts test: what a command ends with."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable

import click

from sked_core.client.outcomes import FAILED, INTERRUPTED, INVALID, USAGE, code_of, hints_of
from sked_core.errors import InvalidManifest, SkedError
from sked_core.model.spec import plain
from sked_core.surface.render import note


def report(error: BaseException) -> int:
    """Print ``error`` for people, on stderr, and return the exit code. A traceback only with SKED_DEBUG=1."""
    if os.environ.get("SKED_DEBUG") == "1" and not isinstance(error, click.exceptions.Exit):
        traceback.print_exception(error, file=sys.stderr)
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case KeyboardInterrupt() | click.Abort():
            note("sked: interrupted")
            return INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            note(error.format_message())
            return USAGE
        case click.ClickException():
            _usage(error)
            return USAGE
        case InvalidManifest():
            _problems(error)
            return INVALID
        case SkedError():
            _say(str(error), hints_of(error))
            return code_of(error)
        case OSError():
            _say(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), [])
            return FAILED
        case _:
            _say(f"internal error: {type(error).__name__}: {error}"[:500], ["for the traceback: SKED_DEBUG=1 sked …"])
            return FAILED


def _say(message: str, hints: Iterable[str]) -> None:
    lines = message.splitlines() or [type(message).__name__]
    note(f"sked: {plain(lines[0])}")
    for line in (*lines[1:], *hints):
        note(f"  {plain(line)}")


def _usage(error: click.ClickException) -> None:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "sked"
    _say(error.format_message().replace("\t", ""), [f"see: {path} --help"])


def _problems(error: InvalidManifest) -> None:
    from sked_core.model.manifest import report as listed

    for line in listed(error.problems).splitlines():
        note(plain(line))
