"""What every plugin has to pass that is told events or adds commands. In a test file of your own::

    class TestPackage(PackageContract):
        sample = PackageSample(plugin="sked_toy.plugin")

A hook that the module does not have is skipped.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import click
import pluggy
import pytest
from click.testing import CliRunner

from sked_core.model.events import EVENT_NAMES
from sked_core.model.types import Event
from sked_core.runtime.plugins.hooks import hooks_of as plugin_hooks
from sked_core.testing.samples import PackageSample

ODD = ("", "one\ntwo", "\x1b[2J\u202e", "ünïcödé 🌍", "{not} %s json \"'", "x" * 10_000)
EVENT_SECONDS = 15.0
MANY, MOST_THREADS = 300, 4
_COMMAND = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


def an_event(what: str = "task.failed", **fields: Any) -> Event:
    """An event as stores hold them, with every field filled."""
    kind = what.partition(".")[0]
    subjects = {"rollout": "service/web", "move": "task/c-web-1-0", "shadow": "service/web", "events": "service/web"}
    return Event(
        **{
            "at": "2026-01-02T03:04:05.678Z",
            "who": "h1",
            "what": what,
            "subject": subjects.get(kind, f"{kind}/web"),
            "service": "web",
            "host": "h1",
            "why": "script: exit 1: out of order",
            "before": "1",
            "after": "2",
            "decision": 7,
            **fields,
        }
    )


class HookTests:
    """``sample`` says which plugin."""

    sample: ClassVar[PackageSample]

    @pytest.fixture
    def hooks(self) -> pluggy.HookRelay:
        return hooks_of(self.sample)

    def _skip_without(self, hooks: pluggy.HookRelay, name: str) -> None:
        if not getattr(hooks, name).get_hookimpls():
            pytest.skip(f"{self.sample.plugin} has no {name}")

    def test_every_hook_is_one_that_sked_calls(self) -> None:
        _, wrong = plugin_hooks(importlib.import_module(self.sample.plugin))
        assert not wrong, "; ".join(wrong)


class EventTests(HookTests):
    """What is told events."""

    @pytest.fixture
    def tell(self, hooks: pluggy.HookRelay) -> Callable[[Event], None]:
        """Have the plugin take in an event, within a bound."""
        self._skip_without(hooks, "sked_event")

        def tell(event: Event) -> None:
            begun = time.monotonic()
            hooks.sked_event(event=event)
            took = time.monotonic() - begun
            assert took < EVENT_SECONDS, f"it took {took:.0f} s for {event.what}: the next ones wait"

        return tell

    def test_every_kind_of_event_is_taken_in(self, tell: Callable[[Event], None]) -> None:
        for what in EVENT_NAMES:
            tell(an_event(what))
            tell(Event(at="2026-01-02T03:04:05.678Z", who="h1", what=what, subject=an_event(what).subject))

    def test_events_of_the_next_release_are_taken_in(self, tell: Callable[[Event], None]) -> None:
        for what in ("task.teleported", "weather.changed", "x"):
            tell(an_event(what))

    def test_whatever_people_wrote_is_taken_in(self, tell: Callable[[Event], None]) -> None:
        for text in ODD:
            tell(an_event(why=text, who=text or "h1", before=text, after=text))
            tell(an_event(subject=text, service="", host=""))

    def test_events_are_taken_in_by_any_thread(self, tell: Callable[[Event], None]) -> None:
        """Commands tell them in their own, schedulers and agents in one that is there for it."""
        tell(an_event())
        failures: list[BaseException] = []

        def tell_once() -> None:
            try:
                tell(an_event())
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        for _ in range(2):
            thread = threading.Thread(target=tell_once)
            thread.start()
            thread.join()
        if failures:
            raise failures[0]

    def test_many_events_leave_no_threads_and_no_open_files(self, tell: Callable[[Event], None]) -> None:
        for _ in range(10):
            tell(an_event())
        before, files = threading.active_count(), _open_files()
        for _ in range(MANY):
            tell(an_event())
        more = f"after {MANY} events more"
        assert threading.active_count() <= before + MOST_THREADS, f"{threading.active_count() - before} threads {more}"
        assert _open_files() <= files + MANY // 10, f"{_open_files() - files} open files {more}"

    def test_events_are_not_printed_and_change_nothing_of_the_process(
        self, tell: Callable[[Event], None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        before = _process()
        for what in EVENT_NAMES:
            tell(an_event(what))
        assert _process() == before
        assert capfd.readouterr() == ("", ""), "commands print what scripts read"


class CommandTests(HookTests):
    """What adds commands."""

    @pytest.fixture
    def add(self, hooks: pluggy.HookRelay) -> Callable[[click.Group], Mapping[str, click.Command]]:
        """Have the plugin add its commands to a group: which these are."""
        self._skip_without(hooks, "sked_commands")

        def add(group: click.Group) -> Mapping[str, click.Command]:
            before = dict(group.commands)
            hooks.sked_commands(cli=group)
            return {name: command for name, command in group.commands.items() if before.get(name) is not command}

        return add

    def test_commands_are_added_and_none_is_replaced(
        self, add: Callable[[click.Group], Mapping[str, click.Command]]
    ) -> None:
        group = _sked()
        before, options, callback = dict(group.commands), list(group.params), group.callback
        added = add(group)
        assert added, "sked_commands adds none"
        assert not added.keys() & before.keys(), "a command of Sked can't be replaced"
        assert not before.keys() - group.commands.keys(), "a command of Sked can't be taken away"
        assert (list(group.params), group.callback) == (options, callback), "the group itself is Sked's"

    def test_commands_have_names_that_can_be_typed(
        self, add: Callable[[click.Group], Mapping[str, click.Command]]
    ) -> None:
        for path, _ in _all(add(_sked())):
            assert _COMMAND.match(path[-1]), f"{path[-1]!r}: a-z 0-9 with single hyphens"

    def test_every_command_and_option_says_what_it_is_for(
        self, add: Callable[[click.Group], Mapping[str, click.Command]]
    ) -> None:
        group = _sked()
        for path, command in _all(add(group)):
            assert (command.help or command.short_help or "").strip(), f"{' '.join(path)} has no help"
            for option in command.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert (option.help or "").strip(), f"{' '.join(path)} {option.opts[0]} has no help"
            shown = CliRunner().invoke(group, [*path, "--help"])
            assert shown.exit_code == 0, f"{' '.join(path)} --help ends with {shown.exit_code}: {shown.exception!r}"

    def test_commands_are_added_without_a_word_and_alike_each_time(
        self, add: Callable[[click.Group], Mapping[str, click.Command]], capfd: pytest.CaptureFixture[str]
    ) -> None:
        before = _process()
        first, again = add(_sked()), add(_sked())
        assert first.keys() == again.keys()
        assert _process() == before
        assert capfd.readouterr() == ("", ""), "what a command prints is read by scripts"


class PackageContract(EventTests, CommandTests):
    """Inherit, say by ``sample`` which plugin, and every test runs against it."""


def contract_of(sample: PackageSample) -> type[HookTests]:
    """The part of ``PackageContract`` that the plugin has hooks for."""
    hooks = hooks_of(sample)
    if not hooks.sked_event.get_hookimpls():
        return CommandTests
    return PackageContract if hooks.sked_commands.get_hookimpls() else EventTests


def hooks_of(sample: PackageSample) -> pluggy.HookRelay:
    """The hooks of the plugin, by name. Raises whatever its import raises."""
    return plugin_hooks(importlib.import_module(sample.plugin))[0]


def _sked() -> click.Group:
    """A group with Sked's own commands, by name."""
    from sked_core.surface.cli import SECTIONS

    names = [name for section in SECTIONS.values() for name in section]
    return click.Group("sked", commands={name: click.Command(name, help="Sked's own.") for name in names})


def _all(commands: Mapping[str, click.Command], *above: str) -> Iterator[tuple[list[str], click.Command]]:
    """Commands, and those within them, with what has to be typed."""
    for name, command in commands.items():
        yield [*above, name], command
        if isinstance(command, click.Group):
            yield from _all(command.commands, *above, name)


def _process() -> dict[str, object]:
    """What a plugin shares with all that runs in its process."""
    return {
        "the working directory": os.getcwd(),  # noqa: PTH109 - compared as a text
        "the environment": {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "standard output": sys.stdout,
        "the import path": list(sys.path),
        "the root log's level": logging.getLogger().level,
        "the root log's outputs": list(logging.getLogger().handlers),
        "signals": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)],
        "the timeout of sockets": socket.getdefaulttimeout(),
        "the hook of exceptions": sys.excepthook,
    }


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as many as there are, no paths
    except OSError:
        return 0  # where that can't be seen
