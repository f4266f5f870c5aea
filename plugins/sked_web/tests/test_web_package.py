"""The command that this package adds passes what every plugin's has to."""

from __future__ import annotations

from sked_core.testing.package_contract import PackageContract
from sked_core.testing.samples import PackageSample


class TestPackage(PackageContract):
    sample = PackageSample(plugin="sked_web.plugin")
