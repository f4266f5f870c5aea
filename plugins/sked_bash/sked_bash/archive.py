"""Unpacking an archive that nobody vouches for.

The extractor writes regular files and folders below one folder, and refuses the whole archive for anything else:
links, devices, absolute or climbing names, encrypted or overlong entries, an end that is missing. It relies on
``tarfile`` and ``zipfile`` for reading only, not for the safety of what they would write: the data filter of many
Python versions has holes (CVE-2025-4517, CVE-2025-4330, CVE-2025-4138).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sked_core.plugin import ExecutorError

MAX_FILES = 10_000
_CHUNK = 256 * 1024
_MAX_HEADER = 1024 * 1024
"""The most that a tar header (a long name, a pax record) may take; real ones are a few hundred bytes."""
_MAX_DIRECTORY = 4 * 1024 * 1024
"""The most that the central directory of a zip file of MAX_FILES files may take."""
_XZ_MEMORY = 128 * 1024 * 1024
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(name: str) -> bool:
    """Whether a file of that name is unpacked."""
    return name.lower().endswith((*_TAR_ENDINGS, ".zip"))


def extract(archive: Path, name: str, target: Path, *, max_bytes: int, max_files: int = MAX_FILES) -> None:
    """Unpack the file ``archive``, whose kind ``name`` tells, into the folder ``target``, which only this call uses.

    At most ``max_bytes`` and ``max_files`` are written. Modes lose setuid, setgid and sticky bits and writing by
    others. Raises ExecutorError (permanent) for any archive that is not plain and whole; then what was written so
    far is left to the caller, inside of ``target``.
    """
    unpacking = _Unpacking(target, max_bytes, max_files)
    try:
        if name.lower().endswith(".zip"):
            _extract_zip(archive, unpacking)
        else:
            _extract_tar(archive, name.lower(), unpacking)
    except _Refused as refused:
        raise ExecutorError(f"artifact {name}: {refused}", permanent=True) from None
    except (FileExistsError, NotADirectoryError):
        raise ExecutorError(f"artifact {name}: one name is both a file and a folder in it", permanent=True) from None
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        struct.error,
        ValueError,
        RuntimeError,
        OverflowError,
        gzip.BadGzipFile,
    ) as error:
        raise ExecutorError(f"artifact {name}: damaged or cut short ({error})", permanent=True) from None


class _Refused(Exception):
    """Why an archive is not unpacked."""


@dataclass(slots=True)
class _Unpacking:
    """Writes the entries of one archive, within its limits."""

    target: Path
    bytes_left: int
    files_left: int

    def folder(self, name: str) -> None:
        self._count(name)
        self._path(name).mkdir(mode=0o755, parents=True, exist_ok=True)

    def file(self, name: str, source: IO[bytes], size: int, mode: int) -> None:
        """Write one file of exactly ``size`` bytes."""
        self._count(name)
        self.spend(size)
        path = self._path(name)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # There are no links below the target, since nothing here makes any and nobody else writes there.
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise _Refused(f"{_shown(name)} is in it twice") from None
        with os.fdopen(fd, "wb") as file:
            left = size
            while left and (chunk := source.read(min(left, _CHUNK))):
                file.write(chunk)
                left -= len(chunk)
            if left:
                raise _Refused(f"damaged or cut short in {_shown(name)}")
            os.fchmod(fd, (mode & 0o755) | 0o600)

    def spend(self, count: int) -> None:
        """Account for ``count`` bytes, before they are written."""
        self.bytes_left -= count
        if count < 0 or self.bytes_left < 0:
            raise _Refused("unpacked, it is larger than the limit")

    def _count(self, name: str) -> None:
        self.files_left -= 1
        if self.files_left < 0:
            raise _Refused(f"holds too many files (at {_shown(name)})")

    def _path(self, name: str) -> Path:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\\" in name or name[1:2] == ":":
            raise _Refused(f"{_shown(name)} would lie outside of the task's folder")
        if not name.isprintable() or len(name) > 1024 or any(len(os.fsencode(part)) > 255 for part in parts):
            raise _Refused(f"{_shown(name)} is not an acceptable file name")
        return self.target.joinpath(*parts)


def _extract_tar(archive: Path, name: str, unpacking: _Unpacking) -> None:
    plain = archive
    if not name.endswith(".tar"):
        plain = archive.with_name(archive.name + ".tar")
        fd = os.open(plain, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with archive.open("rb") as source, os.fdopen(fd, "wb") as file:
                # Headers and padding come on top of the files: 2 KiB for each file is plenty.
                left = unpacking.bytes_left + 2048 * unpacking.files_left
                for chunk in _inflated(source, name):
                    left -= len(chunk)
                    if left < 0:
                        raise _Refused("unpacked, it is larger than the limit")
                    file.write(chunk)
            _walk_tar(plain, unpacking)
        finally:
            plain.unlink(missing_ok=True)
    else:
        _walk_tar(plain, unpacking)


def _walk_tar(plain: Path, unpacking: _Unpacking) -> None:
    with plain.open("rb") as raw:
        guarded = _SmallReads(raw)
        with tarfile.open(fileobj=guarded, mode="r:", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # tarfile would keep all of them in memory
                if member.isdir():
                    unpacking.folder(member.name)
                elif member.isreg() and not member.issparse():
                    with tar.extractfile(member) as source:
                        unpacking.file(member.name, source, member.size, member.mode)
                else:
                    raise _Refused(f"{_shown(member.name)} is neither a plain file nor a folder; pack it without links")
            end = tar.offset
        raw.seek(end)
        # tarfile takes any damaged header for the end.
        if raw.read(512) != bytes(512):
            raise _Refused("damaged or cut short")


def _inflated(source: IO[bytes], name: str) -> Iterator[bytes]:
    """The uncompressed bytes, in pieces of bounded size."""
    if name.endswith(("xz", "txz")):
        yield from _unxz(source)
        return
    opened: IO[bytes] = gzip.GzipFile(fileobj=source) if name.endswith("gz") else bz2.BZ2File(source)  # type: ignore[assignment]
    with opened:
        while chunk := opened.read(_CHUNK):
            yield chunk


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


class _SmallReads:
    """A file for tarfile that refuses to read a header into memory that claims to be huge."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell
        self.seek = file.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise _Refused("a header in it claims to be huge")
        return self._file.read(size)


def _extract_zip(archive: Path, unpacking: _Unpacking) -> None:
    with archive.open("rb") as file:
        _check_directory(file)
        with zipfile.ZipFile(file) as zipped:
            for entry in zipped.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if entry.orig_filename != entry.filename or "\\" in entry.filename:
                    raise _Refused(f"{_shown(entry.orig_filename)} is not an acceptable file name")
                if entry.is_dir() and kind in (0, stat.S_IFDIR):
                    unpacking.folder(entry.filename)
                elif kind not in (0, stat.S_IFREG):
                    raise _Refused(
                        f"{_shown(entry.filename)} is neither a plain file nor a folder; pack it without links"
                    )
                elif entry.flag_bits & 1:
                    raise _Refused(f"{_shown(entry.filename)} is encrypted")
                elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _Refused(f"{_shown(entry.filename)} is compressed in an unusual way; use deflate")
                else:
                    with zipped.open(entry) as source:
                        mode = (entry.external_attr >> 16) or 0o644
                        unpacking.file(entry.filename, source, entry.file_size, mode)
                        # Reading on to the end is what makes zipfile compare the checksum.
                        if source.read(1):
                            raise _Refused(f"{_shown(entry.filename)} is longer than it says")


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a zip file whose directory is too large to be read into memory, as zipfile does.

    Its size and count stand in the end record (PKWARE APPNOTE 4.3.16), which a comment of at most 64 KiB follows.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 65535 - 20))
    tail = file.read()
    at = len(tail) - 22 if tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0" else tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise _Refused("damaged or cut short")
    _, _, _, _, count, length, _, _ = struct.unpack("<4s4H2LH", tail[at : at + 22])
    if tail[max(0, at - 20) : at].startswith(b"PK\6\7") or count > MAX_FILES or length > _MAX_DIRECTORY:
        raise _Refused("holds too many files")


def _shown(name: str) -> str:
    return ascii(name)[:80]
