"""ConsulHealth passes what every health provider has to, on a real agent behind a proxy that can cut it off."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs.needs import services_env
from sked_consul.plugin import open_health, open_store
from sked_core.testing.health_contract import HealthContract
from sked_core.testing.samples import HealthPlace, HealthSample
from sked_core.testing.store_contract.proxy import Proxy


def a_place(_folder: Path) -> HealthPlace:
    proxy = Proxy(services_env()["CONSUL_HTTP_ADDR"].removeprefix("http://"))
    url = f"consul://{proxy.address}"
    return HealthPlace(open=lambda: open_store(url), url=url, outage=proxy.away)


@pytest.mark.usefixtures("consul")
class TestConsul(HealthContract):
    sample = HealthSample(scheme="consul", make=open_health, fresh=a_place)
