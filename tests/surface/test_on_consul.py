"""The same commands with a real Consul behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from sked_core.interfaces.store import Delete, Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Host, Liveness, Mark
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins


@pytest.fixture
def prefix(consul: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A part of the shared Consul for one test, chosen by the environment and emptied afterwards."""
    prefix = f"test-surface-{uuid4().hex[:12]}"
    monkeypatch.setenv("SKED_BACKEND", consul)
    monkeypatch.setenv("SKED_PREFIX", prefix)
    yield prefix
    whole = open_store(consul, Plugins.load())
    for key in whole.read(f"{prefix}/").entries:
        whole.commit([Delete(key)])
    whole.close()


@pytest.fixture
def store(consul: str, prefix: str) -> Iterator[Store]:
    store = open_store(consul, Plugins.load(), prefix)
    yield store
    store.close()


def test_every_listing_of_an_empty_store_is_empty(sked, prefix) -> None:
    for command in ("tasks", "services", "clusters", "hosts"):
        ran = sked(command, "-o", "json")
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out)["items"] == []


def test_apply_scale_drain_and_delete(sked, store, manifest, issue, task) -> None:
    assert sked("apply", "-f", str(manifest)).code == 0
    assert "unchanged" in sked("apply", "-f", str(manifest)).out
    assert sked("scale", "web", "9").code == 0
    store.commit([Put(keys.host("h-1"), encode(Host(name="h-1")))])
    assert sked("drain", "h-1").code == 0
    assert keys.mark("h-1") in store.read(keys.MARKS).entries
    issue(task(service="web", version=1))
    line = sked("tasks").out.splitlines()[2]
    assert line.split() == ["default-web-1-0", "node-1.local", "false", "default", "web", "web", "1", "false"]
    (service,) = json.loads(sked("services", "-o", "json").out)["items"]
    assert (service["desired"], service["max"], service["clusters"][0]["issued"]) == (9, 12, 1)
    assert sked("delete", "service/web", "-y", "--cascade").code == 0
    assert sked("scale", "web", "1").code == 4


def test_what_was_planned_is_applied_or_what_was_written_since_is_named(sked, store, manifest) -> None:
    for name in ("h-1", "h-2"):
        host = Host(name=name, executors=["bash"])
        store.commit([Put(keys.host(name), encode(host)), Put(keys.live(name), encode(Liveness("a")))])
    (plan,) = json.loads(sked("plan", "-f", str(manifest), "-o", "json").out)["items"]
    assert [one["host"] for one in plan["services"][0]["new"]] == ["h-1", "h-2"]
    store.commit([Put(keys.mark("h-2"), encode(Mark("cordoned")))])
    refused = sked("apply", "-f", str(manifest), "--if-revision", plan["revision"])
    assert refused.code == 5 and "written since: hosts/marks/h-2\n" in refused.err
    (plan,) = json.loads(sked("plan", "-f", str(manifest), "-o", "json").out)["items"]
    assert sked("apply", "-f", str(manifest), "--if-revision", plan["revision"]).code == 0
