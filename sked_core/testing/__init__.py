"""Shipped for authors of plugins: fakes, builders and the contract suites (``pip install sked-core[testing]``)."""
