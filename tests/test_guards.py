"""What no line of the packages may do, read from the syntax tree; and what no file of the repo may name."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sked_core.model import keys

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "sked_core").rglob("*.py"))
SOURCES = CORE + sorted(ROOT.glob("plugins/*/sked_*/**/*.py"))
MAX_CORE_LINES = 39_100
"""Raised only together with docs/decisions/0007, which says for what."""
MAX_FILE_LINES = 400

KEY_PREFIXES = tuple(
    value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str) and "/" in value
)
FORBIDDEN_CALLS = {
    "time.time": "time.time() steps; take a Clock (only clock.py may ask the machine)",
    "datetime.now": "datetime.now() steps; take a Clock",
    "datetime.utcnow": "datetime.utcnow() steps; take a Clock",
    "datetime.datetime.now": "datetime.now() steps; take a Clock",
    "os.system": "os.system() runs a shell",
    "os.popen": "os.popen() runs a shell",
    "yaml.load": "yaml.load() builds arbitrary objects",
    "yaml.unsafe_load": "yaml.unsafe_load() builds arbitrary objects",
}
FORBIDDEN_METHODS = {"extractall": "extractall() trusts the archive's paths and sizes"}
NEEDS_TIMEOUT = re.compile(r"^(requests\.(get|put|post|delete|head|request)|(urllib\.request\.)?urlopen)$")


def _offences(source: str, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        for message in _offences_of(node, name):
            yield f"{name}:{getattr(node, 'lineno', 0)}: {message}"


def _offences_of(node: ast.AST, name: str) -> Iterator[str]:
    match node:
        case ast.Call(func=function, keywords=keywords):
            called = ast.unparse(function)
            given = {keyword.arg: keyword.value for keyword in keywords}
            if called in FORBIDDEN_CALLS and not (called == "time.time" and name.endswith("sked_core/clock.py")):
                yield FORBIDDEN_CALLS[called]
            if isinstance(function, ast.Attribute) and function.attr in FORBIDDEN_METHODS:
                yield FORBIDDEN_METHODS[function.attr]
            if "shell" in given and ast.unparse(given["shell"]) != "False":
                yield "shell=True"
            if NEEDS_TIMEOUT.match(called) and "timeout" not in given:
                yield f"{called}() without a timeout can hang for ever"
        case ast.ExceptHandler(type=kind, body=body):
            if kind is None:
                yield "bare except: also catches KeyboardInterrupt and SystemExit"
            if all(isinstance(statement, ast.Pass) for statement in body):
                yield "an exception is dropped without a word (contextlib.suppress says which, and that it is meant)"
        case (
            ast.JoinedStr(values=[ast.Constant(value=str(start)), *_])
            | ast.BinOp(left=ast.Constant(value=str(start)), op=ast.Add())
        ) if start.startswith(KEY_PREFIXES) and not name.endswith("sked_core/model/keys.py"):
            yield f"spells a key ({start}…): only model/keys.py may"


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "from datetime import datetime\ndatetime.now()",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import yaml\nyaml.load(text)",
        "archive.extractall(folder)",
        "import requests\nrequests.get(url)",
        "from urllib.request import urlopen\nurlopen(url)",
        "try:\n    work()\nexcept ValueError:\n    pass",
        "try:\n    work()\nexcept:\n    raise",
        "key = f'state/tasks/{name}'",
        "key = 'config/services/' + name",
    ],
)
def test_each_guard_catches_what_it_is_for(source):
    assert len(list(_offences(source, "sked_core/example.py"))) == 1


def test_the_packages_do_nothing_that_is_forbidden():
    offences = [line for path in SOURCES for line in _offences(path.read_text(), path.relative_to(ROOT).as_posix())]
    assert not offences, "\n".join(offences)


def test_core_stays_small_enough_to_read():
    counts = {path: len(path.read_text().splitlines()) for path in SOURCES}
    long = [f"{path.relative_to(ROOT)}: {count} lines" for path, count in counts.items() if count > MAX_FILE_LINES]
    assert not long, f"split along a real seam: {long}"
    core = sum(counts[path] for path in CORE if "testing" not in path.relative_to(ROOT).parts)
    assert core <= MAX_CORE_LINES


def test_no_file_names_a_place_that_only_one_machine_has():
    # Put together from parts, so that this file does not name them either.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("deb", "debian", "org"))]
    private = re.compile("|".join([*map(re.escape, hosts), "/wor" + r"k/(main|shared|\.)"]))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        text = path.read_text(errors="replace") if path.is_file() else ""
        found += [f"{name}: {match[0]}" for match in private.finditer(text)]
    assert not found
