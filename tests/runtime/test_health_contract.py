"""The built-in probes pass what every health provider has to."""

from __future__ import annotations

from pathlib import Path

from sked_core.runtime.health.probes import ProbeHealth
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.health_contract import HealthContract
from sked_core.testing.samples import HealthPlace, HealthSample


def a_place(_folder: Path) -> HealthPlace:
    return HealthPlace(open=MemoryStore().client, url="memory://")


class TestProbes(HealthContract):
    sample = HealthSample(scheme="probes", make=ProbeHealth, fresh=a_place)
