"""Every manifest of tests/corpus does what its first line says, with the real executors."""

import io
import re
from pathlib import Path

import msgspec
import pytest

from sked_core.errors import InvalidManifest
from sked_core.model.manifest import StoredConfig, report
from sked_core.model.validate import validate
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.sources import load_sources

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
WITHOUT_PLACE = {"nothing-declared", "empty"}


@pytest.fixture(scope="module")
def executors():
    checkers = spec_checkers(Plugins.load())
    assert {"bash", "docker"} <= checkers.keys(), "the corpus needs sked-bash and sked-docker installed"
    return checkers


def expectation(file):
    return file.read_bytes().split(b"\n", 1)[0].decode("utf-8-sig").strip().removeprefix("# expect: ")


def apply(file, executors):
    sources = load_sources([str(file)], io.BytesIO())
    return validate(sources, stored=StoredConfig(), executors=executors, schedulers=["default"])


def in_words(expected):
    """The pieces of a message that a first line asks for: ``mni: unknown field, min suggested`` is three."""
    for piece in re.split(r": |, ", expected):
        if piece.endswith(" suggested"):
            yield f'did you mean "{piece.removesuffix(" suggested")}"?'
        elif piece not in ("all five", "with line and column"):
            yield piece


@pytest.mark.parametrize("file", sorted((CORPUS / "bad").iterdir()), ids=lambda file: file.stem)
def test_a_bad_manifest_is_refused_and_the_message_names_the_fault(file, executors):
    with pytest.raises(InvalidManifest) as caught:
        apply(file, executors)
    text = report(caught.value.problems)
    for piece in in_words(expectation(file)):
        assert piece in text
    assert text.replace("\n", "").isprintable()
    lines = re.split(r"\r\n|\n", file.read_bytes().decode("utf-8", "replace"))
    for problem in caught.value.problems:
        assert problem.file == str(file)
        if file.stem not in WITHOUT_PLACE:
            assert lines[problem.line - 1][problem.column - 1 :][:1] != " "
            assert problem.line > 1 and problem.column >= 1


def test_five_mistakes_are_five_problems(executors):
    with pytest.raises(InvalidManifest) as caught:
        apply(CORPUS / "bad" / "many-mistakes.yml", executors)
    assert [problem.path for problem in caught.value.problems] == [
        "clusters[0].name",
        "services[0].task_version",
        "services[0].desired",
        "services[0].mni",
        "task_definitions[0].containers[0].checks[0].interval",
    ]


@pytest.mark.parametrize("file", sorted((CORPUS / "good").iterdir()), ids=lambda file: file.stem)
def test_a_good_manifest_applies(file, executors):
    manifest = apply(file, executors)
    warned = "\n".join(map(str, manifest.warnings))
    expected = expectation(file).removeprefix("applies").removeprefix("; ")
    assert bool(warned) == ("a warning says" in expected)
    if "a warning says" in expected:
        assert expected.removeprefix("a warning says that ").removeprefix("there is ") in warned
    elif " is stored as " in expected:
        field, _, value = expected.partition(" is stored as ")
        stored = msgspec.json.encode(manifest.task_definitions).decode()
        assert f'"{field}":{value}' in stored or f'"{field}":"{value}"' in stored
    elif expected == "version is ten":
        assert [definition.version for definition in manifest.task_definitions] == [10]
    elif expected == "env values stay as written":
        assert manifest.task_definitions[0].containers[0].executor["env"] == ["A=no", "B=22:22", "C=010"]
    else:
        assert expected == ""
