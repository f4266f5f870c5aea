"""What servers hand out as an archive: the first byte says as which kind it is unpacked."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Iterator

import sked_bash.archive  # noqa: F401 - by then it has to be known what it is made of
from rigs.artifacts import KINDS, tar, unpack_anything, zipped

MAX_BYTES = 16 * 1024
FIELDS = ((0, 100), (100, 8), (108, 8), (124, 12), (156, 1), (157, 100), (345, 155), (386, 12), (482, 1), (483, 12))
"""Name, mode, owner, size, type, target of a link, prefix; then those of old GNU sparse files."""
VALUES = (
    *(bytes([one]) for one in b"01234567LKSxgDV\0"),
    *(b"../x", b"/x", b"a", b"A", b"a/b/c", b"\xff\xfe", b"d/" * 60, b"777", b"00000000010", b"77777777777", b"-1"),
    *(b"\x80" + bytes(6) + b"\x01" * 5, b"\xff" * 12, b"0000000001\0", b"././@LongLink", b"PaxHeaders.0/a"),
)
judge = unpack_anything


def seeds() -> Iterator[bytes]:
    """A small archive of every kind, and of every kind of member."""
    members = [(f"d/{kind}", b"x" * 20 if kind == "0" else b"", {"type": kind.encode()}) for kind in "0123456S"]
    plain = tar(("d/", b"", {"type": b"5"}), ("d/a", b"content", {"mode": 0o6777}), ("\u00e9" * 60, b"", {}))
    bodies = [plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain)]
    bodies.append(zipped(("d/a", b"content" * 9, 0o100644), ("d/b", b"", 0o100755), ("e/", b"", 0o040755)))
    for number, body in enumerate(bodies):
        yield bytes([number]) + body
    for member in members:
        yield bytes([KINDS.index("a.tar")]) + tar(member)
    for name in ("../x", "/x", "a\\b", "a/../../x"):
        yield bytes([KINDS.index("a.tar")]) + tar((name, b"x", {}))
        yield bytes([KINDS.index("a.zip")]) + zipped((name, b"x", 0o100644))


def mutate(data: bytes, seed: int) -> bytes:
    """A field of some header of a tar file changed, and the checksum made to fit again (POSIX ustar: eight blanks while
    it is summed up)."""
    found, rng = bytearray(data), random.Random(seed)
    headers = [at for at in range(1, len(found) - 511, 512) if found[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return data
    at = rng.choice(headers)
    offset, size = rng.choice(FIELDS)
    value = rng.choice(VALUES) if rng.random() < 0.7 else rng.randbytes(rng.randint(1, size))
    found[at + offset : at + offset + size] = value[:size].ljust(size, b"\0")
    found[at + 148 : at + 156] = b" " * 8
    found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)
