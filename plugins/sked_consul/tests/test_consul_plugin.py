"""The plugin is found by its name, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rigs.scratch import keeps_to_itself
from sked_consul import plugin
from sked_consul.health import ConsulHealth
from sked_consul.store import ConsulStore
from sked_core.plugin import HealthContext, SystemClock
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.needed import lacking


def test_the_schemes_lead_to_consul() -> None:
    plugins = Plugins.load()
    for scheme in ("consul", "consul+http", "consul+https"):
        url = f"{scheme}://127.0.0.1:8500"
        store = plugins.storage(scheme)(url)
        health = plugins.health(scheme)(HealthContext(store, url, "", SystemClock()))
        assert isinstance(store, ConsulStore)
        assert isinstance(health, ConsulHealth)
        health.close()
        store.close()
        health.close()
        store.close()


def test_the_check_of_plugins_says_what_it_needs_to_try_it(monkeypatch: pytest.MonkeyPatch, free_port: Any) -> None:
    monkeypatch.delenv("CONSUL_HTTP_ADDR", raising=False)
    for sample in plugin.sked_samples():
        assert lacking(sample).startswith("needs CONSUL_HTTP_ADDR")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{free_port()}")
    for sample in plugin.sked_samples():
        assert lacking(sample).startswith("needs a Consul that answers at CONSUL_HTTP_ADDR")


def test_the_check_of_plugins_keeps_to_keys_of_its_own(
    consul: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.removeprefix("consul://"))
    store, health = plugin.sked_samples()
    keeps_to_itself(store, ConsulStore(consul), tmp_path)
    assert lacking(health) == ""


def test_importing_it_imports_no_client() -> None:
    look = "import sys, sked_consul.plugin; print({'consul', 'requests', 'urllib3', 'msgspec.json'} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert "urllib3" not in seen.stdout
    assert "requests" not in seen.stdout
    assert "'consul'" not in seen.stdout
