"""The tests of ``sked_core.testing.stores``, by what they are about."""
