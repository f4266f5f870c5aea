"""Control groups, on the real ones of this machine: limits hold, ends are told, stops are total, nothing is left."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.needs import missing
from sked_bash import groups
from sked_bash.groups import BESIDE, MAIN, Groups, Limits
from sked_bash.rights import BashPolicy
from sked_core.model.types import Cluster
from sked_core.plugin import Container, ExecRequest, Policy, Rejected, State, Task, TaskDefinition
from sked_core.plugin import Limits as PolicyLimits
from sked_core.testing.executors import talk

Eventually = Callable[..., Any]
BOMB = "f() { f | f & }; f; f; f; echo planted; sleep 1000"


def policy(limits: PolicyLimits | None = None, **fields: Any) -> Policy:
    bash = BashPolicy(root=True, **fields)
    return Policy(executors=["bash"], sections={"bash": bash}, limits=limits or PolicyLimits())


@pytest.fixture(scope="module")
def usable() -> Groups:
    found = groups.here()
    if not {"memory", "pids"} <= found.controllers:
        missing("cgroups", f"no control groups can be used here: {found.lacks}")
    return found


@pytest.fixture
def rig(usable: Groups, make_rig: Callable[..., Any], tmp_path: Path) -> Iterator[Any]:
    rig = make_rig(tmp_path / "state", policy(PolicyLimits(pids=40, default_memory=64)))
    yield rig
    rig.clean()
    assert left(rig, usable) == []


def left(rig: Any, usable: Groups) -> list[str]:
    """Groups of a rig that are still there."""
    return [str(one) for base in usable.bases for one in base.glob(f"{rig.executor._scope}-*")]


def folders(rig: Any, handle: Any) -> list[str]:
    return list(rig.executor._known(handle).groups)


def bounded(rig: Any, handle: Any) -> int:
    return len(groups.pids(folders(rig, handle)))


# --- limits ------------------------------------------------------------------------------------------------------


def test_a_fork_bomb_is_bounded_and_ended(rig: Any, eventually: Eventually) -> None:
    """F5, E22."""
    handle = rig.start(start=BOMB)
    eventually(lambda: bounded(rig, handle) >= 30)
    most = max(bounded(rig, handle) for _ in range(50))
    assert most <= 40
    assert os.getloadavg(), "and this process goes on"
    begun = time.monotonic()
    rig.executor.stop(handle, 1)
    assert time.monotonic() - begun < 20
    assert rig.marked() == []


def test_who_takes_too_much_memory_is_ended_and_that_is_told(rig: Any, eventually: Eventually) -> None:
    task, container = rig.task(start="x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived")
    handle = rig.executor.start(task, container, {})
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED, 60)
    seen = rig.executor.inspect([handle])[handle]
    assert seen.detail == "out of memory"
    assert seen.exit_code
    assert "survived" not in rig.output(handle)
    assert rig.agent().recover()[handle] == seen, "also the next agent knows"


def test_what_is_asked_for_counts_before_what_is_given_to_those_who_ask_for_nothing(rig: Any) -> None:
    def limits(container: Container, **definition: Any) -> Limits:
        whole = TaskDefinition(name="t", version=1, containers=[container], **definition)
        task = Task(cluster=Cluster(name="k"), task_definition=whole, service="s", instance=0, host="host-1")
        return rig.executor._starter.limits(task, container)

    one = Container(name="c", type="bash")
    assert limits(one) == Limits(64, 0, 40)
    assert limits(one, memory=300, cpu_units=512) == Limits(300, 512, 40)
    asked = Container(name="c", type="bash", memory=100, cpu_units=2048)
    assert limits(asked, memory=300) == Limits(100, 2048, 40)


@pytest.mark.parametrize("given", [0, 64, 512])
def test_who_asks_for_no_memory_gets_no_more_than_may_be_asked_for(make_rig: Any, tmp_path: Path, given: int) -> None:
    """Nothing was asked for, so nothing was over the ceiling, and without a default there was no limit at all."""
    rig = make_rig(tmp_path / "state", policy(PolicyLimits(default_memory=given, max_memory=256)))
    task, container = rig.task(start="true")
    assert rig.executor._starter.limits(task, container).memory == (64 if given == 64 else 256)


def test_the_kernel_has_what_was_asked_for(rig: Any, usable: Groups) -> None:
    found = usable.create(f"{rig.executor._scope}-{secrets.token_hex(4)}", Limits(100, 512, 7))
    try:
        told = {
            path.name: path.read_text().strip() for one in found for path in Path(one).glob("*.*") if _readable(path)
        }
        if groups.is_second(found[0]):
            assert (told["memory.max"], told["pids.max"]) == (str(100 * 1024**2), "7")
            assert told.get("cpu.max", "50000 100000") == "50000 100000"
        else:
            assert (told["memory.limit_in_bytes"], told["pids.max"]) == (str(100 * 1024**2), "7")
            assert told.get("cpu.cfs_quota_us", "50000") == "50000"
    finally:
        groups.remove(found)


def _readable(path: Path) -> bool:
    return path.name in (
        "memory.max",
        "pids.max",
        "cpu.max",
        "memory.limit_in_bytes",
        "cpu.cfs_quota_us",
    )


def test_the_host_tells_by_which_tasks_are_limited(rig: Any, usable: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    told = rig.executor.attributes()["cgroups"].split()
    assert told[0] in ("v1", "v2")
    assert set(told[1:]) == usable.controllers
    monkeypatch.setattr(groups, "here", lambda: Groups(lacks="none"))
    assert rig.agent().attributes() == {"cgroups": "none"}


# --- what belongs to a task --------------------------------------------------------------------------------------

SHEDS = "env -i setsid bash -c 'for fd in {3..63}; do eval \"exec $fd>&-\"; done; (sleep 1000.5 &) ; exit 0' & exit 0"


def test_what_shed_mark_session_parents_and_lock_still_belongs_to_it(rig: Any, eventually: Eventually) -> None:
    """Nothing of the old means finds it; as long as it lives the task does, and its stop ends it."""
    handle = rig.start(start=SHEDS)

    def stray() -> list[int]:
        """Not the shells around it, whose command lines name it too."""
        return [pid for pid in groups.pids(folders(rig, handle)) if _cmdline(pid) == b"sleep\x001000.5\x00"]

    (pid,) = eventually(stray)
    eventually(lambda: pid not in rig.marked() and rig.executor._known(handle).record.exit_code == 0)
    assert rig.executor.inspect([handle])[handle].state is State.RUNNING
    successor = rig.agent()
    assert successor.recover()[handle].state is State.RUNNING
    successor.stop(handle, 2)
    assert b"1000.5" not in _cmdline(pid)


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_commands_beside_a_task_are_limited_with_it_and_do_not_keep_it_alive(rig: Any, eventually: Eventually) -> None:
    handle = rig.start(start="while [ ! -e go ]; do sleep 0.05; done")
    asked = ("bash", "-c", "cat /proc/self/cgroup; (setsid sleep 1000 &); touch go")
    code, said, _ = talk(rig.executor.exec(handle, ExecRequest(asked)))
    assert code == 0
    assert said.decode().count(f"/{BESIDE}\n") == len(folders(rig, handle))
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    rig.executor.stop(handle, 1)
    assert rig.marked() == []


def test_the_groups_that_a_dead_agent_left_are_removed(rig: Any, usable: Groups) -> None:
    mine = usable.create(f"{rig.executor._scope}-{secrets.token_hex(4)}", Limits())
    others = usable.create(f"0000-{secrets.token_hex(4)}", Limits())
    handle = rig.start(start="sleep 1000")
    kept = folders(rig, handle)
    try:
        rig.agent().recover()
        assert all(Path(one).exists() for one in [*mine, *others, *kept]), "what is young may be about to be used"
        for one in mine:
            os.utime(one, (time.time() - 120, time.time() - 120))
        rig.agent().recover()
        assert not any(Path(one).exists() for one in mine)
        assert all(Path(one).exists() for one in [*others, *kept])
        for one in [*others, *kept]:
            os.utime(one, (0, 0))
        rig.agent().recover()
        assert not any(Path(one).exists() for one in others)
        assert all(Path(one).exists() for one in kept), "what is used stays"
    finally:
        groups.remove([*mine, *others])
    assert rig.executor.inspect([handle])[handle].state is State.RUNNING


def test_where_none_can_be_used_a_task_starts_unless_they_are_required(
    make_rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(groups, "here", lambda: Groups(lacks="none here"))
    easy, strict = make_rig(tmp_path / "a", policy()), make_rig(tmp_path / "b", policy(cgroups="required"))
    assert easy.start(start="sleep 1000")
    assert easy.start(1, start="sleep 1000")
    assert [one.getMessage() for one in caplog.records].count(
        "bash tasks are not limited in all that they use: none here"
    ) == 1
    with pytest.raises(Rejected, match=r"policy bash\.cgroups: control groups are required, and can't be used here"):
        strict.start(start="sleep 1000")
    off = make_rig(tmp_path / "c", policy(cgroups="off"))
    handle = off.start(start="cat /proc/self/cgroup; sleep 1000")
    assert folders(off, handle) == []


# --- version 2 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def second() -> Iterator[Groups]:
    """Groups of version 2, with whatever controllers the kernel lets it have here: none beside version 1."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    if not mounts or not os.access(mounts[0][4], os.W_OK):
        missing("cgroups", "no hierarchy of version 2 can be written here")
    found = groups._second((Path(mounts[0][4]), mounts[0][3]), "", root=True, bare=True)
    if not found.bases:
        missing("cgroups", f"no group of version 2 can be made here: {found.lacks}")
    yield found
    if not found.controllers:
        with contextlib.suppress(OSError):  # somebody else's groups are in it, or it was removed with the last of them
            found.bases[0].rmdir()


def test_version_2_holds_a_task_together_and_kills_it_at_once(
    second: Groups, make_rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(groups, "here", lambda: second)
    rig = make_rig(tmp_path / "state", policy(PolicyLimits(pids=40, default_memory=64)))
    handle = rig.start(start=f"cat /proc/self/cgroup; {SHEDS}")
    (folder,) = folders(rig, handle)
    eventually(lambda: any(b"1000.5" in _cmdline(pid) for pid in groups.pids([folder], MAIN)))
    # It is in there from the start.
    eventually(lambda: any(line.endswith(f"{Path(folder).name}/{MAIN}") for line in rig.output(handle).splitlines()))
    pids = groups.pids([folder])
    groups.kill([folder])
    eventually(lambda: not groups.pids([folder]))
    eventually(lambda: not any(b"1000.5" in _cmdline(pid) for pid in pids))
    rig.executor.stop(handle, 1)
    assert not Path(folder).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run tasks as somebody else")
def test_version_2_takes_in_what_runs_as_another_user(
    second: Groups, make_rig: Any, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    import shutil
    import tempfile

    monkeypatch.setattr(groups, "here", lambda: second)
    folder = Path(tempfile.mkdtemp(prefix="sked-groups-"))
    folder.chmod(0o711)
    rig = make_rig(folder / "state", policy(run_as="nobody"))
    try:
        handle = rig.start(start="id -un; cat /proc/self/cgroup; sleep 1000")
        eventually(lambda: f"/{MAIN}" in rig.output(handle))
        assert rig.output(handle).startswith("nobody\n")
        rig.executor.stop(handle, 1)
    finally:
        rig.clean()
        shutil.rmtree(folder)


# --- where they are found ----------------------------------------------------------------------------------------


def tree(folder: Path, *, controllers: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(controllers)


def test_hierarchies_are_read_from_the_mounts(tmp_path: Path) -> None:
    first, joined = tmp_path / "memory", tmp_path / "cpu,cpuacct"
    first.mkdir()
    joined.mkdir()
    mountinfo = (
        f"30 25 0:26 / {tmp_path}/bare rw shared:9 - cgroup2 cgroup2 rw\n"
        f"31 25 0:27 / {first} rw,nosuid shared:10 - cgroup cgroup rw,memory\n"
        f"32 25 0:28 / {joined} rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
        "33 25 0:29 / /nowhere/pids rw - cgroup cgroup rw,pids\n"
        "34 25 0:30 / /tmp rw - tmpfs tmpfs rw\n"
    )
    tree(tmp_path / "bare")
    found = groups.find(mountinfo, "5:memory:/\n", root=True)
    assert found.bases == (first / "sked", joined / "sked")
    assert found.controllers == {"memory", "cpu"}
    assert found.lacks == "no controller for pids can be used"


def test_version_2_is_taken_where_it_has_the_controllers(tmp_path: Path) -> None:
    tree(tmp_path, controllers="cpuset cpu io memory pids")
    tree(tmp_path / "sked", controllers="cpu memory pids")
    mountinfo = f"30 25 0:26 / {tmp_path} rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    assert groups.find(mountinfo, "0::/x\n", root=True) == Groups(
        (tmp_path / "sked",), frozenset({"cpu", "memory", "pids"})
    )


def test_somebody_else_than_root_takes_what_was_delegated(tmp_path: Path) -> None:
    unit = tmp_path / "system.slice" / "sked-agent.service"
    mountinfo = f"30 25 0:26 / {tmp_path} rw shared:9 - cgroup2 cgroup2 rw\n"
    own = "0::/system.slice/sked-agent.service/agent\n"
    tree(unit / "agent")
    assert groups.find(mountinfo, own, root=False).lacks.startswith("none is delegated")
    tree(unit, controllers="memory pids")
    tree(unit / "sked", controllers="memory pids")
    found = groups.find(mountinfo, own, root=False)
    assert (found.bases, found.lacks) == ((unit / "sked",), "no controller for cpu can be used")


@pytest.mark.parametrize("mountinfo", ["", "garbage\n", "30 25 0:26 / /nowhere rw - cgroup2 cgroup2 rw\n", " - \n"])
def test_where_there_are_none_that_is_said(mountinfo: str) -> None:
    found = groups.find(mountinfo, "", root=True)
    assert not found.bases
    assert found.lacks


def test_a_stranger_in_the_folder_list_is_never_signalled(tmp_path: Path) -> None:
    """A group that is gone, or none at all, ends nobody."""
    groups.kill([str(tmp_path / "gone")])
    assert groups.pids([str(tmp_path / "gone")]) == set()
    assert signal.getsignal(signal.SIGTERM) is not None
