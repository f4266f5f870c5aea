"""Artifacts: fetched within limits of size, time and patience, or nothing is started and nothing is left."""

from __future__ import annotations

import gzip
import http.server
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.artifacts import (
    FAULTS,
    PACKED,
    PLAIN,
    Site,
    answering,
    check_fault,
    checksum,
    dripping,
    serving,
    tar,
)
from sked_bash.artifact import ArtifactFolder
from sked_bash.download import Downloader, Patience
from sked_bash.source import Source, file_name
from sked_core.plugin import Artifacts, ExecutorError

Eventually = Callable[..., Any]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        yield site


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where artifacts go; whatever appears beside it has escaped."""
    home = tmp_path / "outside" / "home"
    home.mkdir(parents=True)
    return home


def get(url: str, home: Path, *, patience: Patience | None = None, sum_: str = "", **limits: Any) -> None:
    policy = Artifacts(**{"plain_http": True, "without_checksum": True, "private_addresses": True, **limits})
    downloader = Downloader(policy, patience or Patience(step=10, tries=1))
    ArtifactFolder(home / "cache", policy, downloader).put(Source(url, sum_), home / "work")


def left(home: Path) -> list[str]:
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


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


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_at_fault_costs_a_start_and_no_more(site: Site, home: Path, name: str) -> None:
    check_fault(name, site, home)


@pytest.mark.parametrize("disposition", ["../../x", "/etc/cron.d/x", "", ".bashrc"])
def test_what_the_server_calls_it_does_not_matter(site: Site, home: Path, disposition: str) -> None:
    header = ("Content-Disposition", f'attachment; filename="{disposition}"')
    site.pages["/tool"] = answering(b"body", ("Content-Length", "4"), header)
    get(f"{site.url}/tool", home)
    assert left(home) == ["work/tool"]


@pytest.mark.parametrize(
    ("headers", "body", "part"),
    [
        ([("Content-Length", "1000")], b"x" * 10, "cut short: 10 of 1000"),
        ([("Content-Length", "4"), ("Content-Length", "5")], b"x" * 5, "two lengths"),
        ([("Transfer-Encoding", "gzip, chunked")], b"x", "encoded"),
        ([("Transfer-Encoding", "chunked")], b"5\r\nxx", "artifact"),
        ([("Transfer-Encoding", "chunked")], b"-5\r\nxx\r\n0\r\n\r\n", "artifact"),
        ([("Transfer-Encoding", "chunked")], b"fffffffff\r\nxx", "artifact"),
        ([("Content-Encoding", "br")], b"x", "encoded"),
        ([("X-Long", "x" * 70_000)], b"x", "artifact"),
    ],
)
def test_an_answer_that_is_not_plain_is_not_taken(
    site: Site, home: Path, headers: list[tuple[str, str]], body: bytes, part: str
) -> None:
    site.pages["/tool"] = answering(body, *headers)
    with pytest.raises(ExecutorError, match=part):
        get(f"{site.url}/tool", home)
    assert left(home) == []


@pytest.mark.parametrize("status", [100, 103, 204, 206, 304, 400, 404, 418, 500, 599])
def test_only_200_is_an_artifact(site: Site, home: Path, status: int) -> None:
    site.pages["/tool"] = answering(b"", ("Content-Length", "0"), status=status)
    with pytest.raises(ExecutorError, match="artifact"):
        get(f"{site.url}/tool", home)
    assert left(home) == []


def test_chunks_and_the_end_of_the_line_are_understood(site: Site, home: Path) -> None:
    site.pages["/tool"] = answering(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", ("Transfer-Encoding", "chunked"))
    get(f"{site.url}/tool", home)
    assert (home / "work" / "tool").read_bytes() == b"abcde"


def test_tiny_chunks_do_not_make_it_endless(site: Site, home: Path) -> None:
    def chunks(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while True:
            request.wfile.write(b"1;" + b"x" * 50_000 + b"\r\nx\r\n")

    site.pages["/tool"] = chunks
    with pytest.raises(ExecutorError, match="without end"):
        get(f"{site.url}/tool", home, max_bytes=100_000)
    assert left(home) == []


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_drips_is_cut_off_at_the_deadline(site: Site, home: Path, part: str) -> None:
    site.pages["/slow"] = dripping(part)
    begun = time.monotonic()
    with pytest.raises(ExecutorError, match="not complete in time"):
        get(f"{site.url}/slow", home, seconds=1, patience=Patience(step=60))
    assert time.monotonic() - begun < 30
    assert left(home) == []


def test_it_is_tried_again_with_growing_pauses(site: Site, home: Path) -> None:
    answers = [answering(b"", status=503), lambda request: None, answering(b"x", ("Content-Length", "9")), b"body"]
    site.pages["/tool"] = lambda request: _answer(request, answers.pop(0))
    get(f"{site.url}/tool", home, patience=Patience(step=10, tries=4, pause=0.01))
    assert (home / "work" / "tool").read_bytes() == b"body"
    assert len(site.asked) == 4


def _answer(request: Any, page: Any) -> None:
    (page if callable(page) else answering(page, ("Content-Length", str(len(page)))))(request)


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (429, 1), (500, 3), (503, 3)])
def test_what_the_server_refuses_is_not_asked_for_again(site: Site, home: Path, status: int, asked: int) -> None:
    site.pages["/tool"] = answering(b"", ("Content-Length", "0"), status=status)
    with pytest.raises(ExecutorError, match=str(status)) as caught:
        get(f"{site.url}/tool", home, patience=Patience(step=10, tries=3, pause=0.01))
    assert len(site.asked) == asked
    assert not caught.value.permanent


def test_a_wrong_checksum_is_not_asked_for_again(site: Site, home: Path) -> None:
    site.pages["/tool"] = b"body"
    with pytest.raises(ExecutorError, match=f"its checksum is {checksum(b'body')}, not sha256:{'0' * 64}") as caught:
        get(f"{site.url}/tool", home, sum_="0" * 64, patience=Patience(tries=3, pause=0.01))
    assert caught.value.permanent
    assert len(site.asked) == 1
    assert left(home) == []


def test_an_archive_can_stay_one_file(rig: Any, site: Site, eventually: Eventually) -> None:
    site.pages["/a.tar.gz"] = PACKED
    artifact = {"url": f"{site.url}/a.tar.gz", "checksum": checksum(PACKED), "to": "in", "extract": "none"}
    handle = rig.start(start="ls in; sleep 1000", artifact=artifact)
    eventually(lambda: rig.output(handle) == "a.tar.gz\n")


def test_a_start_that_waits_for_a_server_ends_with_its_agent(rig: Any, site: Site) -> None:
    site.pages["/slow"] = dripping("headers")
    failed: list[BaseException] = []

    def start() -> None:
        try:
            rig.start(start="sleep 1000", artifact=f"{site.url}/slow")
        except ExecutorError as error:
            failed.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    while not site.asked:
        assert thread.is_alive()
        time.sleep(0.01)
    rig.executor.close()
    thread.join(60)
    assert "given up" in str(failed)


def test_a_task_runs_from_its_artifact(rig: Any, site: Site, eventually: Eventually) -> None:
    site.pages["/app.tar.gz"] = gzip.compress(PLAIN)
    handle = rig.start(start="./app/bin/run; sleep 1000", artifact=f"{site.url}/app.tar.gz", download_dir="app")
    eventually(lambda: rig.output(handle) == "ran\n")


@pytest.mark.parametrize("page", ["/missing.tar.gz", "/half.tar.gz", "/climbs.tar"])
def test_a_failed_artifact_starts_nothing_and_leaves_nothing(rig: Any, site: Site, page: str) -> None:
    site.pages["/half.tar.gz"] = gzip.compress(PLAIN)[:-100]
    site.pages["/climbs.tar"] = tar(("../escaped", b"x", {}))
    with pytest.raises(ExecutorError, match="artifact"):
        rig.start(start="sleep 1000", artifact=site.url + page)
    assert not list(rig.folder.glob("*/*"))
    assert not list(rig.folder.glob("**/escaped"))
    assert rig.agent().recover() == {}
