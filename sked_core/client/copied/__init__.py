"""A copy of a store's state, kept fresh by one thread, which stands in for the store in front of all that looks."""
