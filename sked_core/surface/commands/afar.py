"""``sked logs`` and ``sked exec``: what tasks say, and commands in them, wherever they run."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from sked_core.client.afar.logs import Line, Wish, line_json, target
from sked_core.client.afar.logs import logs as read_logs
from sked_core.model.spec import plain
from sked_core.surface import completing
from sked_core.surface.options import command, session
from sked_core.surface.render import in_colour, json_line, note, on_terminal

if TYPE_CHECKING:
    from sked_core.client.afar.executing import Running

LINES_OF_MANY = 100
"""Of each task of a service to begin with; of one task all that is kept."""
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_COLOUR_CODES = re.compile(r"\x1b\[[0-9;:]*m")


def _count(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    if value is None or value == "all":
        return None if value is None else -1
    if not value.isascii() or not value.isdecimal():
        raise click.BadParameter(f'expected a number or all, got "{value}"')
    return int(value)


@command(
    "logs",
    "sked logs default-web-3-0",
    "sked logs web -f  # all tasks of a service, over all hosts, also those that come",
    "sked logs default-web-3-0 --previous  # what the run before said last",
    "sked logs web -n 20 -o jsonl | jq -r .text",
)
@click.argument("name", metavar="TASK|SERVICE", shell_complete=completing.services_and_tasks)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@click.option("--previous", is_flag=True, help="Of the run before, or of the last one of a task that is gone.")
@click.option(
    "-n",
    "--lines",
    metavar="N",
    callback=_count,
    help="The last N lines of each, or all. Default: of one task all, else 100.",
)
@click.option("-c", "--container", metavar="NAME", default="", help="Of this container alone.")
@click.option("--timestamps", is_flag=True, help="When each line was written, as far as that is known.")
@click.option("--raw", is_flag=True, help="As it was written, with all that drives terminals.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "jsonl"]), default="text", help="How to print.", show_default=True
)
def logs(
    name: str, follow: bool, previous: bool, lines: int | None, container: str, timestamps: bool, raw: bool, output: str
) -> None:
    """Show what a task wrote, or all tasks of a service, wherever they run.

    With several tasks or containers each line begins with whose it is. Ctrl-C ends the showing, nothing else.
    """
    if follow and previous:
        raise click.UsageError("a run that has ended has nothing to follow: --previous without -f")
    with session() as sked:
        aim = target(sked.store, name, part=True)
        count = lines if lines is not None else (LINES_OF_MANY if aim.service else -1)
        wish = Wish(lines=count, container=container, follow=follow, previous=previous)
        many = bool(aim.service) or any(len(task.task_definition.containers) > 1 for task in aim.tasks)
        show = _Shown(prefixed=many, timestamps=timestamps, raw=raw, json=output == "jsonl")
        for line in read_logs(sked, name, wish, threading.Event()):
            show(line)


class _Shown:
    def __init__(self, *, prefixed: bool, timestamps: bool, raw: bool, json: bool) -> None:
        self._prefixed, self._timestamps, self._raw, self._json = prefixed, timestamps, raw, json
        self._colours: dict[str, int] | None = {} if in_colour() else None
        self._width = 0
        self._alive = on_terminal()

    def __call__(self, line: Line) -> None:
        if line.stream == "note":
            note(f"sked: {plain(line.task)}/{plain(line.container)}: {plain(line.text)}")
            return
        text = json_line(line_json(line)) if self._json else self._prefix(line) + self._text(line.text)
        click.echo(text, color=self._raw or None)  # else colours are left out where nobody looks
        if self._alive:
            sys.stdout.flush()

    def _prefix(self, line: Line) -> str:
        stamp = f"{line.at or '-'} " if self._timestamps else ""
        if not self._prefixed:
            return plain(stamp)
        whose = plain(f"{line.task}/{line.container}" if line.container else line.task)
        self._width = max(self._width, len(whose))
        shown = f"{whose.ljust(self._width)} | "
        if self._colours is not None:
            number = self._colours.setdefault(whose, COLOURS[len(self._colours) % len(COLOURS)])
            shown = f"\x1b[{number}m{shown}\x1b[0m"
        return shown + plain(stamp)

    def _text(self, text: str) -> str:
        """Nothing in it drives a terminal: colours are left out, all else is written as an escape."""
        return text if self._raw else "\t".join(plain(part) for part in _COLOUR_CODES.sub("", text).split("\t"))


@command(
    "exec",
    "sked exec default-web-3-0 -- env",
    "sked exec default-web-3-0 -- sh  # with a terminal, where you have one",
    "sked exec -i default-db-1-0 -- psql app < dump.sql",
)
@click.argument("task", shell_complete=completing.tasks)
@click.argument("words", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-c", "--container", metavar="NAME", default="", help="In this container. Default: the first.")
@click.option("-i", "--stdin", is_flag=True, help="Give it what comes on standard input. With a terminal anyway.")
@click.option("-t/-T", "--tty/--no-tty", default=None, help="With a terminal or without. Default: where you have one.")
def exec(  # noqa: A001  its name on the command line
    task: str, words: tuple[str, ...], container: str, stdin: bool, tty: bool | None
) -> int:
    """Run COMMAND in TASK, wherever that runs, and end with its exit code.

    It has the environment and the working folder of the task's container, and ends with it.
    """
    from sked_core.client.afar.executing import Terminal, running
    from sked_core.errors import InvalidValue

    at_terminal = sys.stdin is not None and sys.stdin.isatty() and on_terminal()
    if tty and not at_terminal:
        raise InvalidValue("-t takes a terminal, and there is none here", hint="leave it out, or: ssh -t")
    wants = at_terminal if tty is None else tty
    with session() as sked:
        rows, columns, term = _size()
        terminal = Terminal(rows, columns, term) if wants else None
        with running(sked, task, words, container=container, terminal=terminal) as process:
            if wants:
                with _raw_terminal(), _resized(process):
                    _pass_on(process, given=True)
            else:
                _pass_on(process, given=stdin)
    return process.code or 0


def _pass_on(process: Running, *, given: bool) -> None:
    import os

    def take_in() -> None:
        while data := os.read(0, 32 * 1024):
            process.write(data)
        process.close_input()

    if given:
        threading.Thread(target=take_in, daemon=True).start()
    else:
        process.close_input()
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    for stream, data in process.output():
        streams[stream].write(data)
        streams[stream].flush()


def _size() -> tuple[int, int, str]:
    import os

    try:
        columns, rows = os.get_terminal_size(0)
        if not columns or not rows:
            raise OSError
    except OSError:
        columns, rows = 80, 24
    return rows, columns, os.environ.get("TERM", "")


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the command, Ctrl-C too; the terminal is as before afterwards."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is not thrown away
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _resized(process: Running) -> Iterator[None]:
    """Tell it whenever the terminal gets another size."""
    import signal

    changed, over = threading.Event(), threading.Event()

    def tell() -> None:
        while changed.wait() and not over.is_set():
            changed.clear()
            with suppress(OSError):
                process.resize(*_size()[:2])

    before = signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)  # first: it must not come while this thread is in the Event
        over.set()
        changed.set()
