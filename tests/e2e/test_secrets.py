"""Secrets of real processes and containers on Consul: tasks have them, and nothing that Sked keeps or shows does."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.local import free_ports
from rigs.sked import SKED, Proc, Rig

CANARY, NEWER = "s3cr3t-canary-7fe1", "an0ther-canary-91aa"
NAME = "shop/db-password"
REF = {"secret": NAME, "rotate": "restart"}
Both = tuple[Rig, Any, list[str]]
SAY = 'echo "the password is $DB_PASSWORD"'


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[str], None]:
    """Has the secret hold a value from now on, as people rotate one."""

    def write(value: str) -> None:
        folder = tmp_path / "secrets" / "shop"
        folder.mkdir(parents=True, exist_ok=True)
        for one in (folder.parent, folder):
            one.chmod(0o700)
        new = folder / "new"
        new.write_text(f"{value}\n")
        new.chmod(0o600)
        new.replace(folder / "db-password")

    return write


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    secrets = {"providers": {"file": {"folder": str(tmp_path / "secrets")}}, "allow": {"default": ["shop/*"]}}
    path = tmp_path / "policy.yml"
    policy = {
        "executors": ["bash", "docker"],
        "bash": {"root": True},
        "secrets": {**secrets, "look_seconds": 2},
    }
    path.write_text(json.dumps(policy))
    path.chmod(0o600)
    return path


def pair(manifest: Callable[..., dict[str, Any]], image: str) -> dict[str, Any]:
    """Two services that say what they know: ``web`` runs, having crashed once, and ``sick`` crashes again and again;
    the one as a process, the other as a container."""
    once = f"{SAY}; test -e crashed || {{ touch crashed; exit 3; }}; exec sleep 1000"
    # A process is started in a new folder each time: what it leaves behind lies beside that.
    once = once.replace("crashed", "/tmp/sked-$SKED_HOST-crashed")
    web = manifest("web", desired=1, container={"executor": {"start": once, "env": {"DB_PASSWORD": REF}}})
    spec = {"image": image, "cmd": ["sh", "-c", f"{SAY}; exit 3"], "env": {"DB_PASSWORD": {"secret": NAME}}}
    sick = manifest("sick", desired=1, max_attempts=2, container={"type": "docker", "executor": spec})
    spec = {"image": image, "cmd": ["sh", "-c", f"{SAY}; exec sleep 1000"], "env": {"DB_PASSWORD": REF}}
    well = manifest("well", desired=1, container={"type": "docker", "executor": spec})
    web["clusters"][0]["services"] = ["web", "sick", "well"]
    for other in (sick, well):
        web["services"] += other["services"]
        web["task_definitions"] += other["task_definitions"]
    return web


@pytest.fixture
def both(
    consul_rig: tuple[Rig, Any], policy: Path, keep: Callable[[str], None]
) -> Iterator[tuple[Rig, Any, list[str]]]:
    """A rig with an agent that tells all it can, its Consul, and addresses of what serves over HTTP."""
    rig, consul = consul_rig
    keep(CANARY)
    metrics, page = free_ports(2)
    rig.env["SKED_POLICY"] = str(policy)
    rig.run("combined", "--verbose", "--listen", f"127.0.0.1:{metrics}", host="a")
    command = [str(SKED), "web", "--verbose", "--listen", f"127.0.0.1:{page}"]
    rig.procs.append(Proc(command, rig.folder / "web.log", rig.env))
    yield rig, consul, [f"http://127.0.0.1:{metrics}", f"http://127.0.0.1:{page}"]
    for left in Path("/tmp").glob(f"sked-*-{rig.mark}-crashed"):
        left.unlink()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def command_lines() -> str:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(one.split("=", 1) for one in pairs if "=" in one)


def told(rig: Rig) -> dict[str, str]:
    """What commands show, by how they were typed."""
    asked = [
        ("tasks", "-o", "json"), ("events", "-o", "json"), ("state", "dump"), ("describe", "task/default-web-1-0"),
        ("describe", "task_definition/web/1", "-o", "json"), ("why", "default-web-1-0"),
        ("why", "default-sick-1-0", "-o", "json"), ("explain", "sick"),
    ]  # fmt: skip
    return {" ".join(one): rig.sked(*one) for one in asked}


def files(folder: Path) -> dict[str, str]:
    """What stands in the files below a folder."""
    return {
        str(path): path.read_bytes().decode(errors="replace")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.timeout(400)
def test_what_tasks_say_of_their_secrets_is_nowhere_but_where_they_say_it(
    both: Both, manifest: Callable[..., dict[str, Any]], busybox_image: str, keep: Any
) -> None:
    rig, consul, (metrics, page) = both
    rig.apply(pair(manifest, busybox_image))
    rig.until(
        "sick is given up",
        lambda: any(one["subject"] == "task/default-sick-1-0" for one in rig.events("task.rejected")),
    )
    rig.until("web runs again", lambda: len(rig.events("task.started")) >= 3 and rig.processes().get("default-web-1-0"))
    rig.until("well runs", lambda: rig.containers().get("default-well-1-0"))
    story = rig.until(
        "both crashes are kept", lambda: _masked(rig, "default-web-1-0") and _masked(rig, "default-sick-1-0")
    )
    assert "the password is ***" in story

    # They have it, and it stands where they wrote it.
    pid = rig.processes()["default-web-1-0"][0]
    assert environment(pid)["DB_PASSWORD"] == CANARY
    (container,) = rig.containers()["default-well-1-0"]
    inspected = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True, timeout=60)
    (seen,) = json.loads(inspected.stdout)
    assert f"DB_PASSWORD={CANARY}" in seen["Config"]["Env"]
    assert CANARY not in json.dumps({**seen["Config"], "Env": []}) + json.dumps(seen["HostConfig"]) + json.dumps(
        seen["Args"]
    )
    outputs = {name: text for name, text in files(rig.folder / "agent-a").items() if "output" in Path(name).name}
    assert any(CANARY in text for text in outputs.values())
    for task in ("default-web-1-0", "default-well-1-0"):
        assert CANARY in rig.sked("exec", task, "--", "sh", "-c", "echo $DB_PASSWORD")

    # Nothing else has it.
    shown = told(rig)
    shown |= {url: get(url) for url in (f"{metrics}/metrics", f"{page}/v1/tasks", f"{page}/v1/events")}
    shown |= {
        url: get(f"{page}{url}") for url in ("/", "/tasks/default-web-1-0", "/state/task/default-web-1-0", "/events")
    }
    shown |= {f"logs {task}": rig.sked("logs", task) for task in ("default-web-1-0", "default-well-1-0")}
    shown |= {name: text for name, text in files(rig.folder / "agent-a").items() if name not in outputs}
    shown |= {proc.log.name: proc.text() for proc in rig.procs}
    shown |= files(consul.data)
    shown["command lines"] = command_lines()
    assert [what for what, text in shown.items() if CANARY in text] == []
    assert "the password is ***" in shown["logs default-well-1-0"]
    assert f'"secret": "{NAME}"' in shown["tasks -o json"]

    # It is rotated without another record.
    record = rig.sked("state", "get", "state/tasks/default-web-1-0")
    keep(NEWER)

    def renewed() -> bool:
        pids = rig.processes().get("default-web-1-0") or []
        if not pids or not (ids := rig.containers().get("default-well-1-0")):
            return False
        form = "{{json .Config.Env}}"
        env = subprocess.run(["docker", "inspect", "-f", form, *ids], capture_output=True, text=True, timeout=60)
        try:
            return environment(pids[0])["DB_PASSWORD"] == NEWER and f"DB_PASSWORD={NEWER}" in env.stdout
        except (OSError, KeyError):
            return False

    rig.until("both have the new one", renewed)
    assert rig.sked("state", "get", "state/tasks/default-web-1-0") == record
    whys = dict.fromkeys(("task/default-web-1-0", "task/default-well-1-0"), f"secret {NAME} of file has a new version")
    # Events are written after what they tell of.
    rig.until(
        "both say why",
        lambda: {one["subject"]: one["why"] for one in rig.events("task.secret_rotated")} == whys,
    )
    shown = {proc.log.name: proc.text() for proc in rig.procs} | files(consul.data)
    shown |= {"dump": rig.sked("state", "dump"), "events": rig.sked("events", "-o", "json")}
    shown["command lines"] = command_lines()
    assert [what for what, text in shown.items() if NEWER in text or CANARY in text] == []


def _masked(rig: Rig, task: str) -> str:
    text = rig.sked("why", task)
    return text if "the password is" in text else ""


def test_a_secret_that_the_policy_does_not_give_is_refused_with_the_line_that_would(
    both: Both, manifest: Callable[..., dict[str, Any]]
) -> None:
    rig, _, _ = both
    env = {"A": {"secret": "payroll/db"}, "B": {"secret": "shop/none"}}
    spec = {"start": "exec sleep 1000", "env": env}
    rig.apply(manifest("web", desired=1, container={"executor": spec}))
    (rejected, *_) = rig.until("it is rejected", lambda: rig.events("task.rejected"))
    assert rejected["why"].startswith(
        "policy secrets.allow: tasks of default/web may not have secret payroll/db of file"
    )
    assert 'add `secrets: {allow: {default/web: ["payroll/db"]}}`' in rejected["why"]
    assert rig.processes() == {}
