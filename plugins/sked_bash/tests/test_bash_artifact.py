"""Artifacts: fetched within limits, unpacked with suspicion, or nothing is started and nothing is left."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import stat
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sked_bash import archive
from sked_bash.artifact import fetch, file_name
from sked_core.plugin import ExecutorError

Eventually = Callable[..., Any]


class Site(ThreadingHTTPServer):
    """A web server whose pages are what a test puts in: a body, or a function that answers the request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.pages: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        page = self.server.pages.get(self.path)
        try:
            if page is None:
                self.send_error(404)
            elif callable(page):
                page(self)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def redirect(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.end_headers()

    return answer


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where artifacts go; whatever appears beside it has escaped."""
    home = tmp_path / "outside" / "home"
    home.mkdir(parents=True)
    return home


def get(url: str, home: Path, **limits: Any) -> None:
    fetch(url, home / "work", home / "part", **limits)


def tar(*members: tuple[str, bytes | str, dict[str, Any]]) -> bytes:
    """A tar file; each member is its name, its content (for a link: a text, its target) and attributes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.linkname = content
            else:
                info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return buffer.getvalue()


PLAIN = tar(
    ("./", b"", {"type": tarfile.DIRTYPE, "mode": 0o777}),
    ("./bin/", b"", {"type": tarfile.DIRTYPE, "mode": 0o777}),
    ("./bin/run", b"#!/bin/sh\necho ran\n", {"mode": 0o6777}),
    ("data.txt", b"x" * 300_000, {"mode": 0o400}),
)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.tar", PLAIN),
        ("a.tar.gz", gzip.compress(PLAIN)),
        ("a.tgz", gzip.compress(PLAIN[:512]) + gzip.compress(PLAIN[512:])),
        ("a.tar.bz2", bz2.compress(PLAIN)),
        ("a.tar.xz", lzma.compress(PLAIN)),
        ("A.TXZ", lzma.compress(PLAIN[:512]) + lzma.compress(PLAIN[512:])),
        ("a.zip", zipped(("bin/run", b"#!/bin/sh\necho ran\n", 0o106777), ("data.txt", b"x" * 300_000, 0o100400))),
    ],
)
def test_archives_are_unpacked_without_dangerous_bits(site: Site, home: Path, name: str, body: bytes) -> None:
    site.pages[f"/{name}"] = body
    get(f"{site.url}/{name}", home)
    work = home / "work"
    assert (work / "bin/run").read_bytes() == b"#!/bin/sh\necho ran\n"
    assert stat.S_IMODE((work / "bin/run").stat().st_mode) == 0o755
    assert (work / "data.txt").stat().st_size == 300_000
    assert stat.S_IMODE((work / "bin").stat().st_mode) == 0o755
    assert [path.name for path in home.iterdir()] == ["work"]


BAD_TARS = {
    "climbs": tar(("../escaped", b"x", {})),
    "climbs in the middle": tar(("a/../../escaped", b"x", {})),
    "is absolute": tar(("/tmp/sked-escaped", b"x", {})),
    "has a drive": tar(("C:x", b"x", {})),
    "has backslashes": tar(("..\\escaped", b"x", {})),
    "has a newline": tar(("a\nb", b"x", {})),
    "has an endless name": tar(("a" * 5000, b"x", {})),
    "has a symlink": tar(("link", "/etc/passwd", {"type": tarfile.SYMTYPE})),
    "writes through a symlink": tar(("link", "..", {"type": tarfile.SYMTYPE}), ("link/escaped", b"x", {})),
    "has a hard link": tar(("link", "/etc/passwd", {"type": tarfile.LNKTYPE})),
    "has a device": tar(("null", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})),
    "has a block device": tar(("sda", b"", {"type": tarfile.BLKTYPE, "devmajor": 8})),
    "has a fifo": tar(("fifo", b"", {"type": tarfile.FIFOTYPE})),
    "has a file twice": tar(("a", b"x", {}), ("a", b"y", {})),
    "puts a file in place of a folder": tar(("a/b", b"x", {}), ("a", b"y", {})),
    "puts a folder in place of a file": tar(("a", b"x", {}), ("a/b", b"y", {})),
    "is cut in a header": PLAIN[:700],
    "is cut in a file": PLAIN[:4000],
    "is cut between files": PLAIN[:2560],
    "is damaged in the middle": PLAIN[:2048] + b"garbage!" * 64 + PLAIN[2560:],
    "is empty": b"",
    "is no archive": b"<html>not found</html>" * 100,
    "has a huge header": tar(("a", b"x", {"pax_headers": {"comment": "x" * 3_000_000}})),
}


@pytest.mark.parametrize("what", BAD_TARS)
@pytest.mark.parametrize("packing", ["tar", "tar.gz"])
def test_a_bad_tar_is_refused_and_nothing_escapes(site: Site, home: Path, what: str, packing: str) -> None:
    site.pages[f"/a.{packing}"] = BAD_TARS[what] if packing == "tar" else gzip.compress(BAD_TARS[what])
    with pytest.raises(ExecutorError) as caught:
        get(f"{site.url}/a.{packing}", home)
    assert caught.value.permanent
    assert [path.name for path in home.parent.iterdir()] == ["home"]
    assert {path.name for path in home.iterdir()} <= {"work"}
    assert not Path("/tmp/sked-escaped").exists()


ENCRYPTED = bytearray(zipped(("a", b"x", 0o100644)))
ENCRYPTED[6] |= 1
ENCRYPTED[ENCRYPTED.index(b"PK\1\2") + 8] |= 1
WRONG_SUM = bytearray(zipped(("a", b"x" * 1000, 0o100644)))
WRONG_SUM[WRONG_SUM.index(b"PK\1\2") + 16] ^= 1
WRONG_SUM[14] ^= 1
GOOD_ZIP = zipped(("a", b"x" * 1000, 0o100644), ("b", b"y", 0o100644))

BAD_ZIPS = {
    "climbs": zipped(("../escaped", b"x", 0o100644)),
    "is absolute": zipped(("/tmp/sked-escaped", b"x", 0o100644)),
    "has backslashes": zipped(("..\\escaped", b"x", 0o100644)),
    "has a symlink": zipped(("link", b"/etc/passwd", 0o120777)),
    "has a device": zipped(("null", b"", 0o020666)),
    "has a file twice": zipped(("a", b"x", 0o100644), ("b", b"x", 0o100644)).replace(b"b", b"a"),
    "is encrypted": bytes(ENCRYPTED),
    "has a wrong checksum": bytes(WRONG_SUM),
    "is cut short": GOOD_ZIP[:-30],
    "is cut in the middle": GOOD_ZIP[:20],
    "is empty": b"",
    "claims many files": GOOD_ZIP[:-12] + b"\xff\xff" + GOOD_ZIP[-10:],
}


@pytest.mark.parametrize("what", BAD_ZIPS)
def test_a_bad_zip_is_refused_and_nothing_escapes(site: Site, home: Path, what: str) -> None:
    site.pages["/a.zip"] = BAD_ZIPS[what]
    with pytest.raises(ExecutorError) as caught:
        get(f"{site.url}/a.zip", home)
    assert caught.value.permanent
    assert [path.name for path in home.parent.iterdir()] == ["home"]
    assert not Path("/tmp/sked-escaped").exists()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("bomb.tar.gz", gzip.compress(tar(("a", bytes(5_000_000), {})))),
        ("bomb.tar.bz2", bz2.compress(tar(("a", bytes(5_000_000), {})))),
        ("bomb.tar.xz", lzma.compress(tar(("a", bytes(5_000_000), {})))),
        ("bomb.zip", zipped(("a", bytes(5_000_000), 0o100644))),
        ("many.zip", zipped(*((str(number), bytes(300_000), 0o100644) for number in range(5)))),
    ],
)
def test_what_grows_past_the_limit_is_refused(site: Site, home: Path, name: str, body: bytes) -> None:
    site.pages[f"/{name}"] = body
    with pytest.raises(ExecutorError, match="larger than the limit"):
        get(f"{site.url}/{name}", home, max_bytes=1_000_000)
    assert sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) <= 1_000_000


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_too_many_files_are_refused(tmp_path: Path, kind: str) -> None:
    names = [f"{number}" for number in range(11)]
    body = tar(*((n, b"", {}) for n in names)) if kind == "tar" else zipped(*((n, b"", 0o100644) for n in names))
    path = tmp_path / "archive"
    path.write_bytes(body)
    with pytest.raises(ExecutorError, match="too many files"):
        archive.extract(path, f"a.{kind}", tmp_path / "target", max_bytes=10**6, max_files=10)


def test_an_xz_stream_that_wants_much_memory_is_refused(site: Site, home: Path) -> None:
    body = bytearray(lzma.compress(PLAIN))
    block = 12  # the block header follows the stream header (xz-file-format 3.1): its size, flags, filters, CRC32
    body[body.index(b"\x21\x01", block) + 2] = 40  # LZMA2 with the largest dictionary, 4 GiB
    size = (body[block] + 1) * 4
    body[block + size - 4 : block + size] = zlib.crc32(bytes(body[block : block + size - 4])).to_bytes(4, "little")
    site.pages["/a.tar.xz"] = bytes(body)
    with pytest.raises(ExecutorError, match="emory"):
        get(f"{site.url}/a.tar.xz", home)


def test_a_plain_file_can_be_run(site: Site, home: Path) -> None:
    site.pages["/d/tool?x=1"] = b"#!/bin/sh\n"
    get(f"{site.url}/d/tool?x=1", home)
    assert stat.S_IMODE((home / "work" / "tool").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/b.tar.gz?x=/y", "b.tar.gz"),
        ("http://h/", "artifact"),
        ("http://h", "artifact"),
        ("http://h/..", "artifact"),
        ("http://h/a%2F..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("http://h/.bashrc", "bashrc"),
        ("http://h/-rf", "rf"),
        ("http://h/a%00b%0Ac", "a_b_c"),
        ("http://h/" + "x" * 900, "x" * 200),
    ],
)
def test_names_come_from_the_url_and_are_harmless(url: str, name: str) -> None:
    assert file_name(url) == name


def test_redirects_are_followed_a_few_times(site: Site, home: Path) -> None:
    site.pages["/tool"] = redirect("/there")
    site.pages["/there"] = b"body"
    get(f"{site.url}/tool", home)
    assert (home / "work" / "tool").read_bytes() == b"body"


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "gopher://h/x", "/tool"]
)
def test_other_redirects_are_not_followed(site: Site, home: Path, to: str) -> None:
    site.pages["/tool"] = redirect(to)
    with pytest.raises(ExecutorError):
        get(f"{site.url}/tool", home)
    assert list(home.iterdir()) == []


def test_a_password_goes_to_the_first_server_only_and_into_no_message(site: Site, home: Path) -> None:
    seen: list[tuple[str, str | None]] = []

    def note(answer: Callable[[BaseHTTPRequestHandler], None]) -> Callable[[BaseHTTPRequestHandler], None]:
        def noted(request: BaseHTTPRequestHandler) -> None:
            seen.append((request.path, request.headers["Authorization"]))
            answer(request)

        return noted

    site.pages["/tool"] = note(redirect(f"http://localhost:{site.server_port}/other"))
    site.pages["/other"] = note(lambda request: request.send_error(403))
    with pytest.raises(ExecutorError) as caught:
        get(site.url.replace("//", "//user:pass%40word@") + "/tool", home)
    assert seen == [("/tool", "Basic " + base64.b64encode(b"user:pass@word").decode()), ("/other", None)]
    assert "pass" not in str(caught.value)
    assert "403" in str(caught.value)


def test_a_body_that_is_cut_short_or_endless_is_an_error(site: Site, home: Path) -> None:
    def short(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 10)

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b"x" * 100_000)

    site.pages |= {"/short": short, "/endless": endless}
    with pytest.raises(ExecutorError, match="10 of 1000 bytes"):
        get(f"{site.url}/short", home)
    with pytest.raises(ExecutorError, match="larger than the limit"):
        get(f"{site.url}/endless", home, max_bytes=1_000_000)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_drips_is_cut_off_at_the_deadline(site: Site, home: Path, part: str) -> None:
    stop = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if part == "body":
            request.end_headers()
        request.flush_headers()
        while not stop.wait(0.05):
            request.wfile.write(b"x")

    site.pages["/slow"] = drip
    begun = time.monotonic()
    try:
        with pytest.raises(ExecutorError, match="not complete after"):
            get(f"{site.url}/slow", home, max_seconds=0.5)
    finally:
        stop.set()
    assert time.monotonic() - begun < 5
    assert list(home.iterdir()) == []


def test_proxies_of_the_environment_are_not_asked(site: Site, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    site.pages["/tool"] = b"body"
    get(f"{site.url}/tool", home)
    assert (home / "work" / "tool").read_bytes() == b"body"


def test_a_task_runs_from_its_artifact(rig: Any, site: Site, eventually: Eventually) -> None:
    site.pages["/app.tar.gz"] = gzip.compress(PLAIN)
    handle = rig.start(start="./app/bin/run; sleep 1000", artifact=f"{site.url}/app.tar.gz", download_dir="app")
    eventually(lambda: rig.output(handle) == "ran\n")


@pytest.mark.parametrize("page", ["/missing.tar.gz", "/half.tar.gz", "/climbs.tar"])
def test_a_failed_artifact_starts_nothing_and_leaves_nothing(rig: Any, site: Site, page: str) -> None:
    site.pages["/half.tar.gz"] = gzip.compress(PLAIN)[:-100]
    site.pages["/climbs.tar"] = BAD_TARS["climbs"]
    with pytest.raises(ExecutorError, match="artifact"):
        rig.start(start="sleep 1000", artifact=site.url + page)
    assert not list(rig.folder.glob("*/*"))
    assert rig.agent().recover() == {}
