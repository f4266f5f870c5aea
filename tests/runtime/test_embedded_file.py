"""The file of the embedded store: created privately, replaced, damaged, locked, edited by hand."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from sked_core.errors import InvalidValue, Unavailable
from sked_core.interfaces.store import Delete, Fence, Put, Revision, Store
from sked_core.runtime.stores import sqlite_file
from sked_core.runtime.stores.embedded import EmbeddedStore, embedded_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sked.db"


def remove(path: Path) -> None:
    for name in (path.name, path.name + "-wal", path.name + "-shm"):
        path.with_name(name).unlink(missing_ok=True)


def test_file_and_folder_are_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state" / "sked.db"
    before = os.umask(0)
    try:
        with closing(EmbeddedStore(path)) as store:
            assert not path.exists(), "nothing happens before the first call"
            store.commit([Put("a", b"")])
            assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
                "sked.db": 0o600,
                "sked.db-wal": 0o600,
                "sked.db-shm": 0o600,
            }
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent.stat().st_mode & 0o777 == 0o700


def test_what_was_committed_is_there_after_a_restart(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        lease = store.grant(60)
        revision = store.commit([Put("a", b"1"), Put("lock", b"", lease)])
    with closing(EmbeddedStore(path)) as store:
        assert store.read("a").entries["a"].value == b"1"
        assert store.read("").revision == revision
        store.commit([Fence("lock", lease), Put("a", b"2")])
    with pytest.raises(Unavailable, match="closed"):
        store.read("")
    with pytest.raises(Unavailable, match="closed"):
        lease.renew()


def test_many_may_open_a_new_store_at_once(path: Path) -> None:
    stores = [EmbeddedStore(path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: stores[number].commit([Put(f"a/{number}", b"")]), range(8)))
    assert len(stores[0].read("a/").entries) == 8
    for store in stores:
        store.close()


def test_a_removed_file_is_an_empty_store(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store, closing(EmbeddedStore(path)) as other:
        lease = store.grant(60)
        for number in range(5):
            store.commit([Put("a/1", b"%d" % number), Put("lock", b"", lease)])
        since = other.read("a/").revision
        remove(path)
        assert store.read("").entries == {}
        assert store.read("").revision < since
        begun = time.monotonic()
        assert other.wait("a/", since, 60) < since
        assert time.monotonic() - begun < 30
        for number in range(10):
            store.commit([Put(f"b/{number}", b"")])
        assert len(other.read("").entries) == 10, "both use the new file"
        with pytest.raises(Exception, match="not held"):
            store.commit([Fence("lock", lease), Put("work", b"")])


def test_a_wait_in_progress_notices_that_the_file_was_replaced(path: Path, tmp_path: Path) -> None:
    """Also when the new file has a later revision, and no change of its own below the prefix."""
    backup = tmp_path / "backup.db"
    with closing(EmbeddedStore(backup)) as store:
        for number in range(9):
            store.commit([Put("b/1", b"%d" % number)])
    with closing(EmbeddedStore(path)) as store:
        store.commit([Put("a/1", b"")])
        has_read = threading.Event()

        def watch() -> int:
            since = store.read("a/").revision
            has_read.set()
            return store.wait("a/", since, 60)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(watch)
            assert has_read.wait(60)
            remove(path)
            backup.rename(path)
            assert waiting.result(timeout=60) == 9
        assert set(store.read("").entries) == {"b/1"}


def file_with_inode(inode: int, path: Path) -> bool:
    """Whether the file system gave ``inode`` out again, for an empty file at ``path``."""
    made = []
    for number in range(100):
        made.append(path.with_name(f"filler-{number}"))
        made[-1].touch()
        if made[-1].stat().st_ino == inode:
            made.pop().rename(path)
            break
    for filler in made:
        filler.unlink()
    return path.exists()


def test_a_wait_notices_another_file_that_has_the_number_of_the_one_before(path: Path) -> None:
    """File systems give the number of an inode out again, at once, and the new file may be at the same revision."""
    with closing(EmbeddedStore(path)) as store, closing(EmbeddedStore(path)) as other:
        for number in range(3):
            store.commit([Put("a/1", b"%d" % number)])
        seen, inode = store.read(""), path.stat().st_ino
        shutil.rmtree(path.parent)
        path.parent.touch()
        with pytest.raises(Unavailable):
            store.wait("", seen.revision, 60)
        path.parent.unlink()
        path.parent.mkdir()
        if not file_with_inode(inode, path):
            pytest.skip("this file system did not give the number of the inode out again")
        for _ in range(seen.revision):
            other.commit([Put("b", b"")])
        begun = time.monotonic()
        assert store.wait("", seen.revision, 120) == seen.revision
        assert time.monotonic() - begun < 60
        assert set(store.read("").entries) == {"b"}


def test_the_file_may_be_reached_by_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with closing(EmbeddedStore(link)) as one, closing(EmbeddedStore(path)) as two:
        one.commit([Put("a", b"")])
        assert set(two.read("").entries) == {"a"}
        assert two.wait("a", Revision(0), 30) == 1


@pytest.mark.parametrize("damage", ["header", "pages", "text"])
def test_a_damaged_file_is_unavailable_and_left_alone(path: Path, damage: str) -> None:
    with closing(EmbeddedStore(path)) as store:
        store.commit([Put(f"a/{number}", bytes(1000)) for number in range(300)])
    content = bytearray(path.read_bytes())
    match damage:
        case "header":
            content[:100] = os.urandom(100)
        case "pages":
            content[4096:] = os.urandom(len(content) - 4096)
        case "text":
            content = bytearray(b"This is no database. " * 500)
    path.write_bytes(content)
    with closing(EmbeddedStore(path)) as store:
        for call in (lambda: store.read(""), lambda: store.commit([Put("a/1", b"")]), lambda: store.grant(5)):
            with pytest.raises(Unavailable, match="damaged") as caught:
                call()
            assert str(path) in str(caught.value)
            assert "aside" in caught.value.hint
        with pytest.raises(Unavailable):
            store.wait("a/", Revision(0), 5)
    assert path.read_bytes() == content


def test_paths_that_can_hold_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x" * 2000)
    (tmp_path / "folder").mkdir()
    for place, complaint in (("folder", "not a file"), ("file/sked.db", "Not a directory"), ("n" * 300, "too long")):
        with closing(EmbeddedStore(tmp_path / place)) as store, pytest.raises(Unavailable, match=complaint) as caught:
            store.read("")
        assert str(tmp_path / place) in str(caught.value)


def test_databases_of_others_and_of_the_future_are_refused(tmp_path: Path) -> None:
    theirs, future = tmp_path / "theirs.db", tmp_path / "future.db"
    with closing(sqlite3.connect(theirs)) as db:
        db.execute("CREATE TABLE entries (key TEXT, value BLOB)")
    with closing(EmbeddedStore(future)) as store:
        store.commit([Put("a", b"")])
    with closing(sqlite3.connect(future)) as db:
        db.execute("PRAGMA user_version = 99")
    for path, complaint in ((theirs, "another program"), (future, "later version")):
        with closing(EmbeddedStore(path)) as store, pytest.raises(Unavailable, match=complaint):
            store.read("")


def test_a_process_that_hangs_in_a_transaction_costs_a_deadline(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "DEADLINE_S", 0.3)
    with closing(EmbeddedStore(path)) as store:
        store.commit([Put("a", b"1")])
        with closing(sqlite3.connect(path, isolation_level=None)) as hanging:
            hanging.execute("BEGIN IMMEDIATE")
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="locked"):
                store.commit([Put("a", b"2")])
            assert time.monotonic() - begun < 30
            assert store.read("a").entries["a"].value == b"1", "readers don't care"
        store.commit([Put("a", b"3")])


def test_a_full_disk_is_unavailable_and_harms_nothing(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if not unshare or subprocess.run([unshare, "-rm", *mount], capture_output=True).returncode:
        pytest.skip("a file system of its own can't be mounted here")
    script = f"""
import subprocess
from pathlib import Path
from sked_core.errors import Unavailable
from sked_core.interfaces.store import Delete, Put
from sked_core.runtime.stores.embedded import EmbeddedStore
subprocess.run({mount!r}, check=True)
store = EmbeddedStore(Path({str(tmp_path / "sked.db")!r}))
written = 0
try:
    while written < 1000:
        store.commit([Put(f"a/{{written}}", bytes(20_000)), Put("last", b"%d" % written)])
        written += 1
except Unavailable as error:
    assert "no space left" in str(error) and {str(tmp_path)!r} in str(error), error
entries = store.read("").entries
assert 0 < written < 1000 and len(entries) == written + 1, (written, len(entries))
assert int(entries["last"].value) == written - 1
print("refused after", written)
"""
    done = subprocess.run([unshare, "-rm", sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "refused after" in done.stdout


def test_a_wait_without_descriptors_is_unavailable_and_the_next_one_works(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(EmbeddedStore(path)) as store:
        since = store.commit([Put("a/1", b"")])
        with open(os.devnull) as lowest_free:
            free = lowest_free.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(Unavailable, match="Too many open files"):
                store.wait("a/", since, 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.wait, "a/", since, 60)
            store.commit([Put("a/1", b"x")])
            assert waiting.result() == since + 1


def test_without_inotify_it_polls(path: Path) -> None:
    unshare = shutil.which("unshare")
    forbid = "open('/proc/sys/user/max_inotify_instances', 'w').write('0')"
    if not unshare or subprocess.run([unshare, "-Ur", sys.executable, "-c", forbid], capture_output=True).returncode:
        pytest.skip("inotify can't be forbidden here")
    script = f"""
from pathlib import Path
from sked_core.runtime.stores.embedded import EmbeddedStore
{forbid}
store = EmbeddedStore(Path({str(path)!r}))
since = store.read("a/").revision
print("ready", flush=True)
print(store.wait("a/", since, 60) - since)
"""
    command = [unshare, "-Ur", sys.executable, "-c", script]
    with (
        closing(EmbeddedStore(path)) as store,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child,
    ):
        store.commit([Put("b/1", b"")])
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        store.commit([Put("a/1", b"")])
        said, complaint = child.communicate(timeout=60)
        assert (said, child.returncode) == ("1\n", 0), complaint


def test_a_lease_ends_with_the_boot(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        store.commit([Put("earlier", b"", store.grant(60)), Put("later", b"", store.grant(60))])
        store.commit([Put("now", b"", store.grant(60))])
        first, second, _ = (row[0] for row in _sql(path, "SELECT id FROM leases ORDER BY rowid"))
        _sql(path, "UPDATE leases SET boot = 'another boot' WHERE id = ?", first)
        # What an earlier boot leaves where boots have no names: more time to go than was ever granted.
        _sql(path, "UPDATE leases SET expires = expires + 3600000000000 WHERE id = ?", second)
        assert set(store.read("").entries) == {"now"}


def test_changes_by_other_tools_are_seen(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        first = store.commit([Put("state/1", b"1")])
        seen = [store.read("state/").revision]
        for statement in (
            "INSERT INTO entries (key, value) VALUES ('state/2', '{\"a\": \"é\"}')",
            "UPDATE entries SET value = x'00ff' WHERE key = 'state/1'",
            "INSERT OR REPLACE INTO entries (key, value) VALUES ('state/2', 'again')",
        ):
            _sql(path, statement)
            begun = time.monotonic()
            seen.append(store.wait("state/", seen[-1], 30))
            assert time.monotonic() - begun < 30
        assert seen == sorted(set(seen))
        entries = store.read("state/").entries
        assert {key: entry.value for key, entry in entries.items()} == {"state/1": b"\x00\xff", "state/2": b"again"}
        assert entries["state/2"].revision > entries["state/1"].revision > first
        _sql(path, "DELETE FROM entries")
        assert store.wait("state/", seen[-1], 30) > seen[-1]
        assert store.read("state/").entries == {}
        with pytest.raises(sqlite3.IntegrityError):
            _sql(path, "INSERT INTO entries (key, value) VALUES (x'00', '')")


def test_wait_sleeps_through_changes_elsewhere_at_no_cost(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store, closing(EmbeddedStore(path)) as other:
        since = store.commit([Put("a/1", b"")])
        with ThreadPoolExecutor(1) as pool:
            begun = time.monotonic()
            waiting = pool.submit(store.wait, "a/", since, 1.0)
            for number in range(20):
                other.commit([Put("b/1", b"%d" % number)])
            assert waiting.result() > since, "as far as they were made in that second"
        assert time.monotonic() - begun >= 1.0


def test_waiting_is_not_polling(path: Path) -> None:
    """In a process of its own, which counts what all its threads cost: here, those of other tests work as well."""
    program = f"""
import pathlib, time
from sked_core.interfaces.store import Put
from sked_core.runtime.stores.embedded import EmbeddedStore
store = EmbeddedStore(pathlib.Path({str(path)!r}))
since, cpu = store.commit([Put("a/1", b"")]), time.process_time()
assert store.wait("a/", since, 3.0) == since
print(time.process_time() - cpu)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert float(done.stdout) < 0.3


def test_a_wait_from_long_ago_wakes_and_the_change_log_stays_small(path: Path) -> None:
    with closing(EmbeddedStore(path)) as store:
        since = store.commit([Put("a/1", b"")])
        for _ in range(30):
            store.commit([Put(f"b/{number}", b"") for number in range(50)])
            store.commit([Delete(f"b/{number}") for number in range(50)])
        begun = time.monotonic()
        assert store.wait("a/", since, 60) == store.read("").revision
        assert time.monotonic() - begun < 30
        assert _sql(path, "SELECT count(*) FROM changes")[0][0] <= 1000


def test_nothing_is_left_open(path: Path) -> None:
    def life() -> None:
        with closing(EmbeddedStore(path)) as store:
            since = store.commit([Put("a/1", b"")])
            store.wait("a/", since, 0.01)
            store.wait("a/", store.commit([Put("a/1", b"")]), 0.01)

    life()
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        life()
    # One left by each life would be five more; those of other tests in this process come and go.
    assert len(os.listdir("/proc/self/fd")) < descriptors + 5
    assert threading.active_count() < threads + 5


def test_urls(tmp_path: Path) -> None:
    path = tmp_path / "with space.db"
    store: Store = embedded_store(f"sqlite://{path}".replace(" ", "%20"))
    store.commit([Put("a", b"")])
    store.close()
    assert path.exists()
    for url in (
        "sqlite:state.db",
        "sqlite://state.db",
        "sqlite:///",
        "sqlite:///a/",
        "sqlite:///a?mode=ro",
        "file:///a",
    ):
        with pytest.raises(InvalidValue) as caught:
            embedded_store(url)
        assert "sqlite:///var/lib/sked/sked.db" in caught.value.hint


def _sql(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """What another tool does to the file."""
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(statement, values).fetchall()
