"""The world: stores, plugins, locks, and the loops that carry out what ``logic`` decides."""
