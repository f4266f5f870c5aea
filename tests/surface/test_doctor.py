"""``sked doctor``: each fault is made, found and explained; and what is sound is called sound."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rigs.small_plugins import HOOKIMPL, package
from sked_bash import groups
from sked_bash.groups import Groups
from sked_core.client.doctor import CHECKS, Check, Exam, examine
from sked_core.client.settings import resolve
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Event, Host, Liveness, Presence
from sked_core.runtime.agent import host_facts
from sked_core.runtime.agent.disk import AgentDisk, Seen
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task

ROOT = Path(__file__).resolve().parents[2]
Diagnose = Callable[..., dict[str, list[dict[str, str]]]]


@pytest.fixture
def exam(store, monkeypatch) -> Callable[..., Exam]:
    """What is examined: this machine and the embedded store of the test, with ``more`` of an Exam."""
    store.commit([Put(keys.STORE_UID, b"00ff00ff00ff00ff")])

    def make(**more: Any) -> Exam:
        return Exam(resolve(), **more)

    return make


@pytest.fixture
def found(exam) -> Callable[..., list[Any]]:
    """``found("disk", …)``: what that check comes to."""

    def look(name: str, one: Exam | None = None, **more: Any) -> list[Any]:
        checks = [check for check in CHECKS if check.name == name]
        assert checks, name
        return examine(one or exam(**more), checks, seconds=60)

    return look


def fault(results: list[Any], *words: str) -> Any:
    """The only result, which has to be a fault that says ``words`` and what to do."""
    (one,) = results
    assert one.state == "fault" and one.remedy, one
    assert all(word in one.what for word in words), one
    return one


def sound(results: list[Any]) -> bool:
    return [one.state for one in results] == ["ok"]


@pytest.fixture
def cluster(store, declare, hosts) -> None:
    """Two hosts with a service that runs, a scheduler, and nothing wrong."""
    definition = a_definition()
    declare(definition, a_cluster(), a_service(desired=2))
    hosts("h1", address="127.0.0.1")
    store.commit([Put(keys.scheduler("s-1"), encode(Presence(["default"])))])
    value = encode(a_task("h1", 0, definition, port=20000))
    store.commit([Put(keys.task("default-web-1-0"), value), Put(keys.host_task("h1", "default-web-1-0"), value)])


def test_a_sound_installation_has_no_fault_in_what_a_store_can_tell(sked, cluster, store) -> None:
    store.commit([Put(keys.STORE_UID, b"00ff00ff00ff00ff")])
    ran = sked("doctor", "-o", "json")
    items = {item["check"]: item for item in json.loads(ran.out)["items"]}
    assert list(items) == [check.name for check in CHECKS]
    about_the_store = {"config", "plugins", "versions", "store", "rights", "identity", "contents", "schedulers",
                       "scheduler-names", "agents", "lost-hosts", "executors", "clocks", "addresses"}  # fmt: skip
    assert {name: items[name]["what"] for name in about_the_store if items[name]["state"] != "ok"} == {}
    assert ran.code == any(item["state"] == "fault" for item in items.values())


def test_faults_come_with_their_remedies_for_people_and_for_programs(sked, store, declare) -> None:
    declare(a_service(), a_definition(), a_cluster())
    ran = sked("doctor", "-q")
    assert ran.code == 1
    lines = ran.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("fault    schedulers "))
    assert "no scheduler is running" in lines[at] and lines[at + 1].strip() == "sked run scheduler"
    assert not any(line.startswith("ok ") for line in lines) and " wrong, " in ran.err


def test_every_check_ends_in_time_whatever_hangs_or_breaks(exam) -> None:
    never = threading.Event()

    def hangs(_: Exam) -> Any:
        never.wait()
        yield None

    def breaks(_: Exam) -> Any:
        raise ZeroDivisionError("by nothing")
        yield None

    begun = time.monotonic()
    results = examine(
        exam(), [Check("a", "", hangs), Check("b", "", breaks), Check("c", "", lambda _: iter(()))], seconds=5
    )
    assert time.monotonic() - begun < 30
    assert [(one.check, one.state) for one in results] == [("a", "unknown"), ("b", "unknown"), ("c", "ok")]
    assert results[0].what == "no answer within 5 s" and results[1].what == "by nothing"
    never.set()


def test_the_page_lists_every_check_and_no_other() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    rows = {
        line.split("|")[1].strip(" `"): line.split("|")[2].strip()
        for line in page.splitlines()
        if line.startswith("| `")
    }
    assert rows == {check.name: check.finds for check in CHECKS}


# --- what is installed and configured ------------------------------------------------------------


def test_a_configuration_with_unknown_keys_is_a_fault_and_the_rest_is_looked_at(sked, tmp_path) -> None:
    path = tmp_path / "sked.toml"
    path.write_text('bakend = "sqlite:///x"\n')
    ran = sked("--config", str(path), "doctor")
    assert ran.code == 1 and f'{path}:1:1: bakend: unknown field, did you mean "backend"?' in ran.out
    assert "unknown  " in ran.out and "the configuration can't be read" in ran.out and "ok       open-files" in ran.out


def test_a_broken_plugin_and_one_for_another_sked_are_faults(tmp_path, url) -> None:
    for name, version, needs, code in (
        ("sked-torn", "1.0", "sked-core>=0.1", "raise RuntimeError('torn apart')"),
        ("sked-young", "9.0", "sked-core>=9.0", ""),
    ):
        module = name.replace("-", "_")
        about = tmp_path / f"{module}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {needs}\n"
        )
        (about / "entry_points.txt").write_text(f"[sked]\n{name[5:]} = {module}\n")
        (tmp_path / f"{module}.py").write_text(code)
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    ran = subprocess.run(
        [sys.executable, "-m", "sked_core.surface.cli", "doctor", "-o", "json"],
        capture_output=True, text=True, env=env, timeout=60, cwd=ROOT,
    )  # fmt: skip
    items = {item["check"]: item for item in json.loads(ran.stdout)["items"] if item["state"] == "fault"}
    assert "plugin torn (sked-torn) is broken: import: RuntimeError: torn apart" in items["plugins"]["what"]
    assert "pip install --force-reinstall sked-torn" in items["plugins"]["remedy"]
    assert "sked-young asks for sked-core>=9.0" in items["versions"]["what"] and ran.returncode == 1


def test_what_plugins_say_is_wrong_is_a_fault_and_a_warning_where_loops_start(tmp_path, url) -> None:
    lines = ("/etc/lantern.toml: wick: unknown field", "broken\x1b[2J", 5)
    package(tmp_path, "lantern", f"{HOOKIMPL}@hookimpl\ndef sked_problems():\n    return {lines!r}\n")
    package(tmp_path, "raises", f"{HOOKIMPL}@hookimpl\ndef sked_problems():\n    raise SystemExit(3)\n")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", "SKED_BACKEND": url}
    ran = subprocess.run(
        [sys.executable, "-m", "sked_core.surface.cli", "doctor", "-o", "json"],
        capture_output=True, text=True, env=env, timeout=120, cwd=ROOT,
    )  # fmt: skip
    said = {item["what"] for item in json.loads(ran.stdout)["items"] if item["state"] == "fault"}
    told = {"sked-lantern: /etc/lantern.toml: wick: unknown field", r"sked-lantern: broken\x1b[2J"}
    assert told <= said
    assert any(line.startswith("sked-raises: sked_problems of plugin sked-raises") for line in said)
    assert ran.returncode == 1
    begun = subprocess.Popen(
        [sys.executable, "-m", "sked_core.surface.cli", "run", "scheduler"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env, cwd=ROOT,
    )  # fmt: skip
    assert begun.stderr is not None
    try:
        assert any("sked-lantern: /etc/lantern.toml" in line for line in begun.stderr), "it ended without a warning"
        assert begun.poll() is None, "it warns, and goes on"
    finally:
        begun.kill()
        begun.communicate()


def test_a_denied_plugin_is_no_fault_and_one_for_another_api_or_required_in_vain_is(tmp_path) -> None:
    package(tmp_path, "denied", "raise RuntimeError")
    package(tmp_path, "later", "", groups=["sked.v2"])
    rules = {"SKED_PLUGINS_DENY": "sked-denied", "SKED_PLUGINS_REQUIRE": "sked-gone"}
    ran = subprocess.run(
        [sys.executable, "-m", "sked_core.surface.cli", "doctor", "-o", "json"], capture_output=True, text=True,
        env=os.environ | rules | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}, timeout=60, cwd=ROOT,
    )  # fmt: skip
    faults = [item for item in json.loads(ran.stdout)["items"] if item["check"] == "plugins"]
    assert [item["what"].partition(",")[0] for item in faults] == [
        "plugin later (sked-later) is not used: built for plugin API 2",
        "sked-gone is required (SKED_PLUGINS_REQUIRE)",
    ]
    assert "pip install -U sked-core" in faults[0]["remedy"]


def test_secret_files_that_others_may_read_are_faults(found, tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t")
    token.chmod(0o640)
    one = fault(found("secrets", env={"CONSUL_HTTP_TOKEN_FILE": str(token)}), str(token), "0640")
    assert one.remedy == f"chmod 600 {token}"
    token.chmod(0o600)
    assert sound(found("secrets", env={"CONSUL_HTTP_TOKEN_FILE": str(token)}))
    fault(found("secrets", env={"ETCDCTL_KEY": str(tmp_path / "no")}), "ETCDCTL_KEY", "No such file")


def test_an_address_that_nothing_would_serve_on_is_a_fault(found, tmp_path) -> None:
    def look(text: str) -> list[Any]:
        path = tmp_path / "sked.toml"
        path.write_text(text)
        return found("listening", Exam(resolve(config=str(path)), env={}))

    for safe in ("", 'listen = "127.0.0.1:9466"'):
        assert sound(look(safe))
    one = fault(look('listen = "0.0.0.0:9466"'), "0.0.0.0:9466", "without a token and TLS")
    assert "--tokens FILE" in one.remedy
    tokens, key = tmp_path / "tokens", tmp_path / "key.pem"
    for secret in (tokens, key):
        secret.write_text("ann admin 0123456789abcdef0123\n")
        secret.chmod(0o600)
    text = f'listen = "0.0.0.0:9466"\ntokens = "{tokens}"\ntls_key = "{key}"\n'
    fault(look(text + f'tls_cert = "{tmp_path / "no.pem"}"'), "no.pem", "No such file")
    tokens.chmod(0o644)
    assert sound(look(text)), "the check of secrets says so already"


# --- the store ------------------------------------------------------------


def test_a_store_that_accepts_and_never_answers_is_a_fault_within_seconds(sked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        ran = sked("--backend", f"consul://127.0.0.1:{server.getsockname()[1]}", "doctor", "-o", "json")
        assert time.monotonic() - begun < 60
    items = {item["check"]: item for item in json.loads(ran.out)["items"]}
    assert ran.code == 1 and items["store"]["state"] == "fault" and "answer" in items["store"]["what"]


def test_a_store_without_its_plugin_names_the_package(sked) -> None:
    ran = sked("--backend", "nowhere://x", "doctor", "-o", "json")
    items = {item["check"]: item for item in json.loads(ran.out)["items"]}
    assert items["store"]["state"] == "fault" and "no storage" in items["store"]["what"]
    assert "pip install" in items["store"]["remedy"] and items["rights"]["state"] == "unknown"


@pytest.fixture
def agent_here(exam) -> Callable[..., AgentDisk]:
    """An agent of this machine was here, of the store with this id."""

    def make(uid: str) -> AgentDisk:
        disk = AgentDisk(exam().state_dir)
        disk.lock()
        disk.identity()
        disk.pin(uid)
        disk.unlock()
        return disk

    return make


def test_a_store_that_came_back_empty_or_is_another_one_freezes_the_agent_here(found, store, agent_here) -> None:
    agent_here("00ff00ff00ff00ff")
    assert sound(found("identity"))
    store.commit([Put(keys.STORE_UID, b"1111111111111111")])
    fault(found("identity"), "another one than before", "1111111111111111")
    store.commit([Delete(keys.STORE_UID)])
    assert "--accept-store" in fault(found("identity"), "came back without its data").remedy


def test_a_store_that_was_set_back_freezes_the_agent_here(found, exam, store, agent_here) -> None:
    disk = agent_here("00ff00ff00ff00ff")
    disk.note_seen(Seen(count=7, digest="x"))
    store.commit([Put(keys.agent(exam().host), b"3")])
    fault(found("identity"), "set back to an older state")


def test_what_cannot_be_read_in_the_store_is_a_fault(found, store) -> None:
    store.commit([Put(keys.service("web"), b"{}")])
    assert "sked state check" in fault(found("contents"), "config/services/web: can't be read").remedy


# --- the cluster ------------------------------------------------------------


def test_no_scheduler_no_agent_and_a_scheduler_that_nobody_runs_are_faults(found, store, declare, hosts) -> None:
    assert sound(found("schedulers")) and sound(found("agents"))
    declare(a_service(scheduler="binpack"), a_definition(), a_cluster())
    fault(found("schedulers"), "no scheduler is running")
    fault(found("agents"), "no agent is running")
    store.commit([Put(keys.scheduler("s"), encode(Presence(["default"])))])
    hosts("h1")
    assert sound(found("schedulers")) and sound(found("agents"))
    fault(found("scheduler-names"), "service web is placed by scheduler binpack, which no running process has")


def test_a_lost_host_is_a_fault(found, hosts, store) -> None:
    hosts("h1", "h2")
    assert sound(found("lost-hosts"))
    store.commit([Delete(keys.live("h2"))])
    assert "sked drain h2 --force" in fault(found("lost-hosts"), "host h2 has no living agent").remedy


def test_an_executor_that_services_need_and_no_host_has_is_a_fault(found, declare, hosts) -> None:
    definition = a_definition(containers=[{"name": "a", "type": "docker"}])
    declare(a_service(), definition, a_cluster())
    hosts("h1", executors=["bash"])
    one = fault(found("executors"), "service web needs executor docker")
    assert "pip install sked-docker" in one.remedy
    assert "name it in the host's policy (executors)" in one.remedy
    hosts("h2", executors=["bash", "docker"])
    assert sound(found("executors"))


def test_more_memory_given_away_than_there_is_is_a_fault(found, hosts, issue, store) -> None:
    hosts("h1", memory=500)
    issue(a_task("h1", 0, a_definition(memory=300)), a_task("h1", 1, a_definition(memory=300)))
    fault(found("memory-given-away"), "tasks on h1 ask for 600 MB of memory, it has 500 MB")


def say(store, who: str, seconds: float, number: int) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = Event(at=at, who=who, what="task.started", subject="task/x")
    store.commit([Put(keys.events(f"{number}-x"), encode([event]))])


@pytest.mark.parametrize(("off", "word"), [(300.0, "ahead"), (-300.0, "behind")])
def test_a_clock_that_is_off_shows_in_what_its_host_tells(found, store, off, word) -> None:
    for number in range(12):
        say(store, ("agent h1", "agent h2")[number % 2], off if number % 2 else 0.0, number)
    one = fault(found("clocks"), "the clock of agent h2", word)
    assert "NTP" in one.remedy


def test_clocks_that_agree_and_something_told_late_after_an_outage_are_no_fault(found, store) -> None:
    for number in range(12):
        say(store, ("agent h1", "agent h2")[number % 2], -400.0 if number == 7 else 0.0, number)
    assert sound(found("clocks"))


def test_addresses_that_lead_nowhere_or_belong_to_two_hosts_are_faults(found, store, hosts) -> None:
    hosts("h1", address="10.0.0.1")
    hosts("h2", address="10.0.0.1")
    fault(found("addresses"), "hosts h1 and h2 have one address, 10.0.0.1")
    apart = Host(name="h2", address="10.0.0.1", port_range=(30000, 30999))  # as the fault says to do
    store.commit([Put(keys.host("h2"), encode(apart))])
    assert sound(found("addresses"))
    store.commit([Put(keys.host("h2"), encode(Host(name="h2", address="no-such-name.invalid")))])
    fault(found("addresses"), "no-such-name.invalid, can't be resolved")
    store.commit([Put(keys.host("h2"), encode(Host(name="h2", address="127.0.0.1")))])
    fault(found("addresses"), "leads every other host to itself")


def test_another_agent_under_the_name_of_this_machine_is_a_fault(found, exam, store, agent_here) -> None:
    agent_here("00ff00ff00ff00ff")
    own = AgentDisk(exam().state_dir).identity().agent
    store.commit([Put(keys.live(exam().host), encode(Liveness(own)))])
    assert sound(found("host-name"))
    store.commit([Put(keys.live(exam().host), encode(Liveness("somebody")))])
    assert "--host" in fault(found("host-name"), "another agent (id somebody)").remedy


# --- this machine ------------------------------------------------------------


class Machine:
    """This machine, but for what the test says of it."""

    def __init__(self, **other: Any) -> None:
        self._other = other

    def __getattr__(self, name: str) -> Any:
        if name in self._other:
            return lambda *_: self._other[name]
        return getattr(host_facts, name)


def configured(tmp_path: Path, text: str) -> Exam:
    path = tmp_path / "sked.toml"
    path.write_text(text)
    return Exam(resolve(config=str(path)))


def test_ports_that_the_kernel_gives_to_others_too_are_a_fault(found, tmp_path, url) -> None:
    (tmp_path / "agent").mkdir()
    one = configured(tmp_path, f'port_range = "40000-40999"\nstate_dir = "{tmp_path / "agent"}"\n')
    assert "sysctl -w net.ipv4.ip_local_reserved_ports" in fault(found("outgoing-ports", one), "40000-40999").remedy
    one = configured(tmp_path, f'port_range = "20000-29999"\nstate_dir = "{tmp_path / "agent"}"\n')
    assert sound(found("outgoing-ports", one))


def test_more_granted_than_the_machine_has_is_a_fault(found, tmp_path, url) -> None:
    fault(found("granted", configured(tmp_path, 'memory = "9000g"\n')), "--memory", "9216000 MB")


def test_a_fixed_port_that_a_stranger_holds_here_is_a_fault(found, exam, declare, agent_here) -> None:
    agent_here("00ff00ff00ff00ff")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        declare(a_service(), a_definition(port=port), a_cluster())
        assert "ss -ltnp" in fault(found("held-ports"), f"port {port}, which service web needs").remedy
    assert sound(found("held-ports"))


def test_a_disk_that_is_nearly_full_is_a_fault(found) -> None:
    machine = Machine(free_disk_mb=100, disk_mb=100_000)
    fault(found("disk", machine=machine), "100 MB of 100000 MB are free")
    assert sound(found("disk", machine=Machine(free_disk_mb=90_000, disk_mb=100_000)))


def test_a_full_file_system_is_a_fault(found, tmp_path, url) -> None:
    """A real one: a small tmpfs, filled up."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a file system can't be mounted here: that needs root and CAP_SYS_ADMIN")
    try:
        (folder / "fill").write_bytes(b"x" * 7_900_000)
        fault(found("disk", configured(tmp_path, f'state_dir = "{folder}"\n')), "of 8 MB are free")
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_state_folder_that_is_a_file_another_s_or_open_to_others_is_a_fault(found, tmp_path, url) -> None:
    folder = tmp_path / "agent"
    folder.write_text("")
    one = configured(tmp_path, f'state_dir = "{folder}"\n')
    fault(found("state-folder", one), "is no folder")
    folder.unlink()
    folder.mkdir(mode=0o700)
    assert sound(found("state-folder", one))
    folder.chmod(0o777)
    assert "chmod 700" in fault(found("state-folder", one), "others may write", "0777").remedy
    folder.chmod(0o700)
    (folder / "notes").mkdir()
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    os.chown(folder / "notes", 12345, -1)
    fault(found("state-folder", one), "another user")


@pytest.mark.parametrize("folder", ["/proc/none", "/proc/none/below", "/proc"])
def test_a_state_folder_where_no_folder_can_be_made_is_a_fault_whatever_the_rights_are(
    found, tmp_path, url, folder
) -> None:
    fault(found("state-folder", configured(tmp_path, f'state_dir = "{folder}"\n')), folder, "/proc")


def test_to_find_out_whether_a_state_folder_can_be_made_leaves_nothing_behind(found, tmp_path, url) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    assert sound(found("state-folder", configured(tmp_path, f'state_dir = "{parent}/new/agent"\n')))
    assert list(parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_state_folder_of_root_is_a_fault_for_anybody_else(tmp_path, url) -> None:
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "agent"
        folder.mkdir(mode=0o700)
        one = configured(tmp_path, f'state_dir = "{folder}"\n')
        checks = [check for check in CHECKS if check.name == "state-folder"]
        pid = os.fork()
        if pid == 0:
            os.seteuid(12345)
            results = examine(one, checks, seconds=60)
            os._exit(0 if results[0].state == "fault" and "belongs to user 0" in results[0].what else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_too_few_open_files_are_a_fault(found) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        assert "LimitNOFILE" in fault(found("open-files"), "512 files").remedy
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_unit_that_ends_the_tasks_with_the_agent_is_a_fault_until_a_drop_in_says_otherwise(found, tmp_path) -> None:
    unit = tmp_path / "sked-agent.service"
    unit.write_text("[Service]\nExecStart=/usr/bin/sked run agent\n")
    (tmp_path / "other.service").write_text("[Service]\nExecStart=/usr/bin/nginx\n")
    fault(found("units", roots=(tmp_path,)), str(unit), "control-group, its default")
    unit.write_text("[Service]\nExecStart=/usr/bin/sked run agent\nKillMode=mixed\n")
    fault(found("units", roots=(tmp_path,)), "KillMode mixed")
    (tmp_path / "sked-agent.service.d").mkdir()
    (tmp_path / "sked-agent.service.d" / "kill.conf").write_text("[Service]\nKillMode=process\n")
    assert sound(found("units", roots=(tmp_path,)))


def test_a_name_of_this_machine_that_cannot_be_resolved_is_a_fault(found, monkeypatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "no-such-name.invalid")
    assert "/etc/hosts" in fault(found("own-name"), "no-such-name.invalid").remedy


def test_an_engine_that_is_down_or_that_one_may_not_use_is_a_fault(found, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'no.sock'}")
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("SKED_PLUGINS_ALLOW", "sked-docker,sked-bash")  # others may have engines that are not here
    one = fault(found("engines"), "executor docker")
    assert "--allow-executor" in one.remedy
    assert sound(found("engines", configured(tmp_path, 'allow_executors = ["bash"]\n')))


def test_limits_that_control_groups_can_not_hold_here_are_a_fault(found, tmp_path, monkeypatch) -> None:
    policy = tmp_path / "policy.yml"
    policy.write_text("executors: [bash]")
    config = configured(tmp_path, f'policy = "{policy}"\n')
    monkeypatch.setattr(groups, "here", lambda: Groups((tmp_path,), frozenset({"cpu", "memory", "pids"})))
    (one,) = found("cgroups", config)
    assert (one.state, one.what) == ("ok", "executor bash: v1 cpu memory pids")
    monkeypatch.setattr(groups, "here", lambda: Groups((tmp_path,), frozenset({"cpu"})))
    fault(found("cgroups", config), "executor bash can't limit its tasks in memory, pids", "v1 cpu")
    monkeypatch.setattr(groups, "here", lambda: Groups(lacks="none here"))
    fault(found("cgroups", config), "control groups here: none")
    policy.write_text("executors: [bash]\nbash: {cgroups: off}")
    assert [one.state for one in found("cgroups", config)] == ["ok"]


def a_policy(folder: Path, secrets: Path) -> str:
    """The line that has the policy give away what lies in ``secrets``."""
    policy = folder / "policy.yml"
    policy.write_text(f"secrets: {{providers: {{file: {{folder: {secrets}}}}}, allow: {{'*': ['**']}}}}")
    policy.chmod(0o600)
    return f'policy = "{policy}"\n'


def test_a_folder_of_secrets_that_is_not_there_or_that_others_may_write_is_a_fault(found, tmp_path) -> None:
    config, folder = configured(tmp_path, a_policy(tmp_path, tmp_path / "secrets")), tmp_path / "secrets"
    fault(found("secret-providers", config), "secrets of file: there is no folder", f"install -d -m 0700 {folder}")
    folder.mkdir(mode=0o700)
    assert [one.state for one in found("secret-providers", config)] == ["ok"]
    folder.chmod(0o777)
    fault(found("secret-providers", config), "can be written by others than its owner")
