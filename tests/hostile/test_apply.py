"""The first door: `sked apply`. Every manifest of the corpus is refused with file, place and field, or accepted in the
form that its first line says; nothing is written otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.conftest import SECRET, Notes
from hostile.corpus import Case, manifests
from hostile.make import manifest, stale
from rigs.contents import contents
from sked_core.interfaces.store import Store
from sked_core.model.yaml_source import MAX_BYTES
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.surface import cli

DOOR = "apply"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("apply")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Store]:
    """A store with something in it that could be spoilt."""
    good = folder / "good.json"
    import json

    good.write_text(
        json.dumps(manifest(service={"name": "good"}, clusters=[{"name": "default", "services": ["good"]}]))
    )
    opened = open_store(f"sqlite://{folder / 'sked.db'}", Plugins.load())
    assert cli.run(["--backend", f"sqlite://{folder / 'sked.db'}", "apply", "-f", str(good)]) == 0
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SKED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def applied(
    folder: Path, file: Path, capsys: pytest.CaptureFixture[str], *, command: str = "apply"
) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run(["--backend", f"sqlite://{folder / 'sked.db'}", command, "-f", str(file)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err and SECRET not in out + err
    assert (out + err).replace("\n", "").isprintable()
    return code, out, err


@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize("case", manifests(), ids=lambda case: case.name)
def test_a_hostile_manifest_is_refused_or_stored_as_expected(
    case: Case, folder: Path, store: Store, notes: Notes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / f"{case.name}.yml"
    file.write_bytes(case.data)
    before = contents(store)
    if case.verdict == "normalised" or case.pieces()[0] == "policy":
        # Only validated: what is stored is what is validated, and the store stays as it is for the other cases.
        code, out, err = applied(folder, file, capsys, command="validate")
        assert code == 0, err
        assert contents(store) == before
        notes.add(case, "normalised" if case.verdict == "normalised" else "left to the gates")
        return
    code, out, err = applied(folder, file, capsys)
    assert (code, out) == (3, ""), err
    for piece in case.pieces():
        assert piece in err
    assert f"{file}:" in err
    assert contents(store) == before
    notes.add(case, "refused")


@pytest.mark.parametrize(
    "case", [case for case in manifests() if case.verdict == "normalised"], ids=lambda case: case.name
)
def test_what_is_accepted_is_stored_in_one_form(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "case.yml"
    file.write_bytes(case.data)
    code, _, err = applied(tmp_path, file, capsys)
    assert code == 0, err
    field, _, value = case.expect.partition(":")[2].partition("=")
    opened = open_store(f"sqlite://{tmp_path / 'sked.db'}", Plugins.load())
    stored = b"\n".join(value for key, value in contents(opened).items() if key.startswith("config/"))
    opened.close()
    assert f'"{field}":{value}'.encode() in stored


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "loop", "environment", "missing", "huge", "socket-folder"])
def test_what_is_no_file_is_refused_at_once(
    kind: str, folder: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], notes: Notes
) -> None:
    """D11 and D16."""
    path = tmp_path / kind
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder" | "socket-folder":
            path.mkdir()
        case "zero":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "environment":
            path.symlink_to("/proc/self/environ")
        case "huge":
            with path.open("wb") as file:
                file.truncate(50 * MAX_BYTES)
    before = contents(store)
    code, out, err = applied(folder, path, capsys)
    assert code == 3, err
    assert out == "" and str(path) in err
    assert contents(store) == before


@pytest.mark.parametrize("host", ["a/b", "..", "", "a b", "a\x1b[2J", "\u202e", "x" * 254])
def test_an_agent_of_no_name_refuses_to_start(host: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A40."""
    if not host:
        return
    capsys.readouterr()
    code = cli.run(
        ["--backend", f"sqlite://{folder / 'sked.db'}", "run", "agent", "--host", host, "--policy", "development"]
    )
    err = capsys.readouterr().err
    assert code == 2
    assert "host" in err and err.replace("\n", "").isprintable()


def test_the_files_are_those_of_the_program() -> None:
    assert list(stale()) == [], "run: python tests/hostile/make.py"
