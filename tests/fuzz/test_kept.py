"""What fuzzing has found to reach something new goes through the same judges with every change, without atheris."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fuzz.targets import KEPT, TARGETS
from sked_core.errors import InvalidValue, Problem
from sked_core.model import codec
from sked_core.model.policy import Policy


def target(name: str) -> Any:
    return importlib.import_module(f"fuzz.targets.{name}")


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_and_what_fuzzing_begins_with_breaks_nothing(name: str) -> None:
    judge: Callable[[bytes], None] = target(name).judge
    seeds = list(target(name).seeds())
    kept = sorted((KEPT / name).iterdir())
    assert len(seeds) > 2 and len(kept) > 10
    for file in kept:
        judge(file.read_bytes())
    for seed in seeds:
        judge(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_changes_by_structure_break_nothing_either(name: str) -> None:
    mutate = getattr(target(name), "mutate", None)
    if mutate is None:
        return
    for number, seed in enumerate(target(name).seeds()):
        for turn in range(3):
            target(name).judge(mutate(seed, 7 * number + turn))


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_is_small(name: str) -> None:
    sizes = [file.stat().st_size for file in (KEPT / name).iterdir()]
    assert len(sizes) < 300 and sum(sizes) < 500_000


def test_the_judge_of_the_codec_notices_a_field_that_gets_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = codec.encode
    monkeypatch.setattr(codec, "encode", lambda value: honest(value).replace(b'"datacenter":"a"', b'"datacenter":""'))
    with pytest.raises(AssertionError):
        target("codec").judge(b'{"name":"web","datacenter":"a"}')


def test_the_judge_of_the_codec_notices_another_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "decode", lambda data, kind: msgspec.json.decode(data, type=kind))
    with pytest.raises(msgspec.DecodeError):
        target("codec").judge(b"{")


def test_the_judge_of_manifests_notices_a_message_with_raw_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = target("yaml_loader")

    def careless(data: bytes, file: str) -> Any:
        return _Source((Problem("", data.decode(), file, 1, 1),))

    monkeypatch.setattr(module, "parse", careless)
    with pytest.raises(AssertionError):
        module.judge(b"\x1b[2J")


def test_the_judge_of_flags_notices_one_that_takes_a_label_of_sked(monkeypatch: pytest.MonkeyPatch) -> None:
    module = target("docker_flags")
    flag = module.flags.FLAGS[0]
    label = module.flags.Flag(flag.name, "Labels", module.flags.values.pair, module.flags.Gather.MERGE)
    monkeypatch.setitem(module.flags._BY_NAME, flag.name, label)
    with pytest.raises(AssertionError):
        module.judge(f"--{flag.name}=sked.task=another".encode())


def test_the_judge_of_policies_notices_one_that_allows_what_it_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = target("policy_file")
    monkeypatch.setattr(module, "denials", lambda *_: [])
    with pytest.raises(AssertionError):
        module.judge(b"executors: [bash]\n")


def test_the_judge_of_policies_notices_one_with_a_mistake_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = target("policy_file")
    honest = module.parse
    monkeypatch.setattr(module, "parse", lambda *of: (Policy(executors=["docker", "bash"]), honest(*of)[1]))
    with pytest.raises(AssertionError):
        module.judge(b"executors: [bash]\nexcutors: [docker]\n")


class _Source:
    documents = ()

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems


def test_the_judges_let_documented_errors_pass() -> None:
    with pytest.raises(InvalidValue):
        codec.decode(b"[", dict)
    target("codec").judge(b"[")
