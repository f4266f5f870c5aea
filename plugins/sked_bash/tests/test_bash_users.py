"""Tasks as users of their own: what they can't reach, and that adoption, stops, logs and evidence work as before."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sked_bash.executor import BashExecutor
from sked_bash.rights import BashPolicy, denials
from sked_bash.spec import parse
from sked_core.plugin import Denial, ExecRequest, ExecutorError, Policed, Policy, Rejected, State
from sked_core.testing.executors import read, talk

Eventually = Callable[..., Any]
Alive = Callable[[int], bool]
NOBODY, DAEMON = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run tasks as somebody else")
pytestmark = pytest.mark.usefixtures("open_folder")  # made before the rigs, and so removed after them


def policy(**fields: Any) -> Policy:
    return Policy(executors=["bash"], sections={"bash": BashPolicy(**fields)})


@pytest.fixture
def rig(make_rig: Callable[..., Any], open_folder: Path) -> Any:
    """An agent that is root, whose tasks are nobody's."""
    return make_rig(open_folder, policy(run_as="nobody", users=["daemon"]))


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# --- the gates ---------------------------------------------------------------------------------------------------


def gates(spec: dict[str, Any], **fields: Any) -> list[str]:
    return [one.gate for one in denials(BashPolicy(**fields), parse({"start": "x", **spec}))]


@as_root
def test_what_is_not_said_is_denied_and_the_reason_says_what_to_add(make_rig: Any, open_folder: Path) -> None:
    """F11: no user is named, and the agent is root."""
    rig = make_rig(open_folder, Policy())
    with pytest.raises(Rejected) as refused:
        rig.start(start="touch canary")
    assert str(refused.value) == (
        "policy bash.run_as: the agent is root, and the policy names no user for tasks to run as; "
        "to allow it, add `bash: {run_as: sked-tasks}` to the host's policy and restart its agent"
    )
    assert not rig.folder.exists(), "nothing was made"
    assert [one.gate for one in rig.executor.denials(*rig.task(start="x"))] == ["bash.run_as"]
    assert isinstance(rig.executor, Policed)


@as_root
@pytest.mark.parametrize(
    ("spec", "fields", "expected"),
    [
        ({}, {}, ["bash.run_as"]),
        ({}, {"root": True}, []),
        ({}, {"run_as": "nobody"}, []),
        ({}, {"run_as": "root"}, ["bash.root"]),
        ({"user": "root"}, {"run_as": "nobody"}, ["bash.root", "bash.users"]),
        ({"user": "root"}, {"run_as": "nobody", "users": ["*"]}, ["bash.root", "bash.users"]),
        ({"user": "root"}, {"run_as": "nobody", "users": ["root"]}, ["bash.root", "bash.users"]),
        ({"user": "root"}, {"run_as": "nobody", "root": True}, []),
        ({"user": "nobody"}, {"run_as": "nobody"}, []),
        ({"user": "daemon"}, {"run_as": "nobody"}, ["bash.users"]),
        ({"user": "daemon"}, {"run_as": "nobody", "users": ["daemon"]}, []),
        ({"user": "daemon"}, {"run_as": "nobody", "users": ["*"]}, []),
        ({"user": "daemon"}, {"users": ["daemon"]}, []),
        ({"user": "no-such-user"}, {"run_as": "nobody"}, []),  # told as such
    ],
)
def test_users(spec: dict[str, Any], fields: dict[str, Any], expected: list[str]) -> None:
    assert gates(spec, **fields) == expected


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "IFS", "PS4", "PYTHONPATH", "PYTHONSTARTUP", "BASH_FUNC_x"],
)
def test_variables_that_make_programs_run_other_code_are_denied_unless_taken_off_the_list(name: str) -> None:
    """F3. What bash takes for a function has a name that no container may give a variable."""
    for env in ([f"{name}=x"], {name: "x"}):
        assert gates({"env": env}, run_as="nobody") == ["bash.env_deny"]
        assert gates({"env": env}, run_as="nobody", env_deny=[]) == []
    assert [one.gate for one in denials(BashPolicy(run_as="nobody"), parse({"start": "x"}), [name])] == [
        "bash.env_deny"
    ]


def test_a_denial_of_variables_says_which_entries_to_keep() -> None:
    (found,) = denials(BashPolicy(run_as="nobody"), parse({"start": "x", "env": ["LD_PRELOAD=x", "PS4=x", "A=b"]}))
    kept = "bash: {env_deny: [BASH_ENV, BASH_FUNC_*, ENV, IFS, PYTHON*]}"
    assert found == Denial("bash.env_deny", "it sets LD_PRELOAD, PS4", kept)


def test_development_denies_nothing() -> None:
    spec = parse({"start": "x", "env": ["LD_PRELOAD=x"]})
    assert denials(BashPolicy.development(), spec) == []


@pytest.mark.parametrize("user", ["../x", "0", "a b", "A", "-x", "x" * 40, "a\n", "$(id)"])
def test_what_can_be_no_user_is_a_mistake_in_the_manifest(rig: Any, user: str) -> None:
    assert [one.path for one in rig.executor.validate({"start": "x", "user": user})] == ["user"]


@as_root
def test_a_user_who_is_not_there_rejects_the_task(make_rig: Any, open_folder: Path) -> None:
    rig = make_rig(open_folder, policy(run_as="no-such-user"))
    with pytest.raises(Rejected, match="there is no user no-such-user on this host"):
        rig.start(start="x")


# --- what a task is left with ------------------------------------------------------------------------------------


@as_root
def test_it_is_that_user_and_nothing_more(rig: Any, eventually: Eventually) -> None:
    told = "id -u; id -g; umask; echo $HOME; echo $USER; pwd; ls -A; ls /proc/$$/fd | tr '\\n' ' '; echo; echo up; "
    handle = rig.start(start=told + "sleep 1000", env={"SKED_TASK_ID": "t"})
    eventually(lambda: "up" in rig.output(handle))
    lines = rig.output(handle).splitlines()
    work = rig.home(handle) / "work"
    expected = [str(NOBODY.pw_uid), str(NOBODY.pw_gid), "0077", NOBODY.pw_dir, "nobody", str(work)]
    assert lines[:6] == expected
    assert (work.stat().st_uid, work.stat().st_mode & 0o777) == (NOBODY.pw_uid, 0o700)
    for pid in rig.marked():
        about = status(pid)
        assert set(about["Uid"].split()) == {str(NOBODY.pw_uid)}
        assert set(about["Gid"].split()) == {str(NOBODY.pw_gid)}
        assert about["Groups"].split() == [str(NOBODY.pw_gid)]
        assert (about["NoNewPrivs"], int(about["CapEff"], 16), int(about["CapPrm"], 16)) == ("1", 0, 0)
        targets = {str(Path(f"/proc/{pid}/fd/{fd}").readlink()) for fd in os.listdir(f"/proc/{pid}/fd")}
        home = rig.home(handle)
        assert targets <= {"/dev/null", str(home / "output.log"), str(home / "lock")}


@as_root
def test_another_user_is_had_by_asking(rig: Any, eventually: Eventually) -> None:
    handle = rig.start(start="id -un; sleep 1000", user="daemon")
    eventually(lambda: rig.output(handle) == "daemon\n")
    with pytest.raises(Rejected, match=r"policy bash\.users: it asks to run as games"):
        rig.start(1, start="id -un", user="games")


ATTACKS = """
try() { if (eval "$2") >/dev/null 2>&1; then echo "BROKEN: $1"; fi; }
try "reads the state folder" 'ls STATE'
try "writes to it" 'touch STATE/canary'
try "lists its container's folder" 'ls HOME'
try "reads the record" 'cat HOME/record.json'
try "reads the log" 'cat HOME/output.log'
try "opens the log anew" 'echo x > /proc/$$/fd/1'
try "writes to the lock" 'echo x > HOME/lock'
try "writes by its descriptors" 'for f in {3..30}; do echo x >&$f; done; false'
try "looks into another task" 'ls OTHER'
try "reads another task's environment" 'cat /proc/OTHERPID/environ'
try "ends another task" 'kill -9 OTHERPID'
try "ends the agent" 'kill -9 AGENT'
try "stops the agent" 'kill -STOP AGENT'
try "traces the agent" 'strace -p AGENT & sleep 0.2; kill $!; grep -q "TracerPid:.[1-9]" /proc/AGENT/status'
try "reads the agent's memory" 'head -c1 /proc/AGENT/mem'
try "reads the agent's environment" 'cat /proc/AGENT/environ'
try "reads the agent's descriptors" 'ls /proc/AGENT/fd/'
try "becomes root" 'sudo -n true'
try "gets a terminal" 'test -t 0 || test -t 1'
try "leaves its control group" 'for f in G/*/cgroup.procs G/cgroup.procs; do echo $$ > $f && exit; done; false'
try "raises its limits" 'for f in G/*/sked/*/pids.max G/sked/*/pids.max; do echo max > $f && exit; done; false'
echo done
sleep 1000
"""


@as_root
def test_it_reaches_neither_the_agent_nor_its_folders_nor_other_users_tasks(
    rig: Any, eventually: Eventually, alive: Alive
) -> None:
    """F6, F7."""
    other = rig.start(1, start="sleep 1000", user="daemon")
    (other_pid,) = rig.marked()
    script = ATTACKS.replace("OTHERPID", str(other_pid)).replace("OTHER", str(rig.home(other) / "work"))
    script = script.replace("STATE", str(rig.folder)).replace("AGENT", str(os.getpid()))
    script = script.replace("G/", "/sys/fs/cgroup/")
    handle = rig.start(start=script.replace("HOME", str(rig.folder / "*" / "k-s-1-0" / "c")))
    eventually(lambda: "done" in rig.output(handle))
    assert rig.output(handle) == "done\n"
    assert (rig.home(handle) / "lock").stat().st_size == 0
    assert alive(other_pid)


@as_root
def test_what_it_puts_in_its_folder_harms_nobody(rig: Any, tmp_path: Path, eventually: Eventually) -> None:
    """Links out of it are not followed when the folder is removed, given to the user or used by a stop command."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("here")
    handle = rig.start(start=f"ln -s {kept} out; ln -s /etc etc; mkdir -p a/b; chmod 0 a; echo up; sleep 1000")
    eventually(lambda: "up" in rig.output(handle))
    os.kill(min(rig.marked()), 9)
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    again = rig.start(start="ls -A; echo up; sleep 1000")
    eventually(lambda: rig.output(again) == "up\n")
    rig.executor.stop(again, 1)
    assert (kept / "file").read_text() == "here"
    assert kept.stat().st_uid == 0


@as_root
def test_a_state_folder_that_the_user_can_not_reach_is_said(make_rig: Any, open_folder: Path) -> None:
    open_folder.parent.chmod(0o700)
    rig = make_rig(open_folder, policy(run_as="nobody"))
    with pytest.raises(Rejected, match=rf"chmod o\+x {open_folder.parent}"):
        rig.start(start="x")
    open_folder.parent.chmod(0o711)


# --- what must go on ---------------------------------------------------------------------------------------------


@as_root
def test_the_stop_command_and_commands_beside_it_are_that_user_too(rig: Any, eventually: Eventually) -> None:
    handle = rig.start(start="trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done", stop="echo stop by $(id -un)")
    eventually(lambda: "up" in rig.output(handle))
    successor = rig.agent()
    assert successor.recover()[handle].state is State.RUNNING
    code, said, _ = talk(successor.exec(handle, ExecRequest(("bash", "-c", "id -un; grep NoNew /proc/self/status"))))
    assert (code, said) == (0, b"nobody\nNoNewPrivs:\t1\n")
    code, said, _ = talk(successor.exec(handle, ExecRequest(("id", "-un"), tty=True)))
    assert (code, said.strip()) == (0, b"nobody"), "it could open its terminal"
    successor.stop(handle, 10)
    assert rig.output(handle).splitlines()[:2] == ["up", "stop by nobody"]
    assert rig.marked() == []


@as_root
def test_a_policy_that_became_stricter_ends_nothing_and_starts_nothing(rig: Any, make_rig: Any, tmp_path: Path) -> None:
    loose = make_rig(rig.folder, policy(root=True), rig.context.store_uid)
    handle = loose.start(start="sleep 1000", stop=f"touch {tmp_path}/stopped")
    assert rig.executor.recover()[handle].state is State.RUNNING
    with pytest.raises(ExecutorError, match=r"bash: \{root: false\}"):
        rig.executor.exec(handle, ExecRequest(("id",)))
    rig.executor.stop(handle, 1)
    assert rig.marked() == []
    assert not (tmp_path / "stopped").exists(), "its command would have been root's"


@as_root
@pytest.mark.parametrize("how", ["as it was", "its record is lost", "its main process ended"])
def test_the_next_agent_finds_it(rig: Any, eventually: Eventually, how: str) -> None:
    handle = rig.start(start="sleep 1000 & disown; " + ("exit 0" if "ended" in how else "wait; sleep 1000"))
    eventually(lambda: rig.marked())
    record = rig.home(handle) / "record.json"
    if how == "its main process ended":
        eventually(lambda: json.loads(record.read_text())["exit_code"] == 0)
    pids = set(rig.marked())
    rig.executor.close()
    if how == "its record is lost":
        record.unlink()
    successor = rig.agent()
    assert successor.recover()[handle].state is State.RUNNING
    assert set(rig.marked()) == pids
    assert successor.start(*rig.task(start="x"), {}) == handle
    successor.stop(handle, 1)
    assert rig.marked() == []


@as_root
@pytest.mark.parametrize(
    "start",
    [
        "setsid sleep 1000 & sleep 1000",
        "setsid sleep 1000 & exit 0",
        "env -i setsid sleep 1000 & exit 0",
        "nohup sleep 1000 & disown; sleep 1000",
        "(setsid bash -c '(exec -a innocent sleep 1000 &)' &) ; sleep 1000",
    ],
)
def test_all_that_it_left_is_ended(rig: Any, eventually: Eventually, start: str) -> None:
    """F4."""
    mark = f"1000.{os.getpid()}"
    handle = rig.start(start=start.replace("1000", mark))

    def sleepers() -> set[int]:
        found = subprocess.run(["pgrep", "-u", "nobody", "-f", f"{mark}$"], capture_output=True, text=True).stdout
        names = {int(pid): Path(f"/proc/{pid}/cmdline") for pid in found.split()}
        return {pid for pid, path in names.items() if path.exists() and b"bash" not in path.read_bytes()}

    eventually(lambda: len(sleepers()) >= (1 if "exit 0" in start else 2))
    assert rig.executor.inspect([handle])[handle].state is State.RUNNING
    rig.executor.stop(handle, 2)
    assert sleepers() == set()


TAKES_WHAT_IT_IS_HANDED = """
import socket, sys, os
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
listener.listen()
listener.settimeout(30)
kept = socket.recv_fds(listener.accept()[0], 1, 8)
print(*map(os.readlink, [f"/proc/self/fd/{fd}" for fd in kept[1]]), flush=True)
input()
"""
HANDS_ON = """
import os, socket
there = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")}
line = socket.socket(socket.AF_UNIX)
line.connect(SOCKET)
socket.send_fds(line, [b"x"], [fd for fd, name in there.items() if name.endswith("/lock")])
"""


@as_root
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="nobody has to reach a Python")
def test_whoever_was_handed_its_lock_is_not_ended_with_it(make_rig: Any, open_folder: Path) -> None:
    """A service of root takes descriptors from anybody; a task gave it its lock, and the agent ended the service."""
    rig = make_rig(open_folder, policy(run_as="nobody", cgroups="off"))
    door = open_folder.parent / "door"
    serve = [sys.executable, "-c", TAKES_WHAT_IT_IS_HANDED, str(door)]
    with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdin is not None and service.stdout is not None
        script = HANDS_ON.replace("SOCKET", f'"{door}"')
        handle = rig.start(start=f"while ! [ -S {door} ]; do sleep 0.05; done; /usr/bin/python3 -c '{script}'")
        assert service.stdout.readline().strip() == str(rig.home(handle) / "lock"), "it has the lock"
        rig.executor.stop(handle, 2)
        assert service.poll() is None
        service.stdin.close()
        assert service.wait(60) == 1, "it ended by itself"


@as_root
def test_how_it_ended_and_what_it_said_is_kept(rig: Any, eventually: Eventually) -> None:
    """F10."""
    for number, (script, code) in enumerate(
        [
            ("exit 0", 0),
            ("exit 1", 1),
            ("/etc/passwd", 126),
            ("nothing-there", 127),
            ("kill -9 $$", 137),
            ("exit 255", 255),
        ]
    ):
        handle = rig.start(number, start=f"echo said {number}; {script}")
        eventually(lambda handle=handle: rig.executor.inspect([handle])[handle].state is State.EXITED)
        assert rig.executor.inspect([handle])[handle].exit_code == code
        assert rig.executor.tail(handle, 10)[0] == f"said {number}"


@as_root
def test_a_mark_that_another_user_forged_is_nobodys(rig: Any, eventually: Eventually, alive: Alive) -> None:
    """A task takes the mark of another's, which ends: that one seems to live on no more, and the forger is spared."""
    handle = rig.start(0, start="while [ ! -e go ]; do sleep 0.02; done")
    mark = Path(f"/proc/{rig.marked()[0]}/environ").read_bytes().split(b"SKED_MARK=")[1].split(b"\0")[0].decode()
    forger = rig.start(1, start=f"SKED_MARK={mark} exec sleep 1000", user="daemon")

    def forged() -> list[int]:
        found = subprocess.run(["pgrep", "-u", "daemon", "-x", "sleep"], capture_output=True, text=True).stdout.split()
        return [int(pid) for pid in found if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes()]

    (pid,) = eventually(forged)
    (rig.home(handle) / "work" / "go").touch()
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    rig.executor.stop(handle, 1)
    assert alive(pid)
    assert rig.executor.inspect([forger])[forger].state is State.RUNNING
    rig.executor.stop(forger, 1)
    assert not alive(pid)


@as_root
def test_logs_are_read_and_cut_as_before(rig: Any, monkeypatch: pytest.MonkeyPatch, eventually: Eventually) -> None:
    from sked_bash import logs
    from sked_core.plugin import LogQuery

    monkeypatch.setattr(logs, "MAX_BYTES", 20_000)
    handle = rig.start(start="for i in $(seq 1 9000); do echo $i; done; echo end")
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    assert read(rig.executor, handle, LogQuery(lines=1)) == ["end"]
    for path in rig.home(handle).glob("output*"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)


def test_the_executor_starts_nothing_by_being_made(tmp_path: Path) -> None:
    from sked_core.plugin import ExecutorContext

    BashExecutor(ExecutorContext("h", "s", tmp_path / "state"))
    assert not (tmp_path / "state").exists()
