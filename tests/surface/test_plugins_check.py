"""``sked plugins check``: what it finds in packages that are as they should be, and in ones that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sked_core import __version__

METADATA = """\
Metadata-Version: 2.3
Name: sked-lantern
Version: 1.2.0
Summary: Places tasks where it is light
License-Expression: MIT
Requires-Python: >=3.11
Requires-Dist: sked-core>=0.1

# sked-lantern

Places tasks where it is light.
"""
PLUGIN = '''\
"""Places tasks where it is light."""

from sked_core.plugin import hookimpl, scored


@hookimpl
def sked_event(event):
    scored(len)
'''
SCHEDULER = (
    PLUGIN
    + """

@hookimpl
def sked_schedulers():
    return {"lightest": lambda: scored(lambda demand, candidate: candidate.free_memory)}
"""
)


class Shelf:
    """A folder of packages as pip leaves them behind, and the command that looks at one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, *, metadata: str = METADATA, **files: str) -> None:
        """The package sked-lantern; ``files``: by module name, ``plugin`` unless it is given."""
        info, package = self.folder / "sked_lantern-1.2.0.dist-info", self.folder / "sked_lantern"
        info.mkdir()
        package.mkdir()
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text("[sked]\nlantern = sked_lantern.plugin\n")
        texts = {"__init__.py": "", "py.typed": "", "plugin.py": PLUGIN}
        texts |= {f"{name}.py": text for name, text in files.items()}
        for name, text in texts.items():
            (package / name).write_text(text)
        (info / "RECORD").write_text("".join(f"sked_lantern/{name},,\n" for name in texts))

    def env(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        return {**os.environ, "PYTHONPATH": path}

    def check(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sked_core.surface.cli", "plugins", "check", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=self.env())

    def findings(self, *options: str) -> dict[tuple[str, str], tuple[str, str]]:
        """Verdict and reason by part and what was looked at."""
        ran = self.check("lantern", "-o", "json", *options)
        (report,) = json.loads(ran.stdout)["items"]
        return {(one["part"], one["what"]): (one["verdict"], one["why"]) for one in report["findings"]}

    def wrong(self) -> str:
        """All that is wrong, as one text."""
        told = self.findings().items()
        return "\n".join(f"{part}: {what}: {why}" for (part, what), (verdict, why) in told if verdict == "wrong")


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def test_a_package_as_it_should_be_passes_rules_and_kit(shelf):
    shelf.put(plugin=SCHEDULER)
    ran = shelf.check("sked-lantern")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "sked-lantern 1.2.0: nothing is wrong" in ran.stdout
    assert "scheduler lightest" in ran.stdout


def test_a_package_may_be_a_single_module(shelf):
    shelf.put()
    info = shelf.folder / "sked_lantern-1.2.0.dist-info"
    (shelf.folder / "sked_lamp.py").write_text(PLUGIN)
    (info / "entry_points.txt").write_text("[sked]\nlantern = sked_lamp\n")
    (info / "RECORD").write_text("sked_lamp.py,,\n")
    assert "also installs" not in shelf.wrong()
    (info / "RECORD").write_text("sked_lamp.py,,\nconftest.py,,\n")
    assert "it also installs conftest.py" in shelf.wrong()


def test_a_name_that_is_not_installed_is_not_found(shelf):
    ran = shelf.check("sked-nonesuch")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert 'no package "sked-nonesuch" is installed here' in ran.stderr


def test_every_rule_of_packaging_finds_what_it_is_for(shelf):
    bare = "Metadata-Version: 2.1\nName: sked-lantern\nVersion: 1.2.0\nRequires-Dist: sked-core<0.0.1\n"
    text = PLUGIN.replace(
        "hookimpl, scored", "hookimpl, scored\nfrom sked_core.model import codec\nimport sked_core.runtime.state"
    )
    shelf.put(metadata=bare, plugin=text, more="# Write here: what it is for\n")
    (shelf.folder / "sked_lantern" / "py.typed").unlink()
    with (shelf.folder / "sked_lantern-1.2.0.dist-info" / "RECORD").open("a") as record:
        record.write("tests/test_lantern.py,,\n")
    wrong = shelf.wrong()
    for told in (
        *("no summary", "no readme", "no licence", "no Python version"),
        *("no least version", "asks for sked-core<0.0.1", "it also installs tests", "no file py.typed"),
        *("plugin.py:4 imports sked_core.model", "plugin.py:5 imports sked_core.runtime.state"),
        "more.py says 'Write here'",
    ):
        assert told in wrong


@pytest.mark.parametrize(("version", "fault"), [(__version__, ""), ("0.0.9", "it is 0.0.9, sked-core is")])
def test_a_package_that_is_released_with_core_may_use_more_of_it_at_the_same_version_only(shelf, version, fault):
    metadata = METADATA.replace("sked-lantern", "sked-web").replace("1.2.0", version)
    shelf.put(metadata=metadata, plugin=PLUGIN + "from sked_core.model import codec\n")
    (shelf.folder / "sked_lantern-1.2.0.dist-info").rename(shelf.folder / f"sked_web-{version}.dist-info")
    findings = shelf.findings()
    verdict, why = findings["packaging", "it uses more of Sked than the API: it is Sked's own, and of the same version"]
    assert (verdict, fault in why) == ("wrong" if fault else "ok", True)


def test_an_import_that_prints_is_told(shelf):
    shelf.put(plugin=PLUGIN + "print('hello')\n")
    assert "importing sked_lantern.plugin is quick and quiet: it printed 'hello" in shelf.check("lantern").stdout


def test_an_import_that_leaves_a_thread_or_takes_long_is_told(shelf, tmp_path):
    thread = "threading.Thread(target=time.sleep, args=(9,), daemon=True, name='lamp').start()"
    slow = f"import threading, time\n{thread}\ntime.sleep(1.2)\n"
    shelf.put(plugin=PLUGIN + slow)
    wrong = shelf.wrong()
    assert "it left threads: lamp" in wrong
    assert "import what is heavy in the factory" in wrong


def test_an_import_that_a_busy_machine_made_slow_once_is_no_fault_of_the_package(shelf, tmp_path):
    known = tmp_path / "known"
    measured = f"sys.argv[0] == '-c' and not (known := pathlib.Path({str(known)!r})).exists()"
    once = f"import pathlib, sys, time\nif {measured}:\n"
    shelf.put(plugin=f"{PLUGIN}{once}    known.touch()\n    time.sleep(1.2)\n")
    assert "nothing is wrong" in shelf.check("lantern").stdout
    assert known.exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
        ("raise SystemExit(3)", "would have ended the process"),
        ("import os; os._exit(7)", "the process ended"),
    ],
)
def test_samples_that_can_not_be_had_are_told(shelf, line, told):
    shelf.put(plugin=PLUGIN + f"\n\n@hookimpl\ndef sked_samples():\n    {line}\n")
    assert told in shelf.wrong()


def test_in_ci_what_differs_is_not_drawn_in_full_either(shelf, monkeypatch):
    """Which of large values takes pytest minutes: it looks for these variables."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.setenv(name, "true")
    asks = "raise RuntimeError(sorted({'CI', 'BUILD_NUMBER'} & set(__import__('os').environ)))"
    shelf.put(plugin=PLUGIN + f"\n\n@hookimpl\ndef sked_samples():\n    {asks}\n")
    assert "RuntimeError: []" in shelf.wrong()


def test_what_has_no_sample_is_told_as_not_tried_and_counts_when_asked(shelf):
    shelf.put(plugin=PLUGIN + "\n\n@hookimpl\ndef sked_storage():\n    return {'lamp': lambda url: None}\n")
    assert shelf.findings()["storage lamp", "its kit passes"][0] == "not tried"
    ran = shelf.check("lantern")
    assert ran.returncode == 0
    assert "not tried  storage lamp: its kit passes: sked_samples offers no sample of it" in ran.stdout
    assert shelf.check("lantern", "--strict").returncode == 1


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            PLUGIN + "\n\n@hookimpl\ndef sked_samples():\n    import time\n    time.sleep(1000)\n",
            "sked_samples of lantern did not come back within 15 s",
        ),
        (
            SCHEDULER.replace(
                '"lightest": lambda: scored', '"lightest": lambda: __import__("time").sleep(1000) or scored'
            ),
            "nothing was heard for 20 s",
        ),
    ],
)
def test_what_never_ends_is_ended_and_named(shelf, monkeypatch, source, told):
    shelf.put(plugin=source)
    from sked_core.testing.check import trial

    monkeypatch.syspath_prepend(str(shelf.folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(shelf.folder), os.environ.get("PYTHONPATH")))))
    monkeypatch.setattr(trial, "ASKED_SECONDS", 15.0)
    found = list(trial.tried("sked-lantern", silence=300.0 if "sked_samples" in told else 20.0))[-1]
    assert (found.verdict.value, found.why) == ("wrong", told)


HOOKS = """
from sked_core.plugin import hookimpl

@hookimpl
async def sked_event(event): ...

@hookimpl
def sked_executer(): return {}

@hookimpl
def sked_commands(cil): ...

def sked_storage(): return {}
"""


def test_hooks_that_are_none_are_told_with_what_was_meant(shelf):
    shelf.put(plugin=HOOKS)
    wrong = shelf.wrong()
    for told in (
        "sked_event is `async def`, and nobody awaits it: make it `def`",
        'sked_executer is no hook, did you mean "sked_executors"?',
        'sked_commands asks for `cil`, did you mean "cli"?',
        "sked_storage has no @hookimpl: nobody calls it",
    ):
        assert told in wrong


def test_kits_that_nobody_waits_for_any_more_are_ended(shelf, monkeypatch):
    """Ctrl-C does not reach them: they are in a session of their own."""
    mark = shelf.folder / "pid"
    tells = f"pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))"
    lines = ("import os, pathlib, time", tells, "time.sleep(1000)")
    shelf.put(plugin=PLUGIN + "\n\n@hookimpl\ndef sked_samples():\n" + "".join(f"    {line}\n" for line in lines))
    from sked_core.testing.check import trial

    def interrupted(read: int) -> None:
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(shelf.folder), os.environ.get("PYTHONPATH")))))
    monkeypatch.setattr(os, "fdopen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(trial.tried("sked-lantern"))
    assert not Path(f"/proc/{mark.read_text()}").exists()


def test_whoever_is_killed_while_it_waits_leaves_nothing_running(shelf):
    mark = shelf.folder / "pid"
    wait = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(1000)"
    shelf.put(plugin=PLUGIN + f"\n\n@hookimpl\ndef sked_samples():\n    {wait}\n")
    command = [sys.executable, "-m", "sked_core.surface.cli", "plugins", "check", "lantern"]
    asked = subprocess.Popen(command, env=shelf.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < deadline, "the kits were never asked for"
        time.sleep(0.1)
    asked.kill()
    asked.wait()
    while psutil.pid_exists(int(mark.read_text())):
        assert time.monotonic() < deadline, "what tried the package lives on"
        time.sleep(0.1)
