"""Commands with the rights of a user: what of the agent's own is left to them is asked of real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sked_core.as_user import Account, account, own_account, spawn

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands as somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user may search: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="sked-as-user-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def said(command: str, who: Account, folder: Path, **options: Any) -> str:
    process = spawn(
        ["bash", "-c", command],
        who,
        env=options.pop("env", {"PATH": os.environ["PATH"]}),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )
    output, _ = process.communicate(timeout=60)
    return output.decode()


STATUS = "grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff|CapPrm):' /proc/self/status; umask; ls /proc/$$/fd | tr '\\n' ' '"


@needs_root
def test_nothing_of_root_is_left_to_it(folder: Path) -> None:
    left_open = os.open(os.devnull, os.O_RDONLY)
    for fd in (left_open, os.dup2(left_open, 77)):
        os.set_inheritable(fd, True)
    try:
        lines = said(STATUS, account("nobody"), folder).splitlines()
    finally:
        os.close(left_open)
        os.close(77)
    who = account("nobody")
    assert lines[0].split()[1:] == [str(who.uid)] * 4
    assert lines[1].split()[1:] == [str(who.gid)] * 4
    assert sorted(lines[2].split()[1:]) == sorted(str(group) for group in who.groups)
    assert [line.split()[1] for line in lines[3:6]] == ["0" * 16, "0" * 16, "1"]
    assert lines[6] == "0077"
    assert set(lines[7].split()) <= {"0", "1", "2", "3", "255"}, "the last two are bash's own"


@needs_root
@pytest.mark.parametrize("who", ["nobody", "root"])
def test_what_it_executes_gives_it_no_rights(folder: Path, who: str) -> None:
    """A program of root with the setuid bit, in a place that honours it."""
    program = folder / "id"
    shutil.copy(shutil.which("id") or "/usr/bin/id", program)
    program.chmod(0o4755)
    nobody = account("nobody")
    assert said(f"{program} -u", nobody, folder).strip() == str(nobody.uid)
    if (os.statvfs(folder).f_flag & os.ST_NOSUID) == 0:
        assert said(f"{program} -u", nobody, folder, new_privileges=True).strip() == "0", "else the test shows nothing"
    assert said(f"{program} -u", account(who), folder).strip() == str(account(who).uid)


def test_the_agent_itself_keeps_what_it_had(folder: Path) -> None:
    said("true", own_account(), folder)
    assert said("grep NoNewPrivs /proc/self/status", own_account(), folder, new_privileges=True).split()[1] == "0"
    with open("/proc/self/status") as status:
        assert "NoNewPrivs:\t0" in status.read()


def test_its_environment_is_what_is_given_and_a_session_of_its_own(folder: Path) -> None:
    who = own_account()
    lines = said("env; ps -o sid= -p $$; echo $$", who, folder, env=who.environment() | {"A": "b"}).splitlines()
    assert {"A=b", f"HOME={who.home}", f"USER={who.name}", f"LOGNAME={who.name}"} <= set(lines)
    assert {line.partition("=")[0] for line in lines if "=" in line} <= {*who.environment(), "A", "PWD", "SHLVL", "_"}
    assert lines[-2].strip() == lines[-1]


def test_a_command_that_is_not_there_raises_and_leaves_no_process(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["/no/such"], own_account(), env={}, cwd=folder, stdin=-3, stdout=-3, stderr=-3)
    with pytest.raises(OSError, match="not now"):
        spawn(["true"], own_account(), env={}, cwd=folder, stdin=-3, stdout=-3, stderr=-3, before=_fails)
    assert "sked-spawn" not in [thread.name for thread in threading.enumerate()]


def _fails() -> None:
    raise OSError("not now")


@needs_root
def test_only_root_can_be_somebody_else(folder: Path) -> None:
    code = (
        "import os, pathlib, pwd, subprocess, threading; from sked_core.as_user import account, spawn\n"
        "os.setgroups([]); os.setuid(65534)\n"
        "spawn(['true'], account('daemon'), env={}, cwd=pathlib.Path('/'), stdin=-3, stdout=-3, stderr=-3)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "only root can run commands as daemon" in ran.stderr


@needs_root
def test_folders_that_it_may_not_pass_are_named(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    who = account("nobody")
    assert who.closed(folder / "a" / "b") == []
    (folder / "a").chmod(0o700)
    assert who.closed(folder / "a" / "b") == [str(folder / "a")]
    os.chown(folder / "a", who.uid, who.gid)
    assert who.closed(folder / "a" / "b") == []
    (folder / "a" / "b").chmod(0o700)
    (folder / "a").chmod(0o700)
    os.chown(folder / "a", 0, 0)
    assert who.closed(folder / "a" / "b") == [str(folder / "a"), str(folder / "a" / "b")], "all at once"
    (folder / "a" / "b").chmod(0o755)
    os.chown(folder / "a", who.uid, who.gid)
    (folder / "a").chmod(0o070)
    assert who.closed(folder / "a" / "b") == [str(folder / "a")], "its own rights count, whatever its group's are"


def test_a_user_who_is_not_there_is_named() -> None:
    for name in ("no-such-user", "a\0b", ""):
        with pytest.raises(LookupError, match=r"there is no user .*: make it, or name another"):
            account(name)
    with contextlib.suppress(LookupError):
        assert account("root").uid == 0
