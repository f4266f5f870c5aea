"""Run a plugin's command as people would, without installing the plugin; or call it alone."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from sked_core.interfaces.invocation import Reading
from sked_core.interfaces.store import Store
from sked_core.testing.memory import in_memory


class FakeInvocation:
    """What ``click.pass_obj`` gives a command, for one that is called alone: with a store of its own in memory, which
    is empty at first and keeps what is written."""

    def __init__(self) -> None:
        self._open = in_memory()

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        client = self._open()
        try:
            yield client
        finally:
            client.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        from sked_core.client.session import Session
        from sked_core.client.settings import resolve
        from sked_core.runtime.plugins.registry import Plugins
        from sked_core.surface.for_plugins import SessionReading

        with self.store() as store:
            yield SessionReading(Session(store, Plugins([]), resolve(backend="memory://"), "somebody@here"))


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command line came to: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


def run_command(plugin: ModuleType, *args: str, stdin: str = "") -> Ran:
    """``sked ARGS`` in this process, with the module ``plugin`` of hooks beside the plugins that are installed.

    Settings come from the environment, as ever: set ``SKED_BACKEND`` for a store of the test's own.
    """
    from sked_core.surface import cli

    with _installed(plugin), pytest.MonkeyPatch.context() as patch:
        out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        patch.setattr(cli.cli, "commands", {})
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.run(args)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Ran(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


@contextlib.contextmanager
def _installed(plugin: ModuleType) -> Iterator[None]:
    from sked_core.runtime.plugins.loading import found

    points = [point for point in found() if point.value != plugin.__name__]
    points.append(EntryPoint(name=plugin.__name__.split(".")[0], value=plugin.__name__, group="sked"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sked_core.runtime.plugins.registry.found", lambda: points)
        yield
