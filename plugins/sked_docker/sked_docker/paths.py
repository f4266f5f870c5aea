"""Paths of the host that containers get: where one really leads, and holding just that until the container has it.

A path is looked up twice, by whoever judges it and by the engine, and in between anybody who may write to a folder on
the way can put a link in its place. So the file or folder that was judged is kept open, and mounted once more at a
place that only root reaches; the engine is given that place. (It can't be given ``/proc/PID/fd/N``: runc mounts from
within the container's own mount namespace, where the kernel refuses what was opened in another.) The container's mount
is a copy and stays when the place is gone, a moment after the start.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sked_core.plugin import ExecutorError, Rejected
from sked_docker.policy import volume_entry
from sked_docker.values import PROPAGATIONS

T = TypeVar("T")
GUARDED = (
    *("/proc", "/sys", "/dev", "/etc", "/boot"),
    *("/run/docker.sock", "/var/run/docker.sock", "/run/containerd", "/var/lib/docker", "/var/lib/containerd"),
)
"""What is opened by its own name only: with any of it, a container has the host."""
MOST_LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""
_OPEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_FOR_US = (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS)
# Of <sys/mount.h>; the numbers are part of the kernel's interface.
_BIND, _RECURSIVE, _SLAVE, _DETACH, _NOSUID, _NODEV, _NOEXEC = 0x1000, 0x4000, 0x80000, 2, 2, 4, 8
_SET_ATTRIBUTES, _HERE, _AND_BELOW, _READ_ONLY = 442, -100, 0x8000, 1  # mount_setattr(2), AT_FDCWD, AT_RECURSIVE


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a path leads: ``path`` has no links in it. ``lack``: why there is nothing. ``special``: it is neither a
    file nor a folder. ``settled``: only root and the agent's own user can put something else there."""

    path: str
    lack: str = ""
    special: bool = False
    settled: bool = False


class Run(Protocol):
    """Calls a function where its view of the host's files is the right one; gives back what it gives, raises what it
    raises."""

    def __call__(self, function: Callable[[], T], /) -> T: ...


def direct(function: Callable[[], T]) -> T:
    """In the caller's own view."""
    return function()


class CannotHold(Exception):
    """The engine can't be given what was judged, only its name."""


def within(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies below it, by whole names."""
    return path == folder or folder == "/" or path.startswith(f"{folder}/")


def guarded(state_dir: Path, sockets: Iterable[str]) -> tuple[str, ...]:
    """GUARDED, the agent's own files (``state_dir`` is this executor's part of them) and the engine's ``sockets``, as
    they are called and where that leads."""
    own = state_dir.parent.parent if state_dir.parent.name == "executors" else state_dir
    named = [*GUARDED, str(own.absolute()), *sockets]
    return tuple(dict.fromkeys([*named, *(str(Path(one).resolve()) for one in named)]))


def as_written(path: str) -> Resolved:
    """A path that nobody looks up."""
    return Resolved("/" + "/".join(step for step in path.split("/") if step not in ("", ".")))


def resolved(path: str) -> Resolved:
    """Where ``path`` leads now."""
    found, fd = walked(path)
    if fd >= 0:
        os.close(fd)
    return found


def walked(path: str) -> tuple[Resolved, int]:
    """Where ``path`` leads, and a descriptor (O_PATH) of what is there, to be closed; -1 for none.

    Every step is opened from the one before, links are read and walked by the same rule. What comes out was at that
    path at some moment, and is not a thing that was renamed to there or away meanwhile.
    """
    steps, links = deque(_steps(path)), 0
    names: list[str] = []
    held = [os.open("/", _OPEN | os.O_DIRECTORY)]
    facts = [os.fstat(held[0])]

    def up() -> None:
        names.pop()
        facts.pop()
        os.close(held.pop())

    try:
        while steps:
            step = steps.popleft()
            if step == "..":
                if names:
                    up()
                continue
            fd = os.open(step, _OPEN, dir_fd=held[-1])
            seen = os.fstat(fd)
            if not stat.S_ISLNK(seen.st_mode):
                names.append(step)
                facts.append(seen)
                held.append(fd)
                continue
            try:
                target = os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
            links += 1
            if links > MOST_LINKS:
                return replace(as_written(path), lack="goes round in links"), -1
            if target.startswith("/"):
                while names:
                    up()
            steps.extendleft(reversed(_steps(target)))
        real = "/" + "/".join(names)
        if str(Path(f"/proc/self/fd/{held[-1]}").readlink()) != real:
            return Resolved(real, lack="is being renamed"), -1
        kind = facts[-1].st_mode
        special = not (stat.S_ISDIR(kind) or stat.S_ISREG(kind))
        return Resolved(real, special=special, settled=_settled(facts)), held.pop()
    except (FileNotFoundError, NotADirectoryError):
        return replace(as_written(path), lack="does not exist"), -1
    except OSError as error:
        return replace(as_written(path), lack=f"can't be looked at ({error.strerror})"), -1
    finally:
        for fd in held:
            os.close(fd)


def _steps(path: str) -> list[str]:
    return [step for step in path.split("/") if step not in ("", ".")]


def _settled(facts: list[os.stat_result]) -> bool:
    """Whether nobody else can replace the last one: by renaming it, or a folder on the way."""
    trusted = (0, os.geteuid())
    for folder, below in pairwise(facts):
        shared = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if folder.st_uid not in trusted or (shared and not (folder.st_mode & stat.S_ISVTX and below.st_uid in trusted)):
            return False
    return True


class Hold:
    """The paths of one start, each kept as it was first looked up."""

    def __init__(self, place: Place, stack: ExitStack) -> None:
        self.place, self._stack = place, stack
        self._found: dict[str, tuple[Resolved, int]] = {}
        self._mounted: dict[tuple[str, bool], str] = {}

    def resolve(self, source: str) -> Resolved:
        """Where ``source`` led when it was first asked for."""
        if source not in self._found:
            found, fd = self.place.run(partial(walked, source))
            if fd >= 0:
                self._stack.callback(os.close, fd)
            self._found[source] = found, fd
        return self._found[source][0]

    @property
    def paths(self) -> list[str]:
        """All that was asked for."""
        return list(self._found)

    def given(self, body: Mapping[str, Any], *, mount: bool, volumes: list[str]) -> dict[str, Any]:
        """``body`` with what is held in place of the host's paths. Where ``mount`` is false the engine gets the paths
        themselves, of which nobody can have put another in the place: those that an entry of ``volumes`` names, not
        those below one. Raises Rejected for others, and for what is not there; CannotHold where nothing can be
        mounted."""
        host = body["HostConfig"]
        binds, mounts, shown = [], [], {}
        for text in host.get("Binds", ()):
            source, target, *rest = text.split(":")
            if not source.startswith("/"):
                binds.append(text)
                continue
            options = rest[0].split(",") if rest else []
            relabelled = bool({"z", "Z"} & set(options))
            read_only = "ro" in options
            where = self._where(source, mount=mount, volumes=volumes, read_only=read_only and not relabelled)
            shown[target] = source
            if relabelled:  # only this form of a mount can ask for it
                binds.append(":".join((where, target, *rest)))
            else:
                # This form is refused where there is nothing at the source; the other has a folder made there.
                spread = next((one for one in options if one in PROPAGATIONS), "")
                held = where != self.resolve(source).path
                mounts.append(_bind(where, target, read_only=read_only, spread=spread, held=held))
        for one in host.get("Mounts", ()):
            if one["Type"] == "bind":
                shown[one["Target"]] = one["Source"]
                source, read_only = one["Source"], bool(one.get("ReadOnly"))
                where = self._where(source, mount=mount, volumes=volumes, read_only=read_only)
                spread, held = one.get("BindOptions", {}).get("Propagation", ""), where != self.resolve(source).path
                one = _bind(where, one["Target"], read_only=read_only, spread=spread, held=held)
            mounts.append(one)
        if not shown:
            return dict(body)
        labels = {f"sked.path.{number}": f"{source}:{target}" for number, (target, source) in enumerate(shown.items())}
        return dict(body) | {
            "Labels": body["Labels"] | labels,
            "HostConfig": {**host, "Binds": binds, "Mounts": mounts},
        }

    def _where(self, source: str, *, mount: bool, volumes: list[str], read_only: bool) -> str:
        found = self.resolve(source)
        if found.lack:
            raise Rejected(f"host path {source} {found.lack}; the engine is not asked to make it")
        _, fd = self._found[source]
        if mount and not within(str(self.place.folder), found.path):
            key = source, read_only
            if key not in self._mounted:
                self._mounted[key] = self.place.mount(fd, self._stack, read_only=read_only)
            return self._mounted[key]
        entries = [volume_entry(entry) for entry in volumes]
        named = any(found.path == path for path, _ in entries)
        exposed = any(may_write and path != found.path and within(found.path, path) for path, may_write in entries)
        if found.path != "/" and (not named or exposed or not found.settled):
            raise Rejected(
                f"host path {found.path} can't be held: this agent can't mount it for the engine (that takes root, and "
                "the engine's own view of the mounts). Then only a path that the policy names itself, docker: "
                f"{{volumes: [{found.path}]}}, can be used, and none that others can replace"
            )
        return found.path


class Place:
    """A folder in which what is held is mounted: a file system in memory of its own, so that an engine that does not
    see it finds nothing there. It is there only while something is held. ``run``: what paths are looked up in."""

    def __init__(self, folder: Path, run: Run = direct) -> None:
        self.run = run
        self._lock, self._held, self._swept, self._number = threading.Lock(), 0, False, 0
        self._parent, self._word = folder, secrets.token_hex(4)

    @cached_property
    def folder(self) -> Path:
        """Looked up at its first use: an executor is also made just to validate specs."""
        return self._parent / f"{os.getpid()}.{_start_time(os.getpid())}.{self._word}"

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """Nothing is looked up yet; whatever gets held is let go at the end."""
        with ExitStack() as stack:
            yield Hold(self, stack)

    def mount(self, fd: int, stack: ExitStack, *, read_only: bool = False) -> str:
        """A path that leads to what ``fd`` is, until ``stack`` is closed. ``read_only``: with all that is mounted below
        it. Raises CannotHold, Rejected, ExecutorError."""
        try:
            self.run(self._enter)
            stack.callback(self.run, self._leave)
            with self._lock:
                self._number += 1
                path = self.folder / str(self._number)
            stack.callback(self.run, partial(_detach, path))
            self.run(partial(_mount_at, fd, path, read_only=read_only))
        except OSError as error:
            if error.errno in _NOT_FOR_US:
                raise CannotHold(str(error)) from error
            if error.errno == errno.ENOENT:  # the kernel mounts nothing that was removed
                raise Rejected("a path of the host was removed while it was looked at") from error
            raise ExecutorError(f"a path of the host can't be held for the container: {error}") from error
        return str(path)

    def _enter(self) -> None:
        with self._lock:
            if not self._swept:
                self._swept = True
                _sweep(self._parent)
            if not self._held:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                try:
                    _mount("sked", self.folder, "tmpfs", _NOSUID | _NODEV | _NOEXEC, b"mode=0700,size=1m")
                except OSError:
                    self._remove()
                    raise
            self._held += 1

    def _leave(self) -> None:
        with self._lock:
            self._held -= 1
            if not self._held:
                _detach(self.folder)
                self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self.folder.rmdir()
            self._parent.rmdir()


def _bind(source: str, target: str, *, read_only: bool, spread: str, held: bool) -> dict[str, Any]:
    """Read-only is without what is mounted below, unless that is held: engines before 25 would leave it writable."""
    options: dict[str, Any] = {"Propagation": spread} | ({"NonRecursive": True} if read_only and not held else {})
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only, "BindOptions": options}


def _mount_at(fd: int, path: Path, *, read_only: bool = False) -> None:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        path.mkdir(mode=0o700)
    else:
        path.touch(mode=0o600)
    _mount(f"/proc/self/fd/{fd}", path, "", _BIND | _RECURSIVE)
    # Or taking it away would take what is mounted below it away from the host as well.
    _mount("", path, "", _RECURSIVE | _SLAVE)
    if read_only and not _write_protected(path):
        _detach(path)
        _mount(f"/proc/self/fd/{fd}", path, "", _BIND)
        _mount("", path, "", _SLAVE)


def _write_protected(path: Path) -> bool:
    """Let nobody write to what is mounted at ``path`` and below it; false where the kernel can't (before 5.12)."""
    wanted = (ctypes.c_uint64 * 4)(_READ_ONLY)
    arguments = (_HERE, os.fsencode(path), _AND_BELOW, ctypes.byref(wanted), ctypes.c_size_t(ctypes.sizeof(wanted)))
    return bool(_libc().syscall(ctypes.c_long(_SET_ATTRIBUTES), *arguments) == 0)


def _sweep(parent: Path) -> None:
    """Take away what an agent that was killed in the middle of a start left."""
    for left in parent.iterdir() if parent.is_dir() else ():
        pid, _, rest = left.name.partition(".")
        if pid.isdigit() and _start_time(int(pid)) != rest.partition(".")[0]:
            _detach(left)
            with suppress(OSError):
                left.rmdir()


def _start_time(pid: int) -> str:
    """When the process began, which with its number tells it from all others until the next boot; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _detach(path: Path) -> None:
    """Take away what is mounted at ``path``. First it is cut off from what it is a copy of: else what is mounted below
    it would go there as well."""
    with suppress(OSError):
        _mount("", path, "", _RECURSIVE | _SLAVE)
        _libc().umount2(os.fsencode(path), _DETACH)


def _mount(source: str, target: Path, kind: str, flags: int, data: bytes = b"") -> None:
    if _libc().mount(source.encode() or None, os.fsencode(target), kind.encode() or None, flags, data or None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
