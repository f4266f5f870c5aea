"""Who works on which service, agreed on by all schedulers without a word between them.

Every scheduler ranks all living ones for each service by a hash of both names (rendezvous hashing: Thaler and
Ravishankar, "Using name-based mappings to increase hit rates", 1998). The first in line works at once; each further
one a turn later, which it only needs to do if those before it are too busy, paused or gone. So services are divided
evenly, one that joins or leaves moves only its own share, and nobody contends for the same lock in ordinary times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

TURN_SECONDS = 1.5
"""How long one waits for the one before it: far longer than work at hand takes, far shorter than a lease."""


def rank(service: str, name: str, present: Mapping[str, Collection[str]], scheduler: str) -> int:
    """How many stand before scheduler process ``name`` in the line for ``service``.

    ``present``: the schedulers that each living process can place with; only those with ``scheduler`` stand in line.
    A process that is not present itself stands behind all others.
    """
    line = sorted(
        (other for other, offers in present.items() if scheduler in offers), key=lambda one: _score(service, one)
    )
    return line.index(name) if name in line else len(line)


def _score(service: str, name: str) -> bytes:
    return hashlib.blake2b(f"{name}/{service}".encode(), digest_size=8).digest()
