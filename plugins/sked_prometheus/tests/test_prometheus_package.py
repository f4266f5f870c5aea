"""What every plugin has to pass."""

from __future__ import annotations

from sked_core.testing.package_contract import PackageContract
from sked_core.testing.samples import PackageSample


class TestPackage(PackageContract):
    sample = PackageSample(plugin="sked_prometheus.plugin")
