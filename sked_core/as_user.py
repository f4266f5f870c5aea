"""Running a command on this host with the rights of a user: what tasks, setup commands and checks have in common.

The agent has many threads, so no Python of it may run between fork and exec: a lock that another thread held would
stay held there (the reason why subprocess warns of ``preexec_fn``). Users, groups, the umask, the session and the
descriptors are what subprocess sets in C; what is left is kept by the kernel per thread and inherited by what that
thread forks: no_new_privs (prctl(2)) and the control group of version 1. So each start has a thread of its own, which
ends with it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from subprocess import Popen

_PR_SET_NO_NEW_PRIVS = 38
"""Of linux/prctl.h."""
SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
UMASK = 0o077
_PLACE = ("LANG", "LC_ALL", "TZ")
_OWN = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this host, with all groups that it is in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    def environment(self) -> dict[str, str]:
        """What a login would set."""
        root = "/usr/local/sbin:/usr/sbin:/sbin:" if self.uid == 0 else ""
        return {
            "PATH": root + SEARCH_PATH,
            "HOME": self.home,
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": self.shell or "/bin/sh",
        }

    def closed(self, folder: Path) -> list[str]:
        """The folders above and at ``folder`` that this user may not search, from the top. Goes by their modes alone,
        as for a user who is not root."""
        closed = []
        for one in (*reversed(folder.parents), folder):
            about = one.stat()
            shift = 6 if about.st_uid == self.uid else 3 if about.st_gid in (self.gid, *self.groups) else 0
            if self.uid and not about.st_mode >> shift & 1:
                closed.append(str(one))
        return closed


def account(name: str) -> Account:
    """The user of that name. Raises LookupError, with a message for people, where this host has none."""
    import pwd

    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise LookupError(
            f"there is no user {name} on this host: make it, or name another in the host's policy"
        ) from None
    groups = tuple(sorted(os.getgrouplist(found.pw_name, found.pw_gid)))
    return Account(found.pw_name, found.pw_uid, found.pw_gid, groups, found.pw_dir, found.pw_shell)


def own_account() -> Account:
    """Who this process runs as; one that has no name is called by its number."""
    import pwd

    uid = os.geteuid()
    try:
        return account(pwd.getpwuid(uid).pw_name)
    except LookupError:
        return Account(str(uid), uid, os.getegid(), tuple(os.getgroups()), "/", "/bin/sh")


def chosen(user: str, *, root: bool) -> Account:
    """Whose rights commands get that a policy gives to ``user`` (``""``: the agent's own); root's only with ``root``.
    Raises PermissionError, with a message for people."""
    own = own_account()
    try:
        who = account(user) if user else own
    except LookupError as error:
        raise PermissionError(str(error)) from None
    if who.uid == 0 and not root:
        raise PermissionError("no user is named for it but root")
    if own.uid not in (0, who.uid):
        raise PermissionError(f"the agent runs as {own.name}: only root can run commands as {who.name}")
    return who


def clean_environment(who: Account) -> dict[str, str]:
    """What commands that run as ``who`` get beside their own variables: what a login would set, and of the agent's
    environment what can be no secret. Where they run as the agent itself, its search path as well."""
    of_agent = _PLACE if who.uid != os.geteuid() else (*_PLACE, *_OWN)
    return who.environment() | {name: os.environ[name] for name in of_agent if name in os.environ}


def spawn(
    command: Sequence[str],
    who: Account,
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: int | IO[bytes],
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    pass_fds: Sequence[int] = (),
    new_privileges: bool = False,
    before: Callable[[], None] | None = None,
    entry: int = -1,
) -> Popen[bytes]:
    """Start ``command`` as ``who``, the leader of a session of its own, with ``env`` and no other variable, umask 077,
    and no descriptors but the standard ones and ``pass_fds``. Returns once it is executed.

    Only root can start it as somebody else. ``new_privileges``: it may gain rights by what it executes (sudo, file
    capabilities). ``before`` is called by the thread that will fork; ``entry`` is the descriptor of a ``cgroup.procs``
    that the child writes itself into. Raises OSError as subprocess does; nothing runs then.
    """
    import subprocess
    from threading import Thread

    switch = os.geteuid() == 0 and who.uid != 0
    if not switch and who.uid != os.geteuid():
        raise PermissionError(f"the agent runs as user {os.geteuid()}, and only root can run commands as {who.name}")
    begun: list[Popen[bytes]] = []
    failed: list[BaseException] = []

    def enter() -> None:
        # Two calls of C with what was there before: nothing here takes a lock, allocates much or looks up a name.
        write(entry, b"0")

    write = os.write

    def run() -> None:
        try:
            if before is not None:
                before()
            if not new_privileges:
                _give_up_new_privileges()
            begun.append(
                subprocess.Popen(
                    command,
                    env=dict(env),
                    cwd=cwd,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=tuple(pass_fds),
                    start_new_session=True,
                    umask=UMASK,
                    user=who.uid if switch else None,
                    group=who.gid if switch else None,
                    extra_groups=who.groups if switch else None,
                    # The group of a process can't be had by its thread with version 2.
                    preexec_fn=enter if entry >= 0 else None,
                )
            )
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            failed.append(error)

    thread = Thread(target=run, name="sked-spawn", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # what Python makes of the kernel's EAGAIN
        raise OSError(errno.EAGAIN, str(error)) from None
    thread.join()
    if failed:
        if isinstance(failed[0], subprocess.SubprocessError):
            raise OSError(f"it could not be put into its control group: {failed[0]}")
        raise failed[0]
    return begun[0]


def _give_up_new_privileges() -> None:
    """For the thread that calls and all that it forks, for good."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs can't be set")
