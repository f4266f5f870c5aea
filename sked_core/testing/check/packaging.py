"""The rules of packaging: what makes a plugin one that other people can install, import, trust and keep."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution, EntryPoint
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from sked_core import __version__
from sked_core.model.first_party import LOCKSTEP
from sked_core.runtime.plugins.registry import PluginRow
from sked_core.runtime.plugins.requirements import mismatch
from sked_core.runtime.plugins.rules import normal
from sked_core.testing.check.findings import Finding, judged

PART = "packaging"
PUBLIC = ("sked_core.plugin", "sked_core.testing")
SLOW_SECONDS = 1.0
"""What a plugin may add to the start of every command that needs plugins: heavy libraries belong into factories."""
IMPORT_SECONDS = 60.0
TO_WRITE = "Write here"
"""How the scaffold marks what only the author can write."""
_IMPORT = """
import contextlib, io, json, sys, threading, time
import sked_core.plugin
said, began = io.StringIO(), time.perf_counter()
with contextlib.redirect_stdout(said):
    __import__(sys.argv[1])
print(json.dumps([time.perf_counter() - began, said.getvalue()[:200], [one.name for one in threading.enumerate()[1:]]]))
"""


def look(dist: Distribution, points: Sequence[EntryPoint], rows: Iterable[PluginRow]) -> Iterator[Finding]:
    """Each rule's finding about ``dist``, whose entry points are ``points`` and shown as ``rows``. Imports it in
    processes of their own."""
    yield judged(PART, "it is loaded and offers names that are its own", [row.error for row in rows if row.error])
    yield judged(PART, "its metadata is whole: version, summary, readme, licence, Python", _gaps(dist))
    yield judged(PART, "it says which sked-core it needs, and this one will do", _core(dist))
    yield judged(PART, "it puts nothing into site-packages but what is its own", _strangers(dist, points))
    folders = [folder for point in points if (folder := _folder(point))]
    typed = [] if all((folder / "py.typed").is_file() for folder in folders) else ["there is no file py.typed in it"]
    yield judged(PART, "it is typed for those who import it", typed)
    sources = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    yield _public(dist, _imports(sources))
    for point in points:
        yield judged(PART, f"importing {point.module} is quick and quiet", _importing(point.module))
    texts = [("its summary", _said(dist, "Summary")), ("its readme", _readme(dist))]
    texts += [(path.name, path.read_text(errors="replace")) for path in sources]
    yield judged(
        PART, "nothing is left to write", [f"{name} says {TO_WRITE!r}" for name, text in texts if TO_WRITE in text]
    )


def _said(dist: Distribution, field: str) -> str:
    return "\n".join(dist.metadata.get_all(field) or ())


def _readme(dist: Distribution) -> str:
    # Newer metadata has it as the body of the message, older as a field of it.
    return _said(dist, "Description") or (dist.read_text("METADATA") or "").partition("\n\n")[2]


def _gaps(dist: Distribution) -> list[str]:
    found = []
    try:
        Version(dist.version)
    except InvalidVersion:
        found.append(f"{dist.version} is no version (PEP 440)")
    if not _said(dist, "Summary"):
        found.append("no summary: project.description")
    if not _readme(dist):
        found.append("no readme: project.readme")
    licences = _said(dist, "License-Expression") or _said(dist, "License")
    if not licences and "License ::" not in _said(dist, "Classifier"):
        found.append("no licence: project.license")
    if not _said(dist, "Requires-Python"):
        found.append("no Python version: project.requires-python")
    return found


def _needs(dist: Distribution) -> list[Requirement]:
    """What it asks for of sked-core, unless only for an extra."""
    found = []
    for line in dist.requires or ():
        try:
            asked = Requirement(line)
        except InvalidRequirement:
            continue
        counts = asked.marker is None or asked.marker.evaluate({"extra": ""})
        if normal(asked.name) == "sked-core" and counts:
            found.append(asked)
    return found


def _core(dist: Distribution) -> list[str]:
    needs = _needs(dist)
    if not needs:
        return ["project.dependencies does not name sked-core"]
    rules = [rule for asked in needs for rule in asked.specifier]
    found = []
    if not any(rule.operator in (">=", "~=", "==", ">") for rule in rules):
        found.append(f"no least version: sked-core>={__version__}")
    return found + list(filter(None, [mismatch(dist.metadata["Name"], dist.requires or ())]))


def _strangers(dist: Distribution, points: Sequence[EntryPoint]) -> list[str]:
    """Whatever it installs at the top that is none of its packages: mostly a folder ``tests``."""
    own = {point.module.partition(".")[0] for point in points}
    tops = {path.parts[0] for path in dist.files or () if path.suffix == ".py" and path.parts[0] != ".."}
    strange = [top for top in sorted(tops) if top.removesuffix(".py") not in own]  # a package may be one module
    return [f"it also installs {top}" for top in strange if not top.endswith((".dist-info", ".data"))]


def _folder(point: EntryPoint) -> Path | None:
    """Where its package lies; None for a single module, or one that can't be found."""
    try:
        spec = find_spec(point.module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _public(dist: Distribution, private: Sequence[str]) -> Finding:
    """``private``: each import that is not public. Those of a package that is released with core can't be outlived by
    what they import."""
    if private and normal(dist.metadata["Name"]) in LOCKSTEP:
        other = [] if dist.version == __version__ else [f"it is {dist.version}, sked-core is {__version__}"]
        return judged(PART, "it uses more of Sked than the API: it is Sked's own, and of the same version", other)
    return judged(PART, "it imports sked_core.plugin and sked_core.testing, and nothing else of Sked", private)


def _imports(sources: Iterable[Path]) -> list[str]:
    found = []
    for path in sources:
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            found.append(f"{path.name} can't be read: {error}")
            continue
        for name, line in _imported(tree):
            if name.split(".")[0] == "sked_core" and not any(name == ok or name.startswith(ok + ".") for ok in PUBLIC):
                found.append(f"{path.name}:{line} imports {name}")
    return found


def _imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for one in ast.walk(tree):
        if isinstance(one, ast.Import):
            yield from ((alias.name, one.lineno) for alias in one.names)
        elif isinstance(one, ast.ImportFrom) and not one.level and one.module:
            if one.module == "sked_core":
                yield from ((f"sked_core.{alias.name}", one.lineno) for alias in one.names)
            else:
                yield one.module, one.lineno


def _importing(module: str) -> list[str]:
    command = [sys.executable, "-c", _IMPORT, module]
    for _ in range(3):  # whatever else the machine does makes it slow now and then: the quickest counts
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, timeout=IMPORT_SECONDS, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return [f"it took more than {IMPORT_SECONDS:g} s"]
        if ran.returncode:
            return ran.stderr.strip().splitlines()[-1:] or [f"it ended with {ran.returncode}"]
        seconds, said, threads = json.loads(ran.stdout.splitlines()[-1])
        if seconds <= SLOW_SECONDS:
            break
    found = [f"it took {seconds:.1f} s: import what is heavy in the factory"] if seconds > SLOW_SECONDS else []
    found += [f"it printed {said!r}"] if said else []
    return found + ([f"it left threads: {', '.join(threads)}"] if threads else [])
