"""Bugs that the kits for plugins have to find, and what they are put into."""
