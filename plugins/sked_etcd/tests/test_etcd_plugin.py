"""The plugin is found by its name, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rigs.scratch import keeps_to_itself
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.needed import lacking
from sked_etcd import plugin
from sked_etcd.store import EtcdStore


def test_the_schemes_lead_to_etcd() -> None:
    plugins = Plugins.load()
    for scheme in ("etcd", "etcd+http", "etcd+https"):
        store = plugins.storage(scheme)(f"{scheme}://127.0.0.1:2379")
        assert isinstance(store, EtcdStore)
        store.close()
        store.close()


def test_the_check_of_plugins_says_what_it_needs_to_try_it(monkeypatch: pytest.MonkeyPatch, free_port: Any) -> None:
    (sample,) = plugin.sked_samples()
    monkeypatch.delenv("ETCDCTL_ENDPOINTS", raising=False)
    assert lacking(sample).startswith("needs ETCDCTL_ENDPOINTS")
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", f"127.0.0.1:{free_port()}")
    assert lacking(sample).startswith("needs an etcd that answers at ETCDCTL_ENDPOINTS")


def test_the_check_of_plugins_keeps_to_keys_of_its_own(
    etcd: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", etcd.removeprefix("etcd://"))
    keeps_to_itself(plugin.sked_samples()[0], EtcdStore(etcd), tmp_path)


def test_importing_it_imports_no_client() -> None:
    look = "import sys, sked_etcd.plugin; print('grpc' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert seen.stdout == "False\n"


def test_what_it_sets_for_grpc_is_not_inherited_by_programs_that_it_starts() -> None:
    look = "import os; old = dict(os.environ); import sked_etcd.store; print(old == dict(os.environ))"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert seen.stdout == "True\n"
