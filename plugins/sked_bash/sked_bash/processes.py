"""What runs on this host: snapshots of /proc, the processes of a container, and signals that can't hit a stranger.

A process is known by (pid, start time), and is signalled through a pidfd that was opened before the start time was
compared: a pid that went to another process meanwhile is never hit. Start times are field 22 of /proc/<pid>/stat, in
clock ticks since the boot (proc(5)).
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from sked_bash.spec import MARK

_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD of linux/sched.h, in field 9 (flags) of /proc/<pid>/stat."""

_EXEC_PAUSES = (0.001, 0.002, 0.004)


class Identity(NamedTuple):
    """One process of this boot, for good: a pid is used again, but not with the same start time."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Process:
    """One row of a snapshot. ``alive`` is false for a zombie; ``mark`` is empty where it can't be read. ``user``: of
    one that bears a mark, else -1."""

    identity: Identity
    parent: int
    group: int
    session: int
    alive: bool
    mark: str
    user: int = -1


class Snapshot:
    """All processes at one moment (more precisely: read one by one, so a fork may be missed; look twice)."""

    def __init__(self, processes: Mapping[int, Process]) -> None:
        self.processes = processes
        self.marked: dict[str, list[Process]] = {}
        for process in processes.values():
            if process.mark:
                self.marked.setdefault(owner_of(process.mark), []).append(process)

    def members(self, owner: str, roots: Iterable[Identity] = (), user: int = -1) -> list[Process]:
        """The processes that belong to ``owner``: those that bear its mark and the ``roots``, with all that descend
        from one of them or are in a session or group that one of them leads. Zombies are left out, and so are this
        process and pid 1, whatever they bear.

        ``user``: whom it runs as; the mark of anybody else counts for nothing then, unless it is root (as whom
        anything can become anybody) or not known (-1)."""
        marked = self.marked.get(owner, ())
        found = {process.identity.pid for process in marked if user <= 0 or process.user == user}
        found.update(root.pid for root in roots if self.has(root))
        grown = bool(found)
        while grown:
            more = {
                pid
                for pid, process in self.processes.items()
                if pid not in found and not found.isdisjoint((process.parent, process.session, process.group))
            }
            found |= more
            grown = bool(more)
        return [self.processes[pid] for pid in found - {1, os.getpid()} if self.processes[pid].alive]

    def has(self, identity: Identity) -> bool:
        """Whether that very process is there, be it as a zombie."""
        process = self.processes.get(identity.pid)
        return process is not None and process.identity == identity


class ProcessTable:
    """Takes snapshots, and lets all threads that wait for one share the next: many stops at once cost few scans.

    A mark, once seen, stays with its process, even if the process overwrites its environment (setproctitle) later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = float("-inf")
        self._latest = Snapshot({})
        self._marks: dict[Identity, tuple[str, int]] = {}
        self._bare: set[Identity] = set()

    def snapshot(self) -> Snapshot:
        """A snapshot that was begun after this call. Takes about 50 µs per process of the host."""
        asked = time.monotonic()
        with self._lock:
            if self._begun <= asked:
                self._begun = time.monotonic()
                self._latest = Snapshot(self._read())
            return self._latest

    def _read(self) -> dict[int, Process]:
        processes = {}
        for pid in _pids():
            if process := self._process(pid):
                processes[pid] = process
        self._marks = {process.identity: (process.mark, process.user) for process in processes.values() if process.mark}
        self._bare = {process.identity for process in processes.values() if process.identity in self._bare}
        return processes

    def _process(self, pid: int) -> Process | None:
        fields = _stat(pid)
        if not fields or int(fields[6]) & _KERNEL_THREAD:
            return None
        identity = Identity(pid, int(fields[19]))
        # The first thread of a process may have ended before the others: state Z, but the process lives.
        alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1
        mark, user = self._marks.get(identity) or (self._mark(identity) if alive else ("", -1))
        return Process(
            identity=identity,
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
            alive=alive,
            mark=mark,
            user=user,
        )

    def _mark(self, identity: Identity) -> tuple[str, int]:
        environment = _environment(identity.pid)
        if environment == b"" and identity not in self._bare:
            # Within execve a process has no environment for a moment, a long one on a busy machine.
            for pause in _EXEC_PAUSES:
                time.sleep(pause)
                environment = _environment(identity.pid)
                if environment:
                    break
            else:
                self._bare.add(identity)
        _, found, rest = (b"\0" + environment).partition(f"\0{MARK}=".encode())
        return (rest.partition(b"\0")[0].decode("ascii", "replace"), _user(identity.pid)) if found else ("", -1)


class Looks:
    """Two snapshots, one after the other, each taken when it is first asked for, to be shared by many that ended at
    about the same time. What neither shows is not there: one snapshot alone can miss a process that forks."""

    def __init__(self, table: ProcessTable) -> None:
        self._table = table

    @cached_property
    def first(self) -> Snapshot:
        return self._table.snapshot()

    @cached_property
    def second(self) -> Snapshot:
        _ = self.first
        return self._table.snapshot()


def owner_of(mark: str) -> str:
    """The part of a mark that names the container, without the instance."""
    return "/".join(mark.split("/", 3)[:3])


def boot_id() -> str:
    """A random name of this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    """The process that has ``pid`` now (also as a zombie), if any."""
    fields = _stat(pid)
    return Identity(pid, int(fields[19])) if fields else None


def open_pidfd(identity: Identity) -> int | None:
    """A pidfd of exactly this process, for the caller to close; None if it is gone. It may be a zombie."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if identify(identity.pid) == identity:
        return fd
    os.close(fd)
    return None


def has_ended(pidfd: int) -> bool:
    """Whether the process behind ``pidfd`` has exited (a pidfd becomes readable then, pidfd_open(2))."""
    return bool(readable([pidfd], 0))


def readable(fds: Sequence[int], timeout: float) -> set[int]:
    """Those of ``fds`` that are readable (or invalid) within ``timeout`` seconds; returns with the first one."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return {fd for fd, _ in poller.poll(max(0, timeout) * 1000)}


def send(identity: Identity, number: signal.Signals) -> None:
    """Signal exactly this process; nothing happens if it is gone. Raises PermissionError if it may not be signalled."""
    fd = open_pidfd(identity)
    if fd is None:
        return
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def wait_ended(identities: Iterable[Identity], timeout: float) -> bool:
    """Whether all of these have ended within ``timeout`` seconds; returns once they have."""
    deadline = time.monotonic() + timeout
    fds = [fd for identity in identities if (fd := open_pidfd(identity)) is not None]
    left = list(fds)
    try:
        while left:
            ended = readable(left, deadline - time.monotonic())
            if not ended:
                return False
            left = [fd for fd in left if fd not in ended]
        return True
    finally:
        for fd in fds:
            os.close(fd)


def holders_of(path: Path, user: int = -1) -> list[Identity]:
    """The processes, other than this one, that have the file at ``path`` open. Slow: looks at every descriptor.

    ``user``: whom they run as, unless it is root or not known (-1): a descriptor can be handed to any process that
    takes one, such as a service of root, and whoever has it thereby is nobody's to end."""
    name = str(path.resolve())
    found = []
    for pid in _pids():
        if pid != os.getpid() and name in _open_files(pid) and (user <= 0 or _user(pid) == user):
            identity = identify(pid)
            if identity is not None:
                found.append(identity)
    return found


def _open_files(pid: int) -> set[str]:
    names = set()
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:  # ended meanwhile, or not ours to see
        for entry in entries:
            names.add(str(Path(entry.path).readlink()))
    return names


def _pids() -> list[int]:
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/<pid>/stat from the third (state) on; empty if there is no such process."""
    try:
        with FileIO(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _user(pid: int) -> int:
    """The real user of a process, from its status; -1 if it has ended."""
    try:
        with FileIO(f"/proc/{pid}/status") as file:
            return int(file.readall().partition(b"\nUid:")[2].split(None, 1)[0])
    except (OSError, IndexError, ValueError):
        return -1


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it can't be read."""
    entries = _environment(pid).decode("utf-8", "surrogateescape").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _environment(pid: int) -> bytes:
    try:
        with FileIO(f"/proc/{pid}/environ") as file:
            return file.readall()
    except OSError:
        return b"?"  # ended meanwhile, or another user's: not ours
