"""The contract of the Store port as tests. To hold a store to it, in a test file of your own::

    class TestMyStore(StoreContract):
        sample = MY_STORE

Or, for a store that needs fixtures of yours, override the fixture ``open_store``, which is a callable. Each call
returns a new client of one and the same store (or of one part of it, by a prefix), which is empty when a test begins.
The suite closes the clients. The tests take real time: those with "expire" in their name need up to twice the store's
shortest ttl, each.
"""

from __future__ import annotations

import pytest

# Before they are imported, so that a failure in an author's hands shows the values.
for _part in (
    *("base", "data", "guards", "limits", "leases", "locks", "waits"),
    *("faults", "hangs", "outages", "connections"),
):
    pytest.register_assert_rewrite(f"sked_core.testing.store_contract.{_part}")

from sked_core.testing.store_contract.base import OpenStore  # noqa: E402
from sked_core.testing.store_contract.connections import ConnectionTests  # noqa: E402
from sked_core.testing.store_contract.data import DataTests  # noqa: E402
from sked_core.testing.store_contract.faults import Engine  # noqa: E402
from sked_core.testing.store_contract.guards import GuardTests  # noqa: E402
from sked_core.testing.store_contract.hangs import HangTests  # noqa: E402
from sked_core.testing.store_contract.leases import LeaseTests  # noqa: E402
from sked_core.testing.store_contract.limits import LimitTests  # noqa: E402
from sked_core.testing.store_contract.locks import LockTests  # noqa: E402
from sked_core.testing.store_contract.outages import OutageTests  # noqa: E402
from sked_core.testing.store_contract.waits import WaitTests  # noqa: E402

__all__ = ["Engine", "OpenStore", "StoreContract", "StoreFaultContract"]


class StoreContract(DataTests, GuardTests, LimitTests, LeaseTests, LockTests, WaitTests):
    """Inherit, say by ``sample`` or the fixture ``open_store`` which store, and every test runs against it.

    ``patience``, ``short_ttl``, ``too_large`` and ``requests_sent`` may be overridden: see store_contract.base.
    """


class StoreFaultContract(HangTests, OutageTests, ConnectionTests):
    """For a store whose engine can be controlled. Provide the fixtures ``engine`` (a running Engine of the test's
    own), ``address`` (its ``host:port``) and ``open_at`` (opens a client at a ``host:port``); for an engine without
    connections ``engine`` and ``open_store``.

    ``deadline`` and ``hanging`` may be overridden: see store_contract.faults.
    """
