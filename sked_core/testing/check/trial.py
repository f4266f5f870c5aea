"""Runs the kits on one package, in a process of its own: what a plugin does there ends with it.

``python -m sked_core.testing.check.trial PACKAGE FILE`` writes a line of JSON into FILE for each test that begins and
for each that has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distribution
from pathlib import Path
from typing import Any

import pytest

from sked_core.runtime.plugins.hooks import GROUP
from sked_core.testing.check.findings import Finding, Verdict
from sked_core.testing.check.kits import classes_of, samples_of, twins_of

SILENCE_SECONDS = 300.0
"""After so long in one test it is taken for one that never ends. The longest of the kits wait for a minute."""
NO_KIT = "kits"
"""What a finding is about where it is about no kit yet."""
PR_SET_PDEATHSIG = 1
"""prctl(2): which signal a process gets once its parent is gone."""
ASKED_SECONDS = 60.0
"""The same for what a plugin does before its kits run: its import, and each hook that is asked for samples."""
END_SECONDS = 10.0
"""How long the process may take to end once all is tried."""
_MODULE = "from sked_core.testing.check import trial\n\nglobals().update(trial.collected({!r}, {}, {}))\n"


def points_of(package: str) -> list[EntryPoint]:
    """The entry points of an installed package. Raises PackageNotFoundError."""
    return [point for point in distribution(package).entry_points if point.group == GROUP]


def tried(package: str, silence: float = SILENCE_SECONDS) -> Iterator[Finding]:
    """What each test of the kits found about ``package``. After ``silence`` seconds without news it is ended."""
    with tempfile.TemporaryDirectory(prefix="sked-check-") as folder:
        read, write = os.pipe()
        output = Path(folder) / "output"
        command = [sys.executable, "-m", __name__, package, str(write)]
        with output.open("wb") as out:
            child = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[write],
                start_new_session=True,
            )
        os.close(write)
        running = under_way = asked = ""
        ended = False
        watch = _Watch(child, silence)
        try:
            with os.fdopen(read) as lines:
                for line in lines:
                    told = json.loads(line)
                    watch.heard(min(silence, ASKED_SECONDS) if told.get("asks") else silence)
                    if ended := "ended" in told:
                        break  # a process that a plugin left behind may hold the pipe
                    running, under_way = told.get("part", running), told.get("begins", under_way)
                    asked = told.get("asks", "")
                    if "what" in told:
                        yield Finding(told["part"], told["what"], Verdict(told["verdict"]), told["why"])
            with contextlib.suppress(subprocess.TimeoutExpired):  # what a plugin leaves may keep it from ending
                child.wait(END_SECONDS if ended else None)
        finally:
            if child.poll() is None:  # Ctrl-C, which does not reach a session of its own
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            watch.end()
        if not ended:
            last = output.read_text(errors="replace").strip().splitlines()[-1:]
            why = f"the process ended: {' '.join(last)}"
            if watch.killed:
                why = f"{asked} did not come back within" if asked else "nothing was heard for"
                why += f" {watch.silence:g} s"
            yield Finding(running or NO_KIT, under_way or "the kits can be run", Verdict.WRONG, why)


class _Watch:
    """Ends a process that has said nothing for a while, with all that it started."""

    def __init__(self, child: subprocess.Popen[bytes], silence: float) -> None:
        self.killed, self.silence = False, silence
        self._child = child
        self._news, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def heard(self, silence: float) -> None:
        """It said something, and may be silent for so long from now on."""
        self.silence = silence
        self._news.set()

    def end(self) -> None:
        self._over = True
        self._news.set()
        self._thread.join()

    def _wait(self) -> None:
        while not self._over:
            if not self._news.wait(self.silence):
                self.killed = True
                os.killpg(self._child.pid, signal.SIGKILL)
                return
            self._news.clear()


def _tell(pipe: int, **what: Any) -> None:
    with open(pipe, "w", closefd=False) as out:
        out.write(json.dumps(what) + "\n")


class _Teller:
    """A plugin of pytest that tells of each test as it begins and ends."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def tell(self, **what: Any) -> None:
        _tell(self._pipe, **what)

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        part, what = _told(nodeid)
        self.tell(part=part, begins=what)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        part, what = _told(report.nodeid)
        if report.failed:
            self.tell(part=part, what=what, verdict="wrong", why=_why(report))
        elif report.skipped:
            self.tell(part=part, what=what, verdict="not tried", why=_skipped(report))
        elif report.when == "call":
            self.tell(part=part, what=what, verdict="ok", why="")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tell(part=NO_KIT, what="the kits can be run", verdict="wrong", why=_last_error(report))


def collected(package: str, pipe: int, process: int) -> dict[str, type[Any]]:
    """The classes of tests for ``package``: what pytest finds in the module. What is asked is told into ``pipe``, which
    is one of ``process`` alone: tests run this in others, too."""

    def asks(what: str) -> None:
        if os.getpid() == process:
            _tell(pipe, asks=what)

    try:
        samples = samples_of(points_of(package), asks)
        asks("a hook that gives names")
        twins = twins_of(points_of(package), samples)
        asks("")
        return classes_of(samples, twins)
    except SystemExit:
        raise RuntimeError("sked_samples would have ended the process") from None


def _told(nodeid: str) -> tuple[str, str]:
    _, _, rest = nodeid.partition("::")
    name, _, test = rest.partition("::")
    test, bracket, rest = test.partition("[")
    return name.removeprefix("Test "), test.removeprefix("test_").replace("_", " ") + (bracket and f" [{rest}")


def _why(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    told = (
        f"{crash.message.splitlines()[0]} ({Path(crash.path).name}:{crash.lineno})" if crash else str(report.longrepr)
    )
    return (f"in {report.when}: " if report.when != "call" else "") + told[:500]


def _last_error(report: pytest.CollectReport) -> str:
    errors = [line[1:].strip() for line in str(report.longrepr).splitlines() if line.startswith("E")]
    return (errors or [str(report.longrepr)])[-1][:500]


def _skipped(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever reads may be killed
    teller = _Teller(int(sys.argv[2]))
    import hypothesis  # noqa: F401 - in CI it works in another way, and looks for that when it is imported

    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "CI", "BUILD_NUMBER"):  # in CI pytest draws all that differs
        os.environ.pop(name, None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the environment's plugins are not what is tried
    module = Path("test_kits.py")
    module.write_text(_MODULE.format(sys.argv[1], int(sys.argv[2]), os.getpid()))
    ini = Path("pytest.ini")
    ini.write_text("[pytest]\n")
    code = pytest.main(["-q", "-c", str(ini), "-p", "no:cacheprovider", str(module)], plugins=[teller])
    teller.tell(ended=int(code))
    return int(code)


if __name__ == "__main__":
    main()
