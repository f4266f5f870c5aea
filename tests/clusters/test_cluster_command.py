"""The clusters themselves: one command up, one down, nothing left; and what they are where there are no namespaces."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from rigs import clusters
from rigs.network import Loopback
from sked_core.interfaces.store import Put, Store
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

ROOT = Path(__file__).resolve().parent.parent.parent


def command(action: str, kind: str, name: str) -> str:
    arguments = [ROOT / "scripts" / "services", "cluster", action, kind, name]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def traces(name: str) -> list[str]:
    """Processes, namespaces and files that are there by this name."""
    named = ["ip", "netns", "list"] if os.geteuid() == 0 else ["true"]
    spaces = subprocess.run(named, capture_output=True, text=True, timeout=30).stdout.split()
    running = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    files = [str(path) for path in (ROOT / ".services" / "clusters").glob("*")]
    return [each for each in (*spaces, *running, *files) if name in each]


@pytest.fixture(params=["consul", "etcd"])
def kind(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue(request.param)  # or a skip with the reason
    return str(request.param)


def open_backend(url: str) -> Store:
    return open_store(url, Plugins.load())


def test_one_command_brings_a_cluster_up_and_one_takes_all_of_it_away(kind: str) -> None:
    name = f"x{secrets.token_hex(4)}"
    try:
        (first,) = [line for line in command("up", kind, name).splitlines() if line.startswith("SKED_BACKEND=")]
        store = open_backend(first.partition("=")[2])
        store.commit([Put("color", b"blue")])
        store.close()
        (again,) = [line for line in command("up", kind, name).splitlines() if line.startswith("SKED_BACKEND=")]
        store = open_backend(again.partition("=")[2])
        assert store.read("color").entries == {}, "up again: a new one, and nothing of the old one in its way"
        store.close()
        assert traces(name)
    finally:
        command("down", kind, name)
    assert traces(name) == []


def test_without_namespaces_a_cluster_has_loopback_addresses_and_can_not_be_cut(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(clusters, "network", Loopback)
    cluster: Any = clusters.KINDS[kind](f"y{secrets.token_hex(4)}", tmp_path, request.getfixturevalue(f"{kind}_binary"))
    try:
        cluster.up()
        dead = cluster.leader()
        dead.kill()
        assert cluster.leader() is not dead
        store = open_backend(cluster.url)
        store.commit([Put("color", b"blue")])
        assert set(store.read("color").entries) == {"color"}
        store.close()
        assert not cluster.splits
        with pytest.raises(NotImplementedError, match="not a namespace"):
            cluster.cut(cluster.hosts[0].place)
    finally:
        cluster.down()
    assert list(tmp_path.iterdir()) == []
