"""Shipped for authors of plugins: fakes, builders and the contract suites (``pip install sked-core[testing]``)."""

import sys

# Before they are imported, so that a failure in an author's hands shows the values. Others need no pytest.
if "pytest" in sys.modules:
    for _kit in ("scheduler_contract", "secret_contract", "health_contract", "health_places", "package_contract"):
        sys.modules["pytest"].register_assert_rewrite(f"sked_core.testing.{_kit}")
