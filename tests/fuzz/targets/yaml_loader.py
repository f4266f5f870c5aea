"""Manifests: any bytes through the YAML reader and the whole validation of an apply, with the real executors."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator

import msgspec

from fuzz.examples import manifests
from fuzz.mutating import mutated
from sked_core.errors import InvalidManifest
from sked_core.model import codec
from sked_core.model.manifest import Manifest, StoredConfig, report
from sked_core.model.rules import SpecChecker
from sked_core.model.types import Cluster, Service, TaskDefinition
from sked_core.model.validate import validate
from sked_core.model.yaml_source import parse

MAX_BYTES = 4096


@functools.cache
def _executors() -> dict[str, SpecChecker]:
    from sked_core.runtime.plugins.asked import spec_checkers
    from sked_core.runtime.plugins.registry import Plugins

    return dict(spec_checkers(Plugins.load()))


def seeds() -> Iterator[bytes]:
    return manifests()


def mutate(data: bytes, seed: int) -> bytes:
    """Half of them as JSON, which is YAML as well, from whatever the reader made of the input."""
    documents = parse(data, "seed").documents
    if seed % 2 and documents:
        return mutated(json.dumps(documents[0].data).encode(), seed)
    return b""


def judge(data: bytes) -> None:
    """Raises AssertionError where a problem has no place or could drive a terminal, or where what was accepted is not
    accepted again in the form in which it is stored; anything but InvalidManifest escapes."""
    source = parse(data, "a.yml")
    lines = len(data.decode("utf-8", "replace").splitlines()) + 1
    for problem in source.problems:
        assert 0 < problem.line <= lines and problem.column > 0, problem
        _one_line(str(problem))
    manifest = _valid(data)
    if manifest is None:
        return
    assert not source.problems
    for one in (*manifest.clusters, *manifest.services, *manifest.task_definitions):
        written = codec.encode(one)
        assert codec.decode(written, type(one)) == one
    again = _valid(_as_json(manifest))
    assert again is not None, "what is stored would be refused"
    for name, kind in (("clusters", Cluster), ("services", Service), ("task_definitions", TaskDefinition)):
        assert msgspec.to_builtins(getattr(again, name)) == msgspec.to_builtins(getattr(manifest, name)), kind


def _valid(data: bytes) -> Manifest | None:
    try:
        return validate([parse(data, "a.yml")], stored=StoredConfig(), executors=_executors(), schedulers=["default"])
    except InvalidManifest as error:
        assert error.problems
        for line in report(error.problems).split("\n"):
            _one_line(line)
        return None


def _as_json(manifest: Manifest) -> bytes:
    lists = {
        "clusters": manifest.clusters,
        "services": manifest.services,
        "task_definitions": manifest.task_definitions,
    }
    return msgspec.json.encode({name: value for name, value in lists.items() if value})


def _one_line(text: str) -> None:
    assert text.isprintable() and len(text) < 4000, text
