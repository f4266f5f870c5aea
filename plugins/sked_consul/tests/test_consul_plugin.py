"""The plugin is found by its name, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

from sked_consul.health import ConsulHealth
from sked_consul.store import ConsulStore
from sked_core.plugin import HealthContext, SystemClock
from sked_core.runtime.plugins.registry import Plugins


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


def test_importing_it_imports_no_client() -> None:
    look = "import sys, sked_consul.plugin; print({'consul', 'requests', 'urllib3', 'msgspec.json'} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert "urllib3" not in seen.stdout
    assert "requests" not in seen.stdout
    assert "'consul'" not in seen.stdout
