"""Decisions: pure functions of their arguments. No I/O, clock, threads, randomness or logging."""
