"""What `sked plugins check` tries this with: the Consul that CONSUL_HTTP_ADDR names, below prefixes of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sked_consul.address import parse_address
from sked_consul.plugin import open_health, open_store
from sked_core.testing.samples import HealthPlace, HealthSample, Sample, StoreSample
from sked_core.testing.scratch import Scratch
from sked_core.testing.store_contract.proxy import Proxy

URL = "consul://"
"""Whatever the environment says."""
VARIABLE = "CONSUL_HTTP_ADDR"
TOO_LARGE = 360 * 1024 + 1
"""480 KiB of base64 is what a transaction takes."""


def samples() -> Sequence[Sample]:
    """One of the store, and one of the health provider, whose services are those of the agent for a while."""
    scratch = Scratch(lambda: open_store(URL))
    store = StoreSample(
        scheme="consul", fresh=scratch.fresh, clear=scratch.clear, needs=lambda: _lacks(scratch), too_large=TOO_LARGE
    )

    def fresh(folder: Path) -> HealthPlace:
        address = parse_address(URL, os.environ)
        proxy = Proxy(f"{address.host}:{address.port}")
        return HealthPlace(open=scratch.fresh(folder), url=f"consul+http://{proxy.address}", outage=proxy.away)

    def needs() -> str:
        if what := _lacks(scratch):
            return what
        secure = parse_address(URL, os.environ).secure
        return "an agent that is asked over http: an outage can't be made of one with TLS" if secure else ""

    health = HealthSample(scheme="consul", make=open_health, fresh=fresh, clear=scratch.clear, needs=needs)
    return [store, health]


def _lacks(scratch: Scratch) -> str:
    if not os.environ.get(VARIABLE):
        return f"{VARIABLE}: a Consul in which keys below sked-check/ may be written"
    refused = scratch.refused()
    return f"a Consul that answers at {VARIABLE}: {refused}" if refused else ""
