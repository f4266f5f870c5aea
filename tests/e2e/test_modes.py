"""What Sked's processes leave on a machine is for their user alone, whatever the umask that they were started with."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.local import free_ports
from rigs.sked import SKED, Proc, Rig, service
from sked_core.runtime.agent.folders import replaceable

ROOT = Path(__file__).resolve().parents[2]
USER = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run tasks as somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that others can pass through, as the state folder of a real agent is."""
    folder = Path(tempfile.mkdtemp(prefix="sked-modes-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def rig(folder: Path) -> Iterator[Rig]:
    rig = Rig(f"sqlite://{folder / 'store' / 'sked.db'}", folder)
    yield rig
    rig.clean_up()


def searched() -> list[str]:
    """The patterns of docs/operations.md that name what others may pass through."""
    page = (ROOT / "docs" / "operations.md").read_text().partition("## Modes of files")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| 0711 \|", page, re.MULTILINE)


def wrong(root: Path, but: set[Path]) -> list[str]:
    """All below ``root`` that others than its owner may use, but for passing through folders that the page names."""
    found = []
    for path in sorted(root.rglob("*")):
        if path in but or any(path.is_relative_to(one) for one in but):
            continue
        about = path.lstat()
        mode = stat.S_IMODE(about.st_mode)
        name = str(path.relative_to(root))
        allowed = 0o711 if any(re.fullmatch(one.replace("*", "[^/]+"), name) for one in searched()) else 0o700
        if not stat.S_ISLNK(about.st_mode) and mode & ~allowed & 0o077:
            found.append(f"{name} {mode:04o}")
    return found


@as_root
def test_nobody_else_can_read_or_write_what_the_processes_make(rig: Rig, folder: Path) -> None:
    for name in ("tmp", "home"):
        (folder / name).mkdir(mode=0o700)
    policy = folder / "policy.yml"
    policy.write_text(
        f"executors: [bash]\nbash: {{run_as: {USER}}}\nsetup: {{allow: true, user: {USER}}}\n"
        f"checks: {{scripts: true, user: {USER}}}\n"
    )
    policy.chmod(0o600)
    rig.env |= {"SKED_POLICY": str(policy), "TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home")}
    rig.env |= {"XDG_STATE_HOME": str(folder / "home/state"), "XDG_CACHE_HOME": str(folder / "home/cache")}
    rig.env |= {"XDG_RUNTIME_DIR": str(folder / "home/run"), "XDG_CONFIG_HOME": str(folder / "home/config")}
    before = os.umask(0)
    try:
        rig.run("agent", "--listen", f"127.0.0.1:{free_ports(1)[0]}", host="one")
        rig.run("scheduler")
        rig.run("combined", host="two")
        web = Proc([str(SKED), "web", "--listen", f"127.0.0.1:{free_ports(1)[0]}"], folder / "web.log", rig.env)
        rig.procs.append(web)
    finally:
        os.umask(before)
    rig.hosts_ready(2)
    start = "echo up; echo more > made; while :; do sleep 0.2; done"
    rig.apply(service(desired=4, start=start, container={"setup": ["true"], "checks": [{"script": "true"}]}))
    tasks = rig.until("four tasks", rig.healthy(4))
    assert {task["host"] for task in tasks} == {rig.host("one"), rig.host("two")}
    assert rig.sked("exec", tasks[0]["id"], "--", "id", "-un").strip() == USER
    assert rig.sked("logs", tasks[0]["id"]).split() == ["up"]
    rig.apply(service("bad", desired=1, start="exit 3", max_attempts=1, cluster={"services": ["web", "bad"]}))
    rig.until("a failure", lambda: rig.events("task.rejected"))
    logs = set(folder.glob("*.log"))  # made by this test
    assert not (found := wrong(folder, logs)), "\n".join(found)
    made = list(folder.glob("agent-*/executors/bash/*/*/web/work/made"))
    assert len(made) == 4
    assert {one.stat().st_uid for one in made} == {pwd.getpwnam(USER).pw_uid}
    told = subprocess.run(
        ["find", folder, "-user", USER, "-not", "-path", "*/work*"], capture_output=True, text=True, check=True
    )
    assert told.stdout == "", "what is not in a task's own folder is root's"
    names = {path.name for path in folder.rglob("*")}
    assert {"sked.db", "sked.db-wal", "identity.json", "record.json", "output.log"} <= names, (
        "else this looks at little"
    )
    assert any(path.is_socket() for path in folder.rglob("*"))


def test_a_folder_that_others_could_replace_is_told(tmp_path: Path) -> None:
    inner = tmp_path / "open" / "state"
    inner.mkdir(parents=True)
    assert replaceable(inner) == ""
    (tmp_path / "open").chmod(0o1777)
    assert replaceable(inner) == "", "what is ours nobody else can replace there"
    (tmp_path / "open").chmod(0o777)
    assert replaceable(inner) == f"everybody may write to {tmp_path / 'open'} (mode 0777)"
    (tmp_path / "link").symlink_to(inner)
    assert replaceable(tmp_path / "link") == replaceable(inner)
    (tmp_path / "open").chmod(0o700)
    inner.chmod(0o1777)
    assert "everybody may write" in replaceable(inner), "others could put their files into it"
    if os.geteuid() == 0:
        inner.chmod(0o700)
        os.chown(inner, pwd.getpwnam(USER).pw_uid, -1)
        assert "belongs to another user" in replaceable(inner)


@as_root
def test_an_agent_that_is_root_does_not_start_where_others_could_replace_its_state(rig: Rig, folder: Path) -> None:
    folder.chmod(0o777)
    agent = rig.run("agent", host="one")
    assert agent.wait() != 0
    assert f"everybody may write to {folder} (mode 0777)" in agent.text()
