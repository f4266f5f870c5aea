"""Artifacts that are kept by their checksum: one download for many starts, none for a restart, nothing unverified."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rigs.artifacts import PACKED, Site, answering, checksum, serving
from sked_bash.artifact import ArtifactFolder
from sked_bash.cache import Cache
from sked_bash.download import Downloader, Patience
from sked_bash.source import Source
from sked_core.plugin import Artifacts, ExecutorError

SUM = checksum(PACKED).removeprefix("sha256:")
OPEN = Artifacts(plain_http=True, without_checksum=True, private_addresses=True)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        site.pages["/a.tar.gz"] = PACKED
        yield site


def folder(path: Path, policy: Artifacts = OPEN) -> ArtifactFolder:
    return ArtifactFolder(path / "cache", policy, Downloader(policy, Patience(step=10, tries=1)))


def names(path: Path) -> set[str]:
    return {one.name for one in (path / "cache").iterdir() if not one.name.endswith(".lock")}


def test_what_was_fetched_once_needs_no_server(site: Site, tmp_path: Path) -> None:
    folder(tmp_path).put(Source(f"{site.url}/a.tar.gz", SUM), tmp_path / "first")
    site.pages.clear()
    folder(tmp_path).put(Source(f"{site.url}/a.tar.gz", SUM), tmp_path / "second")
    folder(tmp_path).put(Source("https://gone.test/other.tgz", SUM), tmp_path / "third")
    assert len(site.asked) == 1
    assert all((tmp_path / name / "bin/run").exists() for name in ("first", "second", "third"))


def test_it_is_the_agents_own_folder(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o777)
    folder(tmp_path).put(Source(f"{site.url}/a.tar.gz", SUM), tmp_path / "work")
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "cache" / SUM).stat().st_mode) == 0o600


def test_a_link_in_place_of_the_folder_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to("elsewhere")
    with pytest.raises(ExecutorError, match="not a folder of the agent's own"):
        folder(tmp_path).put(Source(f"{site.url}/a.tar.gz", SUM), tmp_path / "work")


@pytest.mark.parametrize("how", ["damaged", "cut", "a link"])
def test_what_is_kept_is_verified_again(site: Site, tmp_path: Path, how: str) -> None:
    source = Source(f"{site.url}/a.tar.gz", SUM)
    folder(tmp_path).put(source, tmp_path / "first")
    kept = tmp_path / "cache" / SUM
    if how == "a link":
        (tmp_path / "other").write_bytes(PACKED)
        kept.unlink()
        kept.symlink_to(tmp_path / "other")
    else:
        kept.write_bytes(PACKED[:-1] + b"!" * (how == "damaged"))
    folder(tmp_path).put(source, tmp_path / "second")
    assert len(site.asked) == 2
    assert not kept.is_symlink()
    assert kept.read_bytes() == PACKED


def test_starts_at_the_same_time_share_one_download(site: Site, tmp_path: Path) -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(request: Any) -> None:
        asked.set()
        go.wait(60)
        answering(PACKED, ("Content-Length", str(len(PACKED))))(request)  # type: ignore[operator]

    site.pages["/a.tar.gz"] = slow
    source = Source(f"{site.url}/a.tar.gz", SUM)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(folder(tmp_path).put, source, tmp_path / "0")
        assert asked.wait(60)
        others = [pool.submit(folder(tmp_path).put, source, tmp_path / str(number)) for number in (1, 2, 3)]
        go.set()
        for one in (first, *others):
            one.result(60)
    assert len(site.asked) == 1
    assert all((tmp_path / str(number) / "bin/run").exists() for number in range(4))


def test_one_that_fails_leaves_the_others_to_try(site: Site, tmp_path: Path) -> None:
    site.pages["/a.tar.gz"] = PACKED[:-1]
    source = Source(f"{site.url}/a.tar.gz", SUM)
    for _ in range(2):
        with pytest.raises(ExecutorError, match="checksum"):
            folder(tmp_path).put(source, tmp_path / "work")
        assert names(tmp_path) == set()
    site.pages["/a.tar.gz"] = PACKED
    folder(tmp_path).put(source, tmp_path / "work")


def test_two_tasks_with_one_url_get_what_each_was_given(site: Site, tmp_path: Path) -> None:  # Nomad CVE-2022-24686
    bodies, both = [b"first", b"second"], threading.Barrier(2)

    def differing(request: Any) -> None:
        body = bodies.pop()
        both.wait(60)
        answering(body, ("Content-Length", str(len(body))))(request)  # type: ignore[operator]

    site.pages["/tool"] = differing
    shared = folder(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        works = [tmp_path / "a", tmp_path / "b"]
        for done in [pool.submit(shared.put, Source(f"{site.url}/tool"), work) for work in works]:
            done.result(60)
    assert {(work / "tool").read_bytes() for work in works} == {b"first", b"second"}
    assert names(tmp_path) == set()


def test_what_was_not_used_for_longest_goes_first(site: Site, tmp_path: Path) -> None:
    bodies = [bytes([number]) * 1000 for number in range(4)]
    sums = [checksum(body).removeprefix("sha256:") for body in bodies]
    policy = Artifacts(plain_http=True, private_addresses=True, cache_bytes=3000)
    for number, body in enumerate(bodies):
        site.pages[f"/{number}"] = body

    def use(number: int, turn: int) -> None:
        folder(tmp_path, policy).put(Source(f"{site.url}/{number}", sums[number]), tmp_path / f"{number}-{turn}")
        os.utime(tmp_path / "cache" / sums[number], (turn, turn))  # clocks of disks are coarse

    for turn, number in enumerate((0, 1, 2, 0, 3)):
        use(number, turn)
    assert names(tmp_path) == {sums[2], sums[0], sums[3]}


def test_nothing_is_kept_where_the_policy_says_so(site: Site, tmp_path: Path) -> None:
    policy = Artifacts(plain_http=True, private_addresses=True, cache_bytes=0)
    folder(tmp_path, policy).put(Source(f"{site.url}/a.tar.gz", SUM), tmp_path / "work")
    assert (tmp_path / "work" / "bin/run").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_one_that_is_larger_than_allowed_now_is_not_taken(site: Site, tmp_path: Path) -> None:
    folder(tmp_path).put(Source(f"{site.url}/a.tar.gz", SUM), tmp_path / "first")
    policy = Artifacts(plain_http=True, private_addresses=True, max_bytes=10)
    with pytest.raises(ExecutorError, match="larger than the limit"):
        folder(tmp_path, policy).put(Source(f"{site.url}/a.tar.gz", SUM), tmp_path / "second")


def test_what_a_killed_agent_left_is_removed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for name in (f"{'0' * 64}.part", f"{'0' * 64}.lock", f"{SUM}.part"):
        (tmp_path / "cache" / name).write_bytes(b"half")
    folder(tmp_path).put(Source(f"{site.url}/a.tar.gz", SUM), tmp_path / "work")
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {SUM, f"{SUM}.lock"}


def test_a_full_disk_costs_what_is_kept_before_it_costs_a_start(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**6)
    with cache.taken(
        checksum(b"x").removeprefix("sha256:"), lambda file: file.write(b"x"), float("inf"), threading.Event()
    ):
        pass
    assert cache.clear()
    assert not cache.clear()


def test_a_start_that_waits_for_another_ones_download_has_its_own_deadline(tmp_path: Path) -> None:
    cache, sum_, inside = Cache(tmp_path / "cache", 10**6), "0" * 64, threading.Event()

    def fetch(_file: Any) -> None:
        with (
            pytest.raises(ExecutorError, match="another start still fetches it"),
            cache.taken(sum_, _never, 0.0, threading.Event()),
        ):
            pass
        inside.set()
        raise ExecutorError("no server")

    with pytest.raises(ExecutorError, match="no server"), cache.taken(sum_, fetch, float("inf"), threading.Event()):
        pass
    assert inside.is_set()


def _never(_file: Any) -> None:
    raise AssertionError("fetched twice")


def test_a_task_that_starts_again_gets_a_new_copy(
    rig: Any, site: Site, eventually: Callable[..., Any]
) -> None:  # G27: what runs keeps its files
    spec = {
        "start": "ls -i data.txt; sleep 1000",
        "artifact": {"url": f"{site.url}/a.tar.gz", "checksum": f"sha256:{SUM}"},
    }
    first = rig.start(**spec)
    eventually(lambda: rig.output(first))
    rig.start(instance=1, **spec)
    inode = (rig.home(first) / "work" / "data.txt").stat().st_ino
    assert rig.output(first).split()[0] == str(inode)
    assert (rig.home(first) / "work" / "data.txt").stat().st_nlink == 1
    assert len(site.asked) == 1
