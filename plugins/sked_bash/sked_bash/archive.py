"""Unpacking an archive that nobody vouches for.

The extractor writes regular files and folders below one folder that it holds open, and refuses the whole archive for
anything else: links, devices, absolute or climbing names, two names that some file system takes for one, encrypted,
overlapping or overlong entries, an end that is missing. It relies on ``tarfile`` and ``zipfile`` for reading only, not
for the safety of what they would write: the data filter of many Python versions has holes (CVE-2025-4517,
CVE-2025-4330, CVE-2025-4138).

A process of its own does it (sked_bash.extractor), which loads this file alone: it imports nothing but the standard
library.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

MAX_FILES = 10_000
_CHUNK = 256 * 1024
_MAX_HEADER = 1024 * 1024
"""The most that a tar header (a long name, a pax record) may take; real ones are a few hundred bytes."""
_MAX_DIRECTORY = 64 * 1024 * 1024
"""The most that the central directory of a zip file may take: it is read into memory."""
_MAX_DEPTH = 64
_XZ_MEMORY = 128 * 1024 * 1024
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """Why an archive is not unpacked: it is at fault itself, whoever tries."""


def is_archive(name: str) -> bool:
    """Whether a file of that name is unpacked."""
    return name.lower().endswith((*_TAR_ENDINGS, ".zip"))


def extract(
    archive: IO[bytes], name: str, folder: int, *, to: str = "", max_bytes: int, max_files: int = MAX_FILES
) -> None:
    """Unpack the open file ``archive``, whose kind ``name`` tells, below the open folder ``folder``, which only this
    call uses, into its subfolder ``to``.

    At most ``max_bytes`` and ``max_files`` (folders among them) are written. Modes lose setuid, setgid and sticky bits
    and writing by others. Raises Refused for any archive that is not plain and whole; then what was written so far is
    left to the caller, below ``folder``. Raises OSError where the disk is at fault.
    """
    with _unpacking(folder, to, max_bytes, max_files) as unpacking, _readable():
        if name.lower().endswith(".zip"):
            _extract_zip(archive, unpacking)
        else:
            _extract_tar(archive, name.lower(), unpacking)


def place(file: IO[bytes], name: str, folder: int, *, to: str = "", max_bytes: int) -> None:
    """Copy the open ``file`` as an executable ``name`` to where ``extract`` would unpack it. Raises as that does."""
    with _unpacking(folder, to, max_bytes, 1) as unpacking:
        unpacking.file(name, file, os.fstat(file.fileno()).st_size, 0o755)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Have whatever readers of archives raise told in one way."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        struct.error,
        ValueError,
        IndexError,
        RuntimeError,
        OverflowError,
        gzip.BadGzipFile,
    ) as error:
        raise Refused(f"damaged or cut short ({_shown(str(error))})") from None
    except MemoryError:
        raise Refused("takes too much memory to unpack") from None
    except OSError as error:
        # bz2 tells damaged data so; the others are the disk's.
        if error.errno is None:
            raise Refused(f"damaged or cut short ({_shown(str(error))})") from None
        raise


class _Unpacking:
    """Writes the entries of one archive, within its limits. Every name is looked up relative to an open folder, and no
    link is ever followed: not even one that somebody put there meanwhile leads out."""

    def __init__(self, folder: int, to: str, max_bytes: int, max_files: int) -> None:
        self.bytes_left, self.files_left = max_bytes, max_files
        self._base = self._parts(to)
        self._names: dict[str, str] = {}
        self._told: set[str] = set()
        self._chain: list[tuple[str, int]] = [("", os.dup(folder))]

    def begin(self) -> None:
        """Make the folder that all goes to."""
        self._enter(())

    def close(self) -> None:
        while self._chain:
            os.close(self._chain.pop()[1])

    def folder(self, name: str) -> None:
        parts = self._parts(name)
        self._once(name, parts)
        self._enter(parts)

    def file(self, name: str, source: IO[bytes], size: int, mode: int) -> None:
        """Write one file of exactly ``size`` bytes."""
        parts = self._parts(name)
        if not parts:
            raise Refused(f"{_shown(name)} is not an acceptable file name")
        self._once(name, parts)
        self._count(name)
        if size < 0 or size > self.bytes_left:
            raise Refused("unpacked, it is larger than the limit")
        folder = self._enter(parts[:-1])
        self._spelled(parts)
        try:
            fd = os.open(parts[-1], _FILE, 0o600, dir_fd=folder)
        except FileExistsError:
            raise Refused(f"{_shown(name)} is in it twice") from None
        with os.fdopen(fd, "wb") as file:
            left = size
            while left and (chunk := source.read(min(left, _CHUNK))):
                self._spend(len(chunk))
                file.write(chunk)
                left -= len(chunk)
            if left:
                raise Refused(f"damaged or cut short in {_shown(name)}")
            file.flush()
            os.fchmod(fd, (mode & 0o755) | 0o600)

    def _enter(self, parts: tuple[str, ...]) -> int:
        """The descriptor of that folder, which is made where it is missing."""
        way = (*self._base, *parts)
        kept = 0
        while kept < min(len(way), len(self._chain) - 1) and self._chain[kept + 1][0] == way[kept]:
            kept += 1
        while len(self._chain) > kept + 1:
            os.close(self._chain.pop()[1])
        for number in range(kept, len(way)):
            above, part = self._chain[-1][1], way[number]
            inner = parts[: max(0, number + 1 - len(self._base))]
            if inner:
                self._spelled(inner)
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=above)
                if inner:
                    self._count("/".join(inner))
            try:
                self._chain.append((part, os.open(part, _FOLDER, dir_fd=above)))
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise Refused(f"{_shown('/'.join(way))}: one name is both a file and a folder in it") from None
        return self._chain[-1][1]

    def _once(self, name: str, parts: tuple[str, ...]) -> None:
        whole = "/".join(parts)
        if whole in self._told:
            raise Refused(f"{_shown(name)} is in it twice")
        self._told.add(whole)

    def _spelled(self, parts: tuple[str, ...]) -> None:
        """Refuse two names that differ in case or in how letters are composed only."""
        whole = "/".join(parts)
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", whole).casefold())
        if self._names.setdefault(folded, whole) != whole:
            raise Refused(f"{_shown(whole)} and {_shown(self._names[folded])} are one name on some file systems")

    def _spend(self, count: int) -> None:
        """Account for ``count`` bytes, before they are written."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise Refused("unpacked, it is larger than the limit")

    def _count(self, name: str) -> None:
        self.files_left -= 1
        if self.files_left < 0:
            raise Refused(f"holds too many files (at {_shown(name)})")

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or ".." in parts or "\\" in name or name[1:2] == ":":
            raise Refused(f"{_shown(name)} would lie outside of the task's folder")
        if not name.isprintable() or len(name) > 1024 or any(len(os.fsencode(part)) > 255 for part in parts):
            raise Refused(f"{_shown(name)} is not an acceptable file name")
        if len(parts) > _MAX_DEPTH:
            raise Refused(f"{_shown(name)} lies too deep")
        return parts


@contextlib.contextmanager
def _unpacking(folder: int, to: str, max_bytes: int, max_files: int) -> Iterator[_Unpacking]:
    unpacking = _Unpacking(folder, to, max_bytes, max_files)
    try:
        unpacking.begin()
        yield unpacking
    finally:
        unpacking.close()


def _extract_tar(archive: IO[bytes], name: str, unpacking: _Unpacking) -> None:
    # Headers and padding come on top of the files: 2 KiB for each file is plenty.
    stream = _Stream(_inflated(archive, name), unpacking.bytes_left + 2048 * unpacking.files_left + 64 * 1024)
    with tarfile.open(fileobj=stream, mode="r:", errors="surrogateescape") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            tar.members = []  # tarfile would keep all of them in memory
            if member.isdir():
                unpacking.folder(member.name)
            elif member.isreg() and not member.issparse():
                with tar.extractfile(member) as source:
                    unpacking.file(member.name, source, member.size, member.mode)
            else:
                raise Refused(f"{_shown(member.name)} is neither a plain file nor a folder; pack it without links")
    # tarfile takes any damaged header for the end.
    if stream.last != bytes(512):
        raise Refused("damaged or cut short")
    stream.drain()  # what compressed it has a checksum at its end


class _Stream:
    """What tarfile reads from: goes forward only, in bounded memory, up to ``most`` bytes."""

    def __init__(self, chunks: Iterator[bytes], most: int) -> None:
        self._chunks, self._left = chunks, most
        self._buffer = memoryview(b"")
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise Refused("a header in it points backwards")
        while self._position < position and self._take(min(position - self._position, _CHUNK)):
            pass
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise Refused("a header in it claims to be huge")
        found = bytearray()
        while len(found) < size and (piece := self._take(size - len(found))):
            found += piece
        self.last = bytes(found)
        return self.last

    def drain(self) -> None:
        while self._take(_CHUNK):
            pass

    def _take(self, size: int) -> memoryview:
        while not self._buffer:
            chunk = next(self._chunks, None)
            if chunk is None:
                return memoryview(b"")
            self._left -= len(chunk)
            if self._left < 0:
                raise Refused("unpacked, it is larger than the limit")
            self._buffer = memoryview(chunk)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        self._position += len(piece)
        return piece


def _inflated(source: IO[bytes], name: str) -> Iterator[bytes]:
    """The uncompressed bytes, in pieces of bounded size."""
    if name.endswith(("xz", "txz")):
        yield from _unxz(source)
        return
    if name.endswith("zst"):
        opened = _unzst(source)
    elif name.endswith("gz"):
        opened = gzip.GzipFile(fileobj=source)
    else:
        opened = bz2.BZ2File(source) if name.endswith("bz2") else source
    while chunk := opened.read(_CHUNK):
        yield chunk


def _unzst(source: IO[bytes]) -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        raise Refused("packed with zstd, which takes an agent on Python 3.14 or later; use gz or xz") from None
    return zstd.ZstdFile(source, options={zstd.DecompressionParameter.window_log_max: 27})


def _unxz(source: IO[bytes]) -> Iterator[bytes]:
    """As lzma.open, but with a limit on the memory that a stream may ask for (a dictionary can be 4 GiB)."""
    data = source.read(_CHUNK)
    while data:
        stream = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input and not data:
                data = source.read(_CHUNK)
                if not data:
                    raise EOFError("the xz stream ends early")
            yield stream.decompress(data, _CHUNK)
            data = b""
        data = stream.unused_data.lstrip(b"\0") or source.read(_CHUNK).lstrip(b"\0")


def _extract_zip(file: IO[bytes], unpacking: _Unpacking) -> None:
    _check_directory(file, unpacking.files_left)
    with zipfile.ZipFile(file) as zipped:
        end = 0
        # In the order in which they lie there, so that two which share bytes are seen (a bomb of D. Fifield, 2019).
        for entry in sorted(zipped.infolist(), key=lambda one: one.header_offset):
            if entry.header_offset < end:
                raise Refused(f"{_shown(entry.filename)} overlaps with another file in it")
            end = _end_of(file, entry)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.orig_filename != entry.filename or "\\" in entry.filename:
                raise Refused(f"{_shown(entry.orig_filename)} is not an acceptable file name")
            if entry.is_dir() and kind in (0, stat.S_IFDIR):
                unpacking.folder(entry.filename)
            elif kind not in (0, stat.S_IFREG):
                raise Refused(f"{_shown(entry.filename)} is neither a plain file nor a folder; pack it without links")
            elif entry.flag_bits & 0x2041:  # APPNOTE 4.4.4: encrypted, strongly encrypted, its directory encrypted
                raise Refused(f"{_shown(entry.filename)} is encrypted")
            elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused(f"{_shown(entry.filename)} is compressed in an unusual way; use deflate")
            else:
                with zipped.open(entry) as source:
                    mode = (entry.external_attr >> 16) or 0o644
                    unpacking.file(entry.filename, source, entry.file_size, mode)
                    # Reading on to the end is what makes zipfile compare the checksum.
                    if source.read(1):
                        raise Refused(f"{_shown(entry.filename)} is longer than it says")


def _end_of(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where the data of ``entry`` ends (APPNOTE 4.3.7). zipfile itself compares the header with the directory."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\3\4"):
        raise Refused("damaged or cut short")
    name, extra = struct.unpack("<2H", header[26:30])
    return int(entry.header_offset + 30 + name + extra + entry.compress_size)


def _check_directory(file: IO[bytes], max_files: int) -> None:
    """Refuse a zip file whose directory is too large to be read into memory, as zipfile does.

    Its size and count stand in the end record (PKWARE APPNOTE 4.3.16), which a comment of at most 64 KiB follows.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 65535 - 20))
    tail = file.read()
    at = len(tail) - 22 if tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0" else tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise Refused("damaged or cut short")
    _, _, _, _, count, length, _, _ = struct.unpack("<4s4H2LH", tail[at : at + 22])
    large = length > min(_MAX_DIRECTORY, 1024 * max_files + 64 * 1024)
    if tail[max(0, at - 20) : at].startswith(b"PK\6\7") or count > max_files or large:
        raise Refused("holds too many files")


def _shown(name: str) -> str:
    return ascii(name)[:80]
