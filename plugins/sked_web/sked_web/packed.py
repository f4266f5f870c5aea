"""Bodies in gzip for those who take it, where they are large and nothing in them can be guessed by their length.

Documents of the API hold no secret of the session that asks for them. Pages do, the proof that their forms carry, and
some show what stands in their address: whoever has a browser ask for such pages, and sees how long the answers are,
could guess it letter by letter (BREACH). So of pages only those are packed into which nothing of the address goes.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping

LEAST_BYTES = 4096
"""Less than that arrives in as many packets, or one more."""
LEVEL = 5
"""Of zlib: a tenth larger than its best, in a third of the time."""
VARY = {"vary": "accept-encoding"}
HEADERS = {**VARY, "content-encoding": "gzip"}


def takes_gzip(headers: Mapping[str, str]) -> bool:
    """Whether who sent these headers of a request says so."""
    for one in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = one.replace(" ", "").partition(";q=")
        if name in ("gzip", "x-gzip"):
            return weight.strip("0.") != "" or not weight
    return False


def packed(body: bytes) -> bytes:
    """The same bytes for the same body."""
    return gzip.compress(body, LEVEL, mtime=0)
