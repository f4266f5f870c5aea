"""Every manifest of the corpus through the command line, on a real embedded store: applied whole, or refused with the
field named and not a byte of the store changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sked_core.interfaces.store import Entry, Store
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.surface import cli

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
GOOD, BAD = (sorted((CORPUS / kind).iterdir()) for kind in ("good", "bad"))
SKED = Path(sys.executable).parent / "sked"
BY_PROCESS = ("alias-bomb", "deep-nesting", "many-mistakes", "lone-surrogate", "escape-byte", "utf-16", "huge-number")
"""Those that could take a whole process down, or whose output could do harm, are also tried as users would."""


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """Plugins are found once instead of for each of some 150 commands."""
    found = Plugins.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plugins, "load", classmethod(lambda cls, _rules=None: found))
        yield


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in [name for name in os.environ if name.startswith("SKED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return f"sqlite://{tmp_path / 'sked.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """The store, with a first apply in it, so that there is something to be spoilt."""
    store = open_store(url, Plugins([]))
    assert cli.run(["--backend", url, "apply", "-f", str(CORPUS / "good" / "minimal.yml")]) == 0
    yield store
    store.close()


def content(store: Store) -> dict[str, Entry]:
    """Everything in it, with revisions."""
    return {
        key: entry
        for prefix in ("config/", "state/", "meta/", "hosts/", "locks/", "health/", "reports/", "status/")
        for key, entry in store.read(prefix).entries.items()
    }


def first_line(file: Path) -> str:
    return file.read_bytes().split(b"\n", 1)[0].decode("utf-8-sig").strip().removeprefix("# expect: ")


def in_words(expected: str) -> Iterator[str]:
    """The pieces that a message must hold, as in tests/model/test_corpus.py."""
    for piece in re.split(r": |, ", expected):
        if piece.endswith(" suggested"):
            yield f'did you mean "{piece.removesuffix(" suggested")}"?'
        elif piece not in ("all five", "with line and column"):
            yield piece


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_a_good_manifest_applies_and_applies_again(url: str, file: Path, capsys) -> None:
    command = ["--backend", url, "apply", "-f", str(file)]
    assert cli.run(command) == 0
    out, err = capsys.readouterr()
    assert {line.split()[1] for line in out.splitlines()} == {"created"}
    assert ("warning" in err) == ("a warning says" in first_line(file))
    store = open_store(url, Plugins([]))
    before = content(store)
    assert len([key for key in before if key.startswith("config/")]) == len(out.splitlines())
    assert cli.run(command) == 0
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == {"unchanged"}
    assert content(store) == before
    store.close()


def refused(store: Store, file: Path, run: Callable[[list[str]], tuple[int, str, str]], url: str) -> None:
    before = content(store)
    code, out, err = run(["--backend", url, "apply", "-f", str(file)])
    assert (code, out) == (3, "")
    for piece in in_words(first_line(file)):
        assert piece in err
    assert str(file) in err
    assert "Traceback" not in err
    assert err.replace("\n", "").isprintable()
    assert content(store) == before


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_bad_manifest_is_refused_and_the_store_is_unchanged(store: Store, url: str, file: Path, capsys) -> None:
    def run(command: list[str]) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(command)
        return (code, *capsys.readouterr())

    refused(store, file, run, url)


@pytest.mark.parametrize("name", BY_PROCESS)
def test_a_dangerous_one_is_refused_by_a_real_process_as_well(store: Store, url: str, name: str) -> None:
    def run(command: list[str]) -> tuple[int, str, str]:
        done = subprocess.run([str(SKED), *command], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    refused(store, CORPUS / "bad" / f"{name}.yml", run, url)


def test_bad_ones_beside_good_ones_keep_all_from_being_written(store: Store, url: str, capsys) -> None:
    before = content(store)
    for kind in ([GOOD[3], BAD[5]], [BAD[7], GOOD[0]]):
        options = [word for file in kind for word in ("-f", str(file))]
        assert cli.run(["--backend", url, "apply", *options]) == 3
    assert cli.run(["--backend", url, "apply", "-f", str(CORPUS / "bad")]) == 3
    err = capsys.readouterr().err
    # All files of the folder are reported at once, not just the first that is wrong.
    assert sum(str(file) in err for file in BAD) > 50
    assert content(store) == before
