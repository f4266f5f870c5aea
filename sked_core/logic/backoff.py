"""Exponential back-off as a value. Jitter comes from a hash of the key, so that the same input gives the same plan."""

from __future__ import annotations

import zlib

BASE_SECONDS = 1.0
CAP_SECONDS = 300.0


def delay(failures: int, key: str, *, base: float = BASE_SECONDS, cap: float = CAP_SECONDS) -> float:
    """Seconds to wait after the ``failures``-th failure in a row (from 1): base, 2 base, 4 base … up to ``cap``.

    Spread over [75 %, 125 %] by ``key`` and ``failures``, so that what failed together is not retried together.
    """
    if failures < 1:
        return 0.0
    plain = min(cap, base * 2.0 ** min(failures - 1, 30))
    spread = zlib.crc32(f"{key}#{failures}".encode()) / 0xFFFFFFFF
    return plain * (0.75 + 0.5 * spread)
