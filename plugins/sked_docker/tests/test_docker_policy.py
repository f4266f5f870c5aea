"""Policy on a real engine: what containers get, what is denied at the moment of the start, and what is held for it."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import msgspec
import pytest

from rigs.needs import missing
from rigs.policies import with_line
from sked_core.plugin import Handle, Limits, Policed, Policy, Rejected, State, Task
from sked_docker.executor import DockerExecutor
from sked_docker.policy import DockerPolicy

SLEEP = {"cmd": "sleep 1000"}


def start(executor: DockerExecutor, task: Task, **env: str) -> Handle:
    return executor.start(task, task.task_definition.containers[0], env)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)
    return value


def ours(api: docker.APIClient, store_uid: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = api.containers(all=True, filters={"label": f"sked.store={store_uid}"})
    return rows


def allowing(**gates: Any) -> Policy:
    return Policy(sections={"docker": DockerPolicy(**gates)})


def test_whoever_asks_for_nothing_starts_under_the_policy_that_allows_nothing(
    make_executor: Any, api: docker.APIClient, make_task: Any
) -> None:
    executor = make_executor(policy=Policy())
    assert isinstance(executor, Policed)
    seen = api.inspect_container(start(executor, make_task(SLEEP)).ref)
    host = seen["HostConfig"]
    assert (host["Privileged"], host["CapAdd"], host["CapDrop"]) == (False, None, ["NET_RAW"])
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["PidsLimit"], host["Memory"], host["Init"]) == (4096, 512 * 1024 * 1024, True)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert (host["Binds"], host.get("Mounts") or []) == ([], [])
    modes = {host[key] for key in ("PidMode", "UTSMode", "UsernsMode", "CgroupParent")}
    assert modes == {""}
    assert host["IpcMode"] in ("private", "shareable")
    assert host["NetworkMode"] == "default"


def test_the_kernel_holds_what_the_defaults_say(make_executor: Any, api: docker.APIClient, make_task: Any) -> None:
    script = "grep -E 'NoNewPrivs|CapBnd' /proc/self/status; exec sleep 1000"
    handle = start(make_executor(policy=Policy()), make_task({"cmd": ["sh", "-c", script]}))
    said = until(lambda: b"CapBnd" in (out := api.logs(handle.ref)) and b"NoNewPrivs" in out and out).decode().split()
    status = dict(zip(said[::2], said[1::2], strict=True))
    assert status["NoNewPrivs:"] == "1"
    assert not int(status["CapBnd:"], 16) & 1 << 13  # CAP_NET_RAW


def test_an_image_that_forks_without_end_is_stopped_at_its_limit(
    make_executor: Any, api: docker.APIClient, make_task: Any
) -> None:
    policy = Policy(limits=Limits(pids=40))
    executor = make_executor(policy=policy)
    script = "while sleep 1000 & do echo one; done"
    handle = start(executor, make_task({"cmd": ["sh", "-c", script]}))
    said = until(lambda: b"fork" in (out := api.logs(handle.ref)) and out)
    assert 0 < said.count(b"one\n") < 40
    executor.stop(handle, 0)
    assert executor.inspect([handle])[handle].state is State.ABSENT


DENIED = [
    ({"flags": ["--pid=host"]}, "docker.host_namespaces"),
    ({"flags": ["--cap-add", "SYS_ADMIN"]}, "docker.caps_add"),
    ({"flags": ["--security-opt=seccomp=unconfined"]}, "docker.security_opt"),
    ({"flags": ["--device=/dev/null"]}, "docker.devices"),
    ({"volumes": ["/usr/share:/d:ro"]}, "docker.volumes"),
    ({"flags": ["--mount=type=bind,src=/usr/share,dst=/d,ro"]}, "docker.volumes"),
    ({"flags": ["--tmpfs=/run"]}, "docker.tmpfs"),
    ({"flags": ["--ulimit=nofile=99"]}, "docker.ulimits"),
    ({"flags": ["--sysctl=net.core.somaxconn=99"]}, "docker.sysctls"),
    ({"flags": ["--init=false"]}, "docker.without_init"),
    ({"flags": ["--restart=on-failure:1"]}, "docker.engine_restarts"),
    ({"flags": ["--pids-limit=5000"]}, "limits.pids"),
    ({"flags": ["--dns=10.0.0.1"]}, "docker.flags"),
    ({"env": {"LD_PRELOAD": ""}}, "docker.env"),
]


@pytest.mark.parametrize(("spec", "gate"), DENIED, ids=lambda value: str(value)[:50])
def test_a_rejection_names_the_gate_and_its_line_lets_the_start_pass(
    make_executor: Any, api: docker.APIClient, make_task: Any, store_uid: str, spec: dict[str, Any], gate: str
) -> None:
    task, policy = make_task(SLEEP | spec), Policy()
    strict = make_executor(policy=policy)
    with pytest.raises(
        Rejected, match=rf"^policy {gate}: .*; to allow it, add `.*` to the host's policy and restart its agent$"
    ) as caught:
        start(strict, task)
    assert ours(api, store_uid) == []
    (denial,) = strict.denials(task, task.task_definition.containers[0])
    assert str(denial) == str(caught.value)
    handle = start(make_executor(policy=with_line(policy, denial.line, docker=DockerPolicy)), task)
    assert [row["Id"] for row in ours(api, store_uid)] == [handle.ref]


def test_a_rejection_tells_of_several_gates_but_not_of_all(make_executor: Any, make_task: Any) -> None:
    flags = [f"--cap-add=X{letter}" for letter in "ABCDEFG"]
    with pytest.raises(Rejected) as caught:
        start(make_executor(policy=Policy()), make_task({"flags": flags}))
    assert len(str(caught.value).splitlines()) == 6
    assert str(caught.value).endswith("\nand 2 more")


def test_a_stricter_policy_stops_nothing_that_runs_and_starts_it_no_more(
    make_executor: Any, api: docker.APIClient, make_task: Any
) -> None:
    task = make_task(SLEEP | {"flags": ["--tmpfs=/run"]})
    handle = start(make_executor(policy=allowing(tmpfs=True)), task)
    later = make_executor(policy=Policy())
    assert later.recover()[handle].state is State.RUNNING
    with pytest.raises(Rejected, match=r"docker\.tmpfs"):
        start(later, task)
    assert later.inspect([handle])[handle].state is State.RUNNING


def test_a_folder_below_an_allowed_one_is_mounted_as_it_was_when_it_was_judged(
    make_executor: Any, api: docker.APIClient, make_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    for folder, text in ((allowed / "x", "fine"), (secret, "secret")):
        folder.mkdir(parents=True)
        (folder / "f").write_text(text)
    executor = make_executor(policy=allowing(volumes=[f"{allowed}:rw"]))
    create, run = executor._create, executor._run

    def swap_and_create(wanted: Any) -> Any:
        (allowed / "x").rename(allowed / "old")
        (allowed / "x").symlink_to(secret)
        return create(wanted)

    def swap_and_run(ref: str, container: str) -> None:
        (allowed / "x").unlink()
        (allowed / "x").symlink_to("/")
        run(ref, container)

    monkeypatch.setattr(executor, "_create", swap_and_create)
    monkeypatch.setattr(executor, "_run", swap_and_run)
    script = "cat /d/f; echo; echo written >/d/g; exec sleep 1000"
    task = make_task({"cmd": ["sh", "-c", script], "volumes": [f"{allowed}/x:/d"]})
    handle = start(executor, task)
    assert until(lambda: api.logs(handle.ref)).strip() == b"fine"
    assert until(lambda: (allowed / "old" / "g").exists())
    assert not (secret / "g").exists()
    assert api.inspect_container(handle.ref)["Config"]["Labels"]["sked.path.0"] == f"{allowed}/x:/d"
    # Nothing is held any more, and the container has it all the same, also for another agent.
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    executor.close()
    assert make_executor().recover()[handle].state is State.RUNNING
    code = subprocess.run(["docker", "exec", handle.ref, "cat", "/d/f"], capture_output=True, check=True, timeout=60)
    assert code.stdout == b"fine"
    # From now on the name leads out of what is allowed.
    executor.stop(handle, 0)
    with pytest.raises(Rejected, match=r"policy docker\.volumes: .*, which leads to /,"):
        start(make_executor(policy=allowing(volumes=[f"{allowed}:rw"])), task)


def test_a_file_is_held_as_well_and_read_only_stays_read_only(
    make_executor: Any, api: docker.APIClient, make_task: Any, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("fine")
    executor = make_executor(policy=allowing(volumes=[str(tmp_path)]))
    script = "cat /f; echo; echo x >/f; exec sleep 1000"
    handle = start(executor, make_task({"cmd": ["sh", "-c", script], "volumes": [f"{tmp_path}/f:/f:ro"]}))
    said = until(lambda: b"read-only" in (out := api.logs(handle.ref).lower()) and out)
    assert b"fine" in said
    assert (tmp_path / "f").read_text() == "fine"
    with pytest.raises(Rejected, match="for writing"):
        start(executor, make_task({"volumes": [f"{tmp_path}/f:/f"]}, service="other"))


@pytest.fixture
def folder_with_more_mounted_below(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        missing("root", "only root can mount")
    folder = tmp_path / "data"
    (folder / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "sked-test", str(folder / "below")], check=True)
    (folder / "below" / "kept").touch()
    yield folder
    subprocess.run(["umount", str(folder / "below")], check=True)


@pytest.mark.parametrize("form", ["volume", "mount", "named", "old kernel"])
def test_what_is_mounted_below_a_read_only_path_is_read_only_as_well(
    make_executor: Any,
    api: docker.APIClient,
    make_task: Any,
    folder_with_more_mounted_below: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    """``named``: as where nothing can be held. Then, and on kernels before 5.12, it is not there at all."""
    folder = folder_with_more_mounted_below
    executor = make_executor(policy=allowing(volumes=[str(folder)]))
    if form == "named":
        executor._can_hold = False
    if form == "old kernel":
        monkeypatch.setattr("sked_docker.paths._write_protected", lambda _: False)
    spec = {"volumes": [f"{folder}:/d:ro"]}
    if form == "mount":
        spec = {"flags": [f"--mount=type=bind,src={folder},dst=/d,readonly"]}
    script = "echo x >/d/below/new || echo refused; ls /d/below; rm -f /d/below/kept"
    handle = start(executor, make_task(spec | {"cmd": ["sh", "-c", script]}))
    api.wait(handle.ref, timeout=120)
    said = api.logs(handle.ref).decode().split()
    assert "refused" in said
    assert ("kept" in said) is (form in ("volume", "mount"))
    assert [path.name for path in (folder / "below").iterdir()] == ["kept"]


@pytest.mark.parametrize("form", ["volumes", "flags"])
def test_a_path_that_is_missing_is_refused_and_not_made(
    make_executor: Any, make_task: Any, tmp_path: Path, form: str
) -> None:
    spec = {"volumes": {form: [f"{tmp_path}/none:/d"]}, "flags": {form: [f"-v{tmp_path}/none:/d"]}}[form]
    with pytest.raises(Rejected, match=r"host path .*/none does not exist"):
        start(make_executor(policy=allowing(volumes=[f"{tmp_path}:rw"])), make_task(SLEEP | spec))
    assert not (tmp_path / "none").exists()


def test_an_engine_that_does_not_see_what_is_held_gets_only_what_is_named(
    make_executor: Any, api: docker.APIClient, make_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the engine's mounts can't be joined: to it there is nothing at the place."""
    monkeypatch.setattr("sked_docker.paths.Place.mount", lambda place, *_, **__: f"{place.folder}/1")
    (tmp_path / "x").mkdir()
    task = make_task(SLEEP | {"volumes": [f"{tmp_path}/x:/d"]})
    below, named = (make_executor(policy=allowing(volumes=[entry])) for entry in (f"{tmp_path}:rw", f"{tmp_path}/x:rw"))
    with pytest.raises(Rejected, match="can't be held"):
        start(below, task)
    handle = start(named, task)
    (mount,) = api.inspect_container(handle.ref)["Mounts"]
    assert (mount["Source"], mount["RW"]) == (f"{tmp_path}/x", True)


def test_host_paths_are_refused_where_the_engine_is_on_another_machine(
    make_executor: Any, make_task: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    executor = make_executor(policy=allowing(volumes=[f"{tmp_path}:rw"]))
    monkeypatch.setattr(executor._engine, "shares_our_files", lambda: False)
    with pytest.raises(Rejected, match="runs on another machine"):
        start(executor, make_task(SLEEP | {"volumes": [f"{tmp_path}:/d"]}))


def test_a_named_volume_that_stands_for_a_folder_of_the_host_is_denied(
    make_executor: Any, api: docker.APIClient, make_task: Any, store_uid: str, tmp_path: Path
) -> None:
    disguised, plain = f"sked-test-{store_uid}-a", f"sked-test-{store_uid}-b"
    options = {"type": "none", "o": "bind", "device": str(tmp_path)}
    api.create_volume(disguised, driver="local", driver_opts=options)
    try:
        executor = make_executor(policy=allowing(named_volumes=True))
        for spec in ({"volumes": [f"{disguised}:/d"]}, {"flags": [f"--mount=src={disguised},dst=/d"]}):
            with pytest.raises(Rejected, match=r"policy docker\.volume_options: .*made with options"):
                start(executor, make_task(SLEEP | spec))
        handle = start(executor, make_task(SLEEP | {"volumes": [f"{plain}:/d"]}))
        executor.stop(handle, 0)
        allowed = make_executor(policy=allowing(named_volumes=True, volume_options=True))
        executor.stop(start(allowed, make_task(SLEEP | {"volumes": [f"{disguised}:/d"]})), 0)
    finally:
        for name in (disguised, plain):
            api.remove_volume(name)


def test_no_part_of_an_images_id_goes_past_the_registries(
    make_executor: Any, make_task: Any, api: docker.APIClient, busybox_image: str
) -> None:
    """The engine takes each of them for the image that it has, wherever that is from."""
    digits = api.inspect_image(busybox_image)["Id"].removeprefix("sha256:")
    executor = make_executor(policy=allowing(registries=["docker.io"]))
    for part in (digits, digits[:12], digits[:1]):
        for image in (part, f"sha256:{part}"):
            task = make_task({"image": image, "cmd": "true"})
            assert [one.gate for one in executor.denials(task, task.task_definition.containers[0])] == [
                "docker.registries"
            ], image
            with pytest.raises(Rejected, match=r"docker\.registries"):
                start(executor, task)


def test_variables_are_not_seen_in_any_denial(make_executor: Any, make_task: Any) -> None:
    with pytest.raises(Rejected) as caught:
        start(make_executor(policy=Policy()), make_task(SLEEP), LD_PRELOAD="/canary")
    assert "LD_PRELOAD" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("policy", [Policy(), Policy(sections={"docker": DockerPolicy.development()})])
def test_an_ordinary_service_needs_no_gate(
    make_executor: Any, api: docker.APIClient, make_task: Any, policy: Policy, free_port: Callable[[], int]
) -> None:
    port = free_port()
    spec = {
        "entry": "/bin/env A=1",
        "cmd": "httpd -f -p 80",
        "container_port": 80,
        "env": {"LANG": "C.UTF-8"},
        "work_dir": "/tmp",
        "name": "web",
        "flags": [
            "--read-only",
            "--user=0:0",
            "--hostname=web",
            "--shm-size=8m",
            "--stop-signal=SIGINT",
            "--label=a=b",
        ],
    }
    handle = start(make_executor(policy=policy), make_task(spec, port=port), PROVIDED_PORT=str(port))
    host = api.inspect_container(handle.ref)["HostConfig"]
    assert host["PortBindings"]["80/tcp"][0]["HostPort"] == str(port)
    assert host["Memory"] == 512 * 1024 * 1024


def test_each_gate_of_the_development_policy_is_open() -> None:
    shut, opened = msgspec.structs.asdict(DockerPolicy()), msgspec.structs.asdict(DockerPolicy.development())
    only_narrow = {"require_digest", "env_deny"}
    assert {name for name, value in shut.items() if opened[name] == value} == only_narrow | {"registries"}
    assert DockerPolicy().registries == ["*"]


@pytest.mark.parametrize("entry", ["**", "docker.io/*", "*.example.com"])
def test_a_registry_that_no_image_can_be_from_is_a_mistake_of_the_policy(entry: str) -> None:
    assert DockerPolicy(registries=["*", "docker.io/team"])
    with pytest.raises(ValueError, match="stands alone"):
        DockerPolicy(registries=[entry])
