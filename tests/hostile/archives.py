"""Archives that nobody should unpack (G11 to G25 of the corpus): made here, since most can't stand as files of a
repository, or would be refused by it."""

from __future__ import annotations

import struct
import tarfile

from rigs.artifacts import PLAIN, tar, zipped

LINK_CHAIN = [  # the shape of CVE-2025-4517: links that are longer, once resolved, than a path may be
    *((f"{'d' * 200}/" * depth + "l", "d" * 200, {"type": tarfile.SYMTYPE}) for depth in range(4)),
    ("l/../../escaped", b"x", {}),
]
SPARSE = tar(("a", b"x" * 512, {"type": tarfile.GNUTYPE_SPARSE}))
PETABYTE = tar(("a", b"x", {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(10**15)}}))

BAD_TARS = {
    "G11 climbs": tar(("../escaped", b"x", {})),
    "G11 climbs in the middle": tar(("a/../../escaped", b"x", {})),
    "G12 is absolute": tar(("/tmp/sked-escaped", b"x", {})),
    "G12 is absolute twice": tar(("//tmp/sked-escaped", b"x", {})),
    "G13 has a drive": tar(("C:x", b"x", {})),
    "G13 has backslashes": tar(("..\\escaped", b"x", {})),
    "G14 has a symlink": tar(("link", "/etc/passwd", {"type": tarfile.SYMTYPE})),
    "G14 writes through a symlink": tar(("link", "..", {"type": tarfile.SYMTYPE}), ("link/escaped", b"x", {})),
    "G15 has a hard link": tar(("link", "/etc/passwd", {"type": tarfile.LNKTYPE})),
    "G15 has a hard link to its own": tar(("a", b"x", {}), ("link", "a", {"type": tarfile.LNKTYPE})),
    "G16 has a chain of links": tar(*LINK_CHAIN),
    "G16 lies too deep": tar(("/".join("d" * 100), b"x", {})),
    "G17 has a device": tar(("null", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
    "G17 has a block device": tar(("sda", b"", {"type": tarfile.BLKTYPE, "devmajor": 8})),
    "G17 has a fifo": tar(("fifo", b"", {"type": tarfile.FIFOTYPE})),
    "G17 has a socket": tar(("socket", b"", {"type": b"s"})),
    "G21 has a file twice": tar(("a", b"x", {}), ("a", b"y", {})),
    "G21 has a file twice in other words": tar(("a", b"x", {}), ("./a", b"y", {})),
    "G21 has names that differ in case": tar(("a", b"x", {}), ("A", b"y", {})),
    "G21 has folders that differ in case": tar(("d/a", b"x", {}), ("D/b", b"y", {})),
    "G21 has names that differ in composition": tar(("\u00e9", b"x", {}), ("e\u0301", b"y", {})),
    "G21 has a folder twice": tar(*[("d", b"", {"type": tarfile.DIRTYPE})] * 2),
    "G21 puts a file in place of a folder": tar(("a/b", b"x", {}), ("a", b"y", {})),
    "G21 puts a folder in place of a file": tar(("a", b"x", {}), ("a/b", b"y", {})),
    "G22 has a newline": tar(("a\nb", b"x", {})),
    "G22 drives a terminal": tar(("a\x1b[2Jb", b"x", {})),
    "G22 reads backwards": tar(("a\u202etxt.exe", b"x", {})),
    "G22 has an endless name": tar(("a" * 10_000, b"x", {})),
    "G22 has no name": tar((".", b"x", {})),
    "G23 is sparse": SPARSE,
    "G23 claims a petabyte": PETABYTE,
    "G23 claims a petabyte of data": PLAIN[:2048] + tarfile.TarInfo("a").tobuf()[:124] + b"\x80" + bytes(4) + b"\3",
    "G25 is cut in a header": PLAIN[:700],
    "G25 is cut in a file": PLAIN[:4000],
    "G25 is cut between files": PLAIN[:2560],
    "G25 is damaged in the middle": PLAIN[:2048] + b"garbage!" * 64 + PLAIN[2560:],
    "G25 is empty": b"",
    "G25 is no archive": b"<html>not found</html>" * 100,
    "G22 has a huge header": tar(("a", b"x", {"pax_headers": {"comment": "x" * 3_000_000}})),
}


def changed(body: bytes, *changes: tuple[bytes, int, int]) -> bytes:
    """``body`` with the byte at an offset behind a signature set."""
    found = bytearray(body)
    for signature, offset, value in changes:
        found[found.index(signature) + offset] = value
    return bytes(found)


LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"
ONE = zipped(("a", b"x" * 1000, 0o100644))
GOOD_ZIP = zipped(("a", b"x" * 1000, 0o100644), ("b", b"y", 0o100644))


def overlapping() -> bytes:
    """A directory with two names for the same bytes, as the bomb of D. Fifield (2019) has many."""
    body = ONE
    at = body.index(CENTRAL)
    entry, end = body[at : body.index(b"PK\5\6")], bytearray(body[body.index(b"PK\5\6") :])
    struct.pack_into("<2HL", end, 8, 2, 2, 2 * len(entry))
    return body[:at] + entry + entry + bytes(end)


BAD_ZIPS = {
    "G11 climbs": zipped(("../escaped", b"x", 0o100644)),
    "G12 is absolute": zipped(("/tmp/sked-escaped", b"x", 0o100644)),
    "G13 has backslashes": zipped(("..\\escaped", b"x", 0o100644)),
    "G13 has a drive": zipped(("C:/x", b"x", 0o100644)),
    "G14 has a symlink": zipped(("link", b"/etc/passwd", 0o120777)),
    "G17 has a device": zipped(("null", b"", 0o020666)),
    "G17 has a fifo": zipped(("fifo", b"", 0o010666)),
    "G19 overlaps": overlapping(),
    "G21 has a file twice": zipped(("a", b"x", 0o100644), ("b", b"x", 0o100644)).replace(b"b", b"a"),
    "G21 has names that differ in case": zipped(("a", b"x", 0o100644), ("A", b"x", 0o100644)),
    "G22 has a newline": zipped(("a\nb", b"x", 0o100644)),
    "G24 is encrypted": changed(ONE, (LOCAL, 6, 1), (CENTRAL, 8, 1)),
    "G24 is strongly encrypted": changed(ONE, (LOCAL, 6, 0x40), (CENTRAL, 8, 0x40)),
    "G24 is compressed in its own way": changed(ONE, (LOCAL, 8, 99), (CENTRAL, 10, 99)),
    "G24 is compressed by lzma": changed(ONE, (LOCAL, 8, 14), (CENTRAL, 10, 14)),
    "G25 has a wrong checksum": changed(ONE, (LOCAL, 14, ONE[14] ^ 1), (CENTRAL, 16, ONE[14] ^ 1)),
    "G22 has two names for one file": changed(ONE, (CENTRAL, 46, ord("b"))),
    "G25 is cut short": GOOD_ZIP[:-30],
    "G25 is cut in the middle": GOOD_ZIP[:20],
    "G25 is empty": b"",
    "G20 claims many files": GOOD_ZIP[:-12] + b"\xff\xff" + GOOD_ZIP[-10:],
}


def everything() -> list[tuple[str, str, bytes]]:
    """Of each its name, the file's name, and what is in it."""
    found = [(name, "tar", body) for name, body in BAD_TARS.items()]
    found += [(name, "zip", body) for name, body in BAD_ZIPS.items()]
    return [(_named(name, kind), f"a.{kind}", body) for name, kind, body in found]


def _named(name: str, kind: str) -> str:
    number, _, rest = name.partition(" ")
    return f"{number}-{kind}-{rest.replace(' ', '-')}"
