"""Archives: unpacked with suspicion by a process with few rights, or refused whole with nothing outside touched."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rigs.artifacts import KINDS, PLAIN, check_tree, tar, unpack_anything, zipped
from rigs.local import descriptors_taken
from sked_bash import unpack
from sked_bash.archive import Refused, extract
from sked_bash.unpack import DiskFull
from sked_core.plugin import ExecutorError, account

Eventually = Callable[..., Any]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack with another user's rights")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where archives are unpacked; whatever appears beside it has escaped."""
    home = tmp_path / "outside" / "home"
    home.mkdir(parents=True)
    return home


def put(name: str, body: bytes, home: Path, **options: Any) -> None:
    """Unpack ``body`` into ``home`` as it is done for tasks."""
    limits = {"to": "", "unpack": True, "max_bytes": 10_000_000, "max_files": 10_000, "called_off": threading.Event()}
    options = {**limits, "deadline": time.monotonic() + 60, **options}
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        source = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            unpack.run(source, folder, name=name, **options)
        finally:
            os.close(source)
            os.close(folder)


def untouched(home: Path) -> bool:
    return [path.name for path in home.parent.iterdir()] == ["home"] and not Path("/tmp/sked-escaped").exists()


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
@pytest.mark.parametrize("to", ["", "deep/er"])
def test_archives_are_unpacked_without_dangerous_bits(home: Path, name: str, body: bytes, to: str) -> None:
    put(name, body, home, to=to)
    assert (home / to / "bin/run").read_bytes() == b"#!/bin/sh\necho ran\n"
    assert stat.S_IMODE((home / to / "bin/run").stat().st_mode) == 0o755
    assert (home / to / "data.txt").stat().st_size == 300_000
    assert stat.S_IMODE((home / to / "bin").stat().st_mode) == 0o755
    assert untouched(home)


@pytest.mark.parametrize("name", KINDS[1:4])
def test_a_compressed_archive_without_its_end_is_refused(home: Path, name: str) -> None:  # G25
    packer = {"gz": gzip.compress, "2": bz2.compress, "xz": lzma.compress}
    body = next(pack for end, pack in packer.items() if name.endswith(end))(PLAIN)
    for length in (len(body) - 1, len(body) - 9, len(body) // 2, 10):
        (folder := home / str(length)).mkdir()
        with pytest.raises(ExecutorError, match="damaged or cut short"):
            put(name, body[:length], folder)


@pytest.mark.parametrize(
    ("name", "body"),  # G19
    [
        ("bomb.tar.gz", gzip.compress(tar(("a", bytes(5_000_000), {})))),
        ("bomb.tar.bz2", bz2.compress(tar(("a", bytes(5_000_000), {})))),
        ("bomb.tar.xz", lzma.compress(tar(("a", bytes(5_000_000), {})))),
        ("bomb.zip", zipped(("a", bytes(5_000_000), 0o100644))),
        ("many.zip", zipped(*((str(number), bytes(300_000), 0o100644) for number in range(5)))),
        ("behind.tar.gz", gzip.compress(PLAIN) + gzip.compress(bytes(50_000_000))),
    ],
)
def test_what_grows_past_the_limit_is_refused(home: Path, name: str, body: bytes) -> None:
    with pytest.raises(ExecutorError, match="larger than the limit"):
        put(name, body, home, max_bytes=1_000_000)
    assert sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) <= 1_000_000


def test_archives_in_an_archive_stay_packed(home: Path) -> None:  # G19: 42.zip is 16 of 16 of 16 of …
    inner = zipped(*((f"{number}.zip", b"x" * 1000, 0o100644) for number in range(16)))
    put("42.zip", zipped(*((f"lib {number}.zip", inner, 0o100644) for number in range(16))), home)
    assert len(list(home.iterdir())) == 16
    assert (home / "lib 3.zip").read_bytes() == inner


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("deep", [False, True])
def test_too_many_files_are_refused(home: Path, kind: str, deep: bool) -> None:  # G20; folders count, too
    names = ["/".join("abcdefghijk")] if deep else [f"{number}" for number in range(11)]
    body = tar(*((n, b"", {}) for n in names)) if kind == "tar" else zipped(*((n, b"", 0o100644) for n in names))
    with pytest.raises(ExecutorError, match="too many files"):
        put(f"a.{kind}", body, home, max_files=10)
    assert len(list(home.rglob("*"))) <= 11


def test_an_xz_stream_that_wants_much_memory_is_refused(home: Path) -> None:
    body = bytearray(lzma.compress(PLAIN))
    block = 12  # the block header follows the stream header (xz-file-format 3.1): its size, flags, filters, CRC32
    body[body.index(b"\x21\x01", block) + 2] = 40  # LZMA2 with the largest dictionary, 4 GiB
    size = (body[block] + 1) * 4
    body[block + size - 4 : block + size] = zlib.crc32(bytes(body[block : block + size - 4])).to_bytes(4, "little")
    with pytest.raises(ExecutorError, match="emory"):
        put("a.tar.xz", bytes(body), home)


@pytest.mark.parametrize("to", ["bin", "bin/deep"])
def test_a_folder_that_became_a_link_is_not_followed(home: Path, to: str) -> None:  # G10
    (home / "bin").symlink_to(home.parent)
    with pytest.raises(ExecutorError, match="both a file and a folder"):
        put("a.tar", PLAIN, home, to=to)
    assert untouched(home)


def test_a_full_disk_is_told(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", home], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        with pytest.raises(DiskFull, match="No space left"):
            put("a.tar", PLAIN, home)
    finally:
        subprocess.run(["umount", home], check=True)


def test_an_agent_that_holds_more_than_1024_descriptors_unpacks_as_any_other(home: Path) -> None:
    with descriptors_taken():
        put("a.tar", PLAIN, home)
    assert any(path.is_file() for path in home.rglob("*"))


ENDLESS = bz2.compress(PLAIN) + bz2.compress(bytes(10**8)) * 10_000


def test_what_takes_too_long_is_ended(home: Path) -> None:
    with pytest.raises(ExecutorError, match="not unpacked in time") as caught:
        put("a.tar.bz2", ENDLESS, home, max_bytes=10**13, deadline=time.monotonic() + 1)
    assert not caught.value.permanent


def test_it_is_given_up_once_the_agent_ends(home: Path) -> None:
    called_off = threading.Event()
    threading.Timer(0.5, called_off.set).start()
    with pytest.raises(ExecutorError, match="given up"):
        put("a.tar.bz2", ENDLESS, home, max_bytes=10**13, called_off=called_off)


def test_nothing_goes_on_once_its_agent_was_killed(tmp_path: Path, home: Path, eventually: Eventually) -> None:
    (tmp_path / "a").write_bytes(ENDLESS)
    script = f"""
import os, threading, time
from sked_bash import unpack
source, folder = os.open({str(tmp_path / "a")!r}, os.O_RDONLY), os.open({str(home)!r}, os.O_RDONLY)
unpack.run(source, folder, name="a.tar.bz2", to="", unpack=True, max_bytes=10**13, max_files=99,
           deadline=time.monotonic() + 100, called_off=threading.Event())
"""
    agent = subprocess.Popen([sys.executable, "-c", script])

    def child() -> int:
        (found,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split() or [0]
        return int(found)

    try:
        pid = eventually(child, 60)
        eventually(lambda: (home / "data.txt").exists(), 60)  # by then it has lowered itself
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    eventually(
        lambda: not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(), 60
    )


@needs_root
@pytest.mark.parametrize("name", ["a.tar.gz", "tool"])
def test_all_of_it_belongs_to_the_user_that_the_task_runs_as(home: Path, name: str) -> None:
    nobody = account("nobody")
    os.chown(home, nobody.uid, nobody.gid)
    put(name, gzip.compress(PLAIN), home, to="deep", unpack=name != "tool", account=nobody)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in home.rglob("*")} == {(nobody.uid, nobody.gid)}
    assert (home / "deep" / ("bin/run" if name != "tool" else "tool")).exists()


@needs_root
def test_a_user_to_whom_the_folder_does_not_belong_writes_nothing(home: Path) -> None:
    with pytest.raises(ExecutorError, match="Permission denied"):
        put("a.tar", PLAIN, home, account=account("nobody"))
    assert list(home.iterdir()) == []


LOWERED = """
import importlib.util, json, os, resource, sys
spec = importlib.util.spec_from_file_location("extractor", sys.argv[1])
extractor = importlib.util.module_from_spec(spec)
spec.loader.exec_module(extractor)
status, net = open("/proc/self/status"), open("/proc/self/net/dev")
extractor._lower(json.loads(sys.argv[2]))
print(json.dumps({
    "status": status.read(), "root": sorted(os.listdir("/")), "umask": os.umask(0),
    "limits": {name: resource.getrlimit(getattr(resource, name))[0] for name in json.loads(sys.argv[2])["limits"]},
}))
"""


def lowered(home: Path, **options: Any) -> dict[str, Any]:
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    limits = {"RLIMIT_FSIZE": 1000, "RLIMIT_NOFILE": 128, "RLIMIT_AS": 2**29, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0}
    arguments = {"folder": folder, "uid": None, "gid": None, "parent": os.getpid(), "limits": limits, **options}
    program = str(Path(unpack.__file__).with_name("extractor.py"))
    command = [sys.executable, "-I", "-S", "-c", LOWERED, program, json.dumps(arguments)]
    answer = json.loads(subprocess.run(command, pass_fds=(folder,), check=True, capture_output=True, timeout=60).stdout)
    os.close(folder)
    assert answer["limits"] == limits
    assert answer["umask"] == 0o022
    answer["status"] = dict(line.split(":\t", 1) for line in answer["status"].splitlines())
    assert answer["status"]["NoNewPrivs"].strip() == "1"
    return dict(answer)


def test_it_has_few_means(home: Path) -> None:
    lowered(home)


@needs_root
def test_as_another_user_it_has_no_rights_and_sees_nothing_else(home: Path) -> None:
    nobody = account("nobody")
    (home / "only").touch()
    answer = lowered(home, uid=nobody.uid, gid=nobody.gid)
    assert answer["root"] == ["only"]
    assert set(answer["status"]["Uid"].split()) == {str(nobody.uid)}
    assert set(answer["status"]["Gid"].split()) == {str(nobody.gid)}
    assert answer["status"]["Groups"].strip() == ""
    assert int(answer["status"]["CapEff"], 16) == int(answer["status"]["CapPrm"], 16) == 0


NAMES = st.one_of(
    st.sampled_from(["a", "A", "a/b", "d", "d/", "../x", "/tmp/sked-escaped", "..", ".", "", "a/../../x", "l", "l/x"]),
    st.text(alphabet="aAbB./\\:~\0\n\u202e\u00e9", max_size=12),
)
KINDS_OF_MEMBER = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"s", b"S"]
)
MEMBERS = st.lists(
    st.tuples(NAMES, st.binary(max_size=40), st.integers(0, 0o7777), KINDS_OF_MEMBER, NAMES), min_size=1, max_size=8
)


def packed(members: list[tuple[str, bytes, int, bytes, str]], kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "a.zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, content, mode, type_, _ in members:
                info = zipfile.ZipInfo(name or "a")
                link = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO}.get(type_, stat.S_IFREG)
                info.external_attr = (mode | link) << 16
                file.writestr(info, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w" if kind == "a.tar" else f"w:{kind.rpartition('.')[2]}") as tarred:  # type: ignore[call-overload]
        for name, content, mode, type_, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size = type_, mode, link, len(content)
            tarred.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(
    members=MEMBERS, kind=st.integers(0, len(KINDS) - 1), cut=st.integers(0, 3), flips=st.lists(st.integers(0, 4000))
)
def test_no_archive_writes_outside_of_the_folder(
    members: list[tuple[str, bytes, int, bytes, str]], kind: int, cut: int, flips: list[int]
) -> None:
    body = bytearray(packed(members, KINDS[kind]))
    for flip in flips if cut == 2 else []:
        body[flip % len(body)] ^= 1 << flip % 8
    unpack_anything(bytes([kind]) + (bytes(body[: len(body) // 2]) if cut == 3 else bytes(body)))
    assert not Path("/tmp/sked-escaped").exists()


@settings(max_examples=200, deadline=None)
@given(names=st.lists(st.text(alphabet="abc/", min_size=1, max_size=8), min_size=1, max_size=5))
def test_plain_archives_are_unpacked_as_tar_would_or_refused(names: list[str]) -> None:
    """What is taken holds exactly what was packed: nothing is left out, put elsewhere or written over."""
    body = tar(*((name, name.encode(), {}) for name in names))
    with tempfile.TemporaryDirectory() as home:
        fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            extract(io.BytesIO(body), "a.tar", fd, max_bytes=10_000, max_files=100)
        except Refused:
            return
        finally:
            os.close(fd)
        found = {str(path.relative_to(home)): path.read_bytes() for path in Path(home).rglob("*") if path.is_file()}
        check_tree(Path(home))
    wanted = {"/".join(part for part in name.split("/") if part): name.encode() for name in names}
    assert found == wanted
