"""Servers that artifacts are fetched from, the archives that they hand out, and what they do wrong."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import ssl
import stat
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rigs.tls import Certificate

Page = bytes | Callable[[BaseHTTPRequestHandler], None]


class Site(ThreadingHTTPServer):
    """A web server whose pages are what a test puts in: a body, or a function that answers the request. ``asked``: the
    path, Host and Authorization of each request. ``stopping`` is set before it ends: pages that wait look at it."""

    daemon_threads = True

    def __init__(self, certificate: Certificate | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.stopping = threading.Event()
        self.names: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        if certificate is not None:
            self.url = self.url.replace("http:", "https:")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert, certificate.key)
            context.sni_callback = lambda _sock, name, _context: self.names.append(name)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are what is tested."""


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        self.server.asked.append((self.path, self.headers["Host"], self.headers["Authorization"]))
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
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Have ``site`` answer."""
    with site:
        thread = threading.Thread(target=site.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield site
        finally:
            site.stopping.set()
            site.shutdown()
            thread.join()


def redirect(to: str, status: int = 302) -> Page:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", to)
        request.end_headers()

    return answer


def answering(body: bytes, *headers: tuple[str, str], status: int = 200) -> Page:
    """Exactly these headers, then ``body``."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def dripping(part: str) -> Page:
    """Some bytes of the headers or the body now and then, for ever: a slow loris."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        assert isinstance(request.server, Site)
        request.send_response(200)
        if part == "body":
            request.send_header("Content-Length", "100000")
            request.end_headers()
        request.flush_headers()
        while not request.server.stopping.wait(0.02):
            request.wfile.write(b"x")
            request.wfile.flush()

    return answer


def endless(part: str) -> Page:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if part == "body":
            request.end_headers()
        request.flush_headers()
        while True:
            request.wfile.write(b"X-More: more\r\n" * 1000 if part == "headers" else b"x" * 100_000)

    return answer


def checksum(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


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
    """A zip file; each member is its name, its content and its mode."""
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
PACKED = gzip.compress(PLAIN)


@dataclass(frozen=True)
class Fault:
    """Something that a server does to an artifact: the ``page`` for its path, and a part of what is to be said of it.
    ``rejected``: the task is, at once; otherwise its start fails, and is tried again later."""

    page: Page
    says: str
    checksum: str = checksum(PACKED)
    rejected: bool = False


FAULTS: Mapping[str, Fault] = {
    "drips headers": Fault(dripping("headers"), "too slow"),
    "drips a body": Fault(dripping("body"), "too slow"),
    "answers nothing": Fault(lambda request: _wait(request), "too slow"),
    "hangs up": Fault(lambda request: None, "artifact"),
    "answers 500": Fault(answering(b"", status=500), "500"),
    "answers 503": Fault(answering(b"", status=503), "503"),
    "answers 404": Fault(answering(b"", status=404), "404"),
    "sends a body without end": Fault(endless("body"), "larger than the limit", rejected=True),
    "sends headers without end": Fault(endless("headers"), "headers"),
    "claims a petabyte": Fault(answering(b"", ("Content-Length", str(10**15))), "larger than the limit", rejected=True),
    "is cut short": Fault(answering(PACKED[:-9], ("Content-Length", str(len(PACKED)))), "cut short"),
    "sends something else": Fault(PACKED + b"!", "checksum", rejected=True),
    "sends it encoded": Fault(
        answering(gzip.compress(bytes(1000)), ("Content-Encoding", "gzip")), "encoded", rejected=True
    ),
    "redirects to metadata": Fault(
        redirect("http://169.254.169.254/latest/meta-data/"), "artifacts.private_addresses", rejected=True
    ),
    "redirects to a file": Fault(redirect("file:///etc/passwd"), "redirects"),
    "redirects in a circle": Fault(redirect("/circle.tar.gz"), "redirects"),
}


def _wait(request: BaseHTTPRequestHandler) -> None:
    assert isinstance(request.server, Site)
    request.server.stopping.wait(60)


def fault_path(name: str) -> str:
    return "/circle.tar.gz" if "circle" in name else f"/{name.replace(' ', '-')}.tar.gz"


def check_fault(name: str, site: Site, folder: Path) -> float:
    """Have the artifact with fault ``name`` fetched into ``folder``, which is empty; returns the seconds until that was
    given up. Raises AssertionError unless it was for the reason expected, and nothing is left of it."""
    from sked_bash.artifact import ArtifactFolder
    from sked_bash.download import Downloader, Patience
    from sked_bash.source import Source
    from sked_core.plugin import Artifacts, ExecutorError, Rejected

    fault = FAULTS[name]
    site.pages[fault_path(name)] = fault.page
    policy = Artifacts(plain_http=True, private_addresses=True, max_bytes=1_000_000, seconds=60)
    patience = Patience(step=0.3, least=10_000, tries=2, pause=0.01)
    source = Source(site.url + fault_path(name), fault.checksum.removeprefix("sha256:"))
    begun = time.monotonic()
    try:
        ArtifactFolder(folder / "cache", policy, Downloader(policy, patience)).put(source, folder / "work")
    except (ExecutorError, Rejected) as error:
        took = time.monotonic() - begun
        rejected = isinstance(error, Rejected) or error.permanent
        assert fault.says in str(error), f"{name}: {error}"
        assert rejected == fault.rejected, f"{name}: {error!r}"
    else:
        raise AssertionError(f"an artifact was taken from a server that {name}")
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert left == [] and not (folder / "work").exists(), f"{name}: {left} is left"
    return took


def check_faults(folder: Path) -> dict[str, float]:
    """``check_fault`` for all of them, each in a folder of its own below ``folder``; returns the seconds of each."""
    took = {}
    with serving(Site()) as site:
        for number, name in enumerate(FAULTS):
            (home := folder / str(number)).mkdir(parents=True)
            took[name] = check_fault(name, site, home)
    return took


KINDS = ("a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.zip")
FUZZ_BYTES, FUZZ_FILES = 1_000_000, 100


def unpack_anything(data: bytes) -> None:
    """For fuzzers: unpack ``data`` in this process, its first byte telling as which of KINDS. Raises AssertionError if
    that does anything but write regular files and folders, few and small, below one folder, or refuse; any other
    exception is a fault as well."""
    from sked_bash.archive import Refused, extract

    with tempfile.TemporaryDirectory(prefix="sked-fuzz-") as home:
        outside, folder = Path(home), Path(home, "folder")
        folder.mkdir()
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            kind = KINDS[(data[0] if data else 0) % len(KINDS)]
            with contextlib.suppress(Refused):
                extract(io.BytesIO(data[1:]), kind, fd, to="to", max_bytes=FUZZ_BYTES, max_files=FUZZ_FILES)
        finally:
            os.close(fd)
        assert [path.name for path in outside.iterdir()] == ["folder"], "something was written outside"
        check_tree(folder)


def check_tree(folder: Path) -> None:
    """Raises AssertionError if there is anything below ``folder`` that no archive may make."""
    count = size = 0
    for path in folder.rglob("*"):
        about = path.lstat()
        count += 1
        assert stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode), f"{path} is of another kind"
        assert about.st_mode & 0o7022 == 0, f"{path} has mode {about.st_mode:o}"
        assert about.st_nlink == 1 or stat.S_ISDIR(about.st_mode), f"{path} is linked"
        size += about.st_size if stat.S_ISREG(about.st_mode) else 0
    assert count <= FUZZ_FILES + 1, f"{count} files"
    assert size <= FUZZ_BYTES, f"{size} bytes"
