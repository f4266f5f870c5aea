"""Control groups of tasks: what limits their memory, cpu and number of processes, and holds each one together.

Both versions are spoken (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1 of the kernel). Each container has one
group, with version 1 one for each controller; its processes are in the child ``main``, commands that are run beside it
in ``beside``. A group is known by its folders, which the container's record names: the next agent ends what is in it,
wherever it would make new ones itself.

Root makes them below ``sked`` at the top of the hierarchy, not below its own group: there, systemd could not start the
agent again, since with version 2 a group that limits its children holds no processes itself. Somebody else needs a
group that was delegated: a unit with ``Delegate=yes`` and ``DelegateSubgroup=``.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sked_core.plugin import SystemClock

CONTROLLERS = ("memory", "pids", "cpu")
MAIN, BESIDE = "main", "beside"
TOP = "sked"
PERIOD = 100_000
"""Microseconds over which a share of the cpu is measured; the kernel's own default."""
MINE_STALE_SECONDS, STALE_SECONDS = 60.0, 600.0
"""How old an empty group of an unknown container has to be: one that is made is used within moments."""
_MB = 1024 * 1024
_NAME = re.compile(r"[0-9a-f]+-[0-9a-f]+\Z")
_log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """MB of memory, cpu units (1024: one core) and processes; 0: no limit."""

    memory: int = 0
    cpu_units: int = 0
    pids: int = 0


@dataclass(frozen=True, slots=True)
class Groups:
    """Where groups can be made on this host: one ``base`` per controller with version 1, one in all with version 2,
    none where they can't. ``lacks``: what can't be limited, and why; empty if all can."""

    bases: tuple[Path, ...] = ()
    controllers: frozenset[str] = frozenset()
    lacks: str = ""

    def create(self, name: str, limits: Limits) -> list[str]:
        """The folders of a new group. Raises OSError; nothing is left then."""
        made: list[str] = []
        try:
            for base in self.bases:
                folder = base / name
                folder.mkdir(parents=True)
                made.append(str(folder))
                _limit(folder, limits)
                for part in (MAIN, BESIDE):
                    (folder / part).mkdir()
        except OSError:
            remove(made)
            raise
        return made

    def sweep(self, mine: str, known: set[str]) -> None:
        """Remove the empty groups that dead agents left, once they are old: a young one may be about to be used. Those
        whose names begin with ``mine``, and are not ``known``, are it sooner."""
        now = SystemClock().wall()
        for base in self.bases:
            with suppress(OSError):
                for folder in base.iterdir():
                    if folder.is_dir() and str(folder) not in known and _NAME.match(folder.name):
                        age = now - folder.stat().st_mtime
                        if age > (MINE_STALE_SECONDS if folder.name.startswith(mine) else STALE_SECONDS):
                            _remove(folder)


def find(mountinfo: str, own: str, *, root: bool) -> Groups:
    """What can be used here. ``mountinfo`` and ``own``: /proc/self/mountinfo and /proc/self/cgroup (proc(5))."""
    mounts = list(_mounts(mountinfo))
    second = next((mount for mount, kind, _ in mounts if kind == "cgroup2"), None)
    newer = _second(second, own, root=root) if second else Groups()
    if newer.controllers:
        return newer
    older = _first([(mount, options) for mount, kind, options in mounts if kind == "cgroup"], own, root=root)
    if older.bases:
        return older
    newer = _second(second, own, root=root, bare=True) if second else Groups()
    return newer if newer.bases else Groups(lacks=newer.lacks or _why(mounts, root=root))


def here() -> Groups:
    """What can be used on this host by this process."""
    try:
        mountinfo, own = Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    except OSError as error:
        return Groups(lacks=f"/proc can't be read: {error.strerror}")
    return find(mountinfo, own, root=os.geteuid() == 0)


# --- one group ---------------------------------------------------------------------------------------------------


def pids(folders: Sequence[str], *parts: str) -> set[int]:
    """The processes in these ``parts`` of a group, of all where none is named."""
    found: set[int] = set()
    for folder in folders:
        for part in parts or ("", MAIN, BESIDE):
            with suppress(OSError):
                found.update(map(int, (Path(folder) / part / "cgroup.procs").read_text().split()))
    return found - {0}  # 0: in another namespace


def join_by_thread(folders: Sequence[str], part: str) -> None:
    """Put the thread that calls into a group of version 1: what it forks is in it from the beginning."""
    for folder in folders:
        (Path(folder) / part / "tasks").write_text("0")


def entry(folders: Sequence[str], part: str) -> int:
    """With version 2, a descriptor for a process to put itself into the group, for the caller to close; else -1."""
    if not folders or not is_second(folders[0]):
        return -1
    return os.open(Path(folders[0]) / part / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)


def is_second(folder: str) -> bool:
    """Whether it is a group of version 2."""
    return (Path(folder) / "cgroup.controllers").exists()


def stop_forks(folders: Sequence[str]) -> None:
    """Let no process of the group make another one, so that killing them comes to an end."""
    for folder in folders:
        with suppress(OSError):
            (Path(folder) / "pids.max").write_text("0")


def kill(folders: Sequence[str]) -> None:
    """Kill all that is in the group, at once where the kernel can (version 2, Linux 5.14)."""
    stop_forks(folders)
    for folder in folders:
        with suppress(OSError):
            (Path(folder) / "cgroup.kill").write_text("1")
            return
    for pid in pids(folders):
        with suppress(OSError):
            fd = os.pidfd_open(pid)
            try:
                if pid in pids(folders):  # now that it can't be another one
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)


def out_of_memory(folders: Sequence[str]) -> bool:
    """Whether the kernel has ended a process of the group because it took more memory than the group may."""
    for folder in folders:
        for name in ("memory.events", f"{MAIN}/memory.events", "memory.oom_control", f"{MAIN}/memory.oom_control"):
            with suppress(OSError, ValueError):
                for line in (Path(folder) / name).read_text().splitlines():
                    word, _, count = line.partition(" ")
                    if word == "oom_kill" and int(count):
                        return True
    return False


def remove(folders: Sequence[str]) -> None:
    """Remove an empty group; one that is not stays."""
    for folder in folders:
        _remove(Path(folder))


def _remove(folder: Path) -> None:
    for part in (folder / MAIN, folder / BESIDE, folder):
        for pause in (0.005, 0.02, 0.1, 0.0):  # a process that has ended leaves its group a moment later
            try:
                part.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                if pids([str(part)], ""):
                    return
                time.sleep(pause)
            else:
                break


def _limit(folder: Path, limits: Limits) -> None:
    """Set what the group's controllers can set; each is there or not."""
    quota = max(1000, limits.cpu_units * PERIOD // 1024)  # less than 1 ms is refused
    wanted = [
        ("memory.limit_in_bytes", limits.memory and str(limits.memory * _MB)),
        ("memory.memsw.limit_in_bytes", limits.memory and str(limits.memory * _MB)),  # after the one without swap
        ("memory.max", limits.memory and str(limits.memory * _MB)),
        ("memory.swap.max", limits.memory and "0"),
        ("pids.max", limits.pids and str(limits.pids)),
        ("cpu.cfs_quota_us", limits.cpu_units and str(quota)),
        ("cpu.max", limits.cpu_units and f"{quota} {PERIOD}"),
    ]
    for name, value in wanted:
        if value and (folder / name).exists():
            (folder / name).write_text(value)


# --- where they can be made --------------------------------------------------------------------------------------


def _mounts(mountinfo: str) -> Iterator[tuple[tuple[Path, str], str, list[str]]]:
    """Of each hierarchy where it is mounted and which of its groups that shows, its kind and its options."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, told = before.split(), after.split()
        if len(fields) >= 5 and len(told) >= 3 and told[0] in ("cgroup", "cgroup2"):
            yield (Path(fields[4].replace("\\040", " ")), fields[3]), told[0], told[2].split(",")


def _own(mount: tuple[Path, str], own: str, controller: str) -> Path | None:
    """The group that this process is in. ``controller``: ``""`` for version 2."""
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            shown = mount[1].rstrip("/")
            if path == mount[1] or path.startswith(shown + "/"):
                return mount[0] / path[len(shown) :].lstrip("/")
    return None


def _second(mount: tuple[Path, str], own: str, *, root: bool, bare: bool = False) -> Groups:
    """``bare``: also where nothing can be limited; what belongs to a container is held together all the same."""
    if root:
        top = mount[0]
    else:
        mine = _own(mount, own, "")
        if mine is None or not os.access(mine.parent / "cgroup.subtree_control", os.W_OK):
            return Groups()
        top = mine.parent
    base = top / TOP
    try:
        there = set((top / "cgroup.controllers").read_text().split())
        if not bare and not {"memory", "pids"} <= there:
            return Groups()
        base.mkdir(exist_ok=True)
        usable = frozenset(one for one in CONTROLLERS if one in there and _enable(top, one) and _enable(base, one))
        _try(base)
    except OSError as error:
        return Groups(lacks=f"no group can be made in {base}: {error.strerror}")
    return Groups((base,), usable, _lacking(usable))


def _first(mounts: list[tuple[tuple[Path, str], list[str]]], own: str, *, root: bool) -> Groups:
    bases: dict[Path, None] = {}
    usable = set()
    for controller in CONTROLLERS:
        mount = next((mount for mount, options in mounts if controller in options), None)
        top = (mount[0] if root else _own(mount, own, controller)) if mount else None
        if top is None:
            continue
        try:
            (top / TOP).mkdir(exist_ok=True)
            _try(top / TOP)
        except OSError as error:
            _log.debug("no control groups for %s: %s", controller, error)
            continue
        bases[top / TOP] = None
        usable.add(controller)
    return Groups(tuple(bases), frozenset(usable), _lacking(usable))


def _enable(folder: Path, controller: str) -> bool:
    control = folder / "cgroup.subtree_control"
    if controller in control.read_text().split():
        return True
    try:
        control.write_text(f"+{controller}")
    except OSError:  # it holds processes itself
        return False
    return True


def _try(base: Path) -> None:
    trial = base / f"trial-{os.getpid()}-{time.monotonic_ns()}"
    trial.mkdir()
    trial.rmdir()


def _lacking(usable: set[str] | frozenset[str]) -> str:
    missing = [one for one in CONTROLLERS if one not in usable]
    return f"no controller for {', '.join(missing)} can be used" if missing else ""


def _why(mounts: list[tuple[tuple[Path, str], str, list[str]]], *, root: bool) -> str:
    if not mounts:
        return "no hierarchy of control groups is mounted"
    if root:
        return "no group can be made in any hierarchy: they are mounted read-only, or belong to somebody else"
    return "none is delegated to the agent, which is not root (a unit needs Delegate=yes and DelegateSubgroup=agent)"
