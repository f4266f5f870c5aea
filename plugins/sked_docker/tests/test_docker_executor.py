"""The executor on a real engine."""

import socket
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import pytest

from sked_core.model.types import Container, Task
from sked_core.plugin import ExecutorError, Handle, Rejected, State, digest
from sked_docker.executor import DockerExecutor

SLEEP = {"cmd": "sleep 1000"}
IGNORES_TERM = {"cmd": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "flags": ["--init=false"]}
FLAGS = [
    "--cap-add NET_ADMIN",
    "--add-host=db:10.1.2.3",
    "--read-only",
    "--ulimit=nofile=100:200",
    "--hostname",
    "web.test",
    "--tmpfs=/run:size=1m",
    "--restart=on-failure:2",
    "--sysctl=net.core.somaxconn=99",
    "--shm-size=8m",
    "--oom-score-adj=100",
    "--label=team=a",
    "--stop-signal=SIGINT",
    "--group-add=0",
    "--dns=10.9.9.9",
    "--mount=type=tmpfs,dst=/scratch",
    "--user=0:0",
    "--cpu-shares=100",
    "--health-cmd=true",
]


def start(executor: DockerExecutor, task: Task, index: int = 0, **env: str) -> Handle:
    return executor.start(task, task.task_definition.containers[index], env)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)
    return value


def ours(api: docker.APIClient, store_uid: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = api.containers(all=True, filters={"label": f"sked.store={store_uid}"})
    return rows


def test_every_field_reaches_the_engine(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, busybox_image: str, free_port: Callable[[], int]
) -> None:
    fixed, provided = free_port(), free_port()
    spec = {
        "image": busybox_image,
        "entry": "/bin/env FROM_ENTRY=1",
        "cmd": "httpd -f -p 80 -h /etc",
        "container_port": 80,
        "ports": [f"127.0.0.1:{fixed}:81/udp"],
        "env": {"OWN": "x y"},
        "work_dir": "/www",
        "volumes": ["/usr/share:/share:ro"],
        "name": "alias",
        "flags": FLAGS,
    }
    container = Container(name="main", type="docker", executor=spec, memory=64, cpu_units=512)
    handle = start(executor, make_task(container, port=provided), PROVIDED_PORT=str(provided))
    seen = api.inspect_container(handle.ref)
    config, host = seen["Config"], seen["HostConfig"]
    assert config["Image"] == busybox_image
    assert (config["Entrypoint"], config["Cmd"]) == (
        ["/bin/env", "FROM_ENTRY=1"],
        ["httpd", "-f", "-p", "80", "-h", "/etc"],
    )
    assert {"OWN=x y", f"PROVIDED_PORT={provided}", "PATH=/bin"} <= set(config["Env"])
    assert (config["WorkingDir"], config["Hostname"], config["StopSignal"]) == ("/www", "web.test", "SIGINT")
    assert (config["Labels"]["sked.name"], config["Labels"]["team"], config["User"]) == ("alias", "a", "0:0")
    assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": str(provided)}],
        "81/udp": [{"HostIp": "127.0.0.1", "HostPort": str(fixed)}],
    }
    assert host["Binds"] == ["/usr/share:/share:ro"]
    assert (host["Memory"], host["NanoCpus"], host["CpuShares"]) == (64 * 1024 * 1024, 500_000_000, 100)
    assert (host["CapAdd"], host["CapDrop"], host["SecurityOpt"]) == (["NET_ADMIN"], ["NET_RAW"], ["no-new-privileges"])
    assert (host["Init"], host["PidsLimit"], host["ReadonlyRootfs"]) == (True, 4096, True)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert (host["ExtraHosts"], host["Dns"], host["GroupAdd"]) == (["db:10.1.2.3"], ["10.9.9.9"], ["0"])
    assert (host["Tmpfs"], host["Sysctls"]) == ({"/run": "size=1m"}, {"net.core.somaxconn": "99"})
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert (host["ShmSize"], host["OomScoreAdj"]) == (8 * 1024 * 1024, 100)
    assert [mount["Target"] for mount in host["Mounts"]] == ["/scratch"]
    local = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def served() -> bytes:
        try:
            with local.open(f"http://127.0.0.1:{provided}/passwd", timeout=2) as answer:
                return bytes(answer.read())
        except OSError:
            return b""

    assert until(served).startswith(b"root:")


def test_cmd_and_env_reach_the_process_and_the_images_path_stays(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any
) -> None:
    script = 'echo "$OWN $PROVIDED_PORT $PATH $(wc -c </proc/1/environ)" && exec sleep 1000'
    handle = start(executor, make_task({"cmd": ["sh", "-c", script], "env": ["OWN=a b"]}), PROVIDED_PORT="20000")
    line = until(lambda: api.logs(handle.ref)).decode().split()
    assert line[:4] == ["a", "b", "20000", "/bin"]


def test_start_is_idempotent_and_a_second_agent_adopts(
    make_executor: Any, api: docker.APIClient, make_task: Any, store_uid: str
) -> None:
    task = make_task(SLEEP)
    first, second = make_executor(), make_executor()
    handle = start(first, task)
    assert handle.digest == digest(task)
    started = api.inspect_container(handle.ref)["State"]["StartedAt"]
    assert start(first, task) == handle
    first.close()
    assert list(second.recover()) == [handle]
    assert second.recover()[handle].state is State.RUNNING
    assert start(second, task) == handle
    assert second.inspect([handle])[handle].state is State.RUNNING
    assert api.inspect_container(handle.ref)["State"]["StartedAt"] == started
    assert len(ours(api, store_uid)) == 1


def test_many_starts_of_one_task_at_once_make_one_container(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str
) -> None:
    task = make_task(SLEEP)
    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda _: start(executor, task), range(8)))
    assert len(set(handles)) == 1
    assert [row["State"] for row in ours(api, store_uid)] == ["running"]


def test_what_runs_under_another_definition_is_handed_back_as_that(executor: DockerExecutor, make_task: Any) -> None:
    old, new = make_task(SLEEP), make_task({"cmd": "sleep 2000"})
    handle = start(executor, old)
    assert start(executor, new) == handle
    assert handle.digest == digest(old) != digest(new)


def test_a_dead_container_is_replaced(executor: DockerExecutor, api: docker.APIClient, make_task: Any) -> None:
    task = make_task(SLEEP)
    first = start(executor, task)
    api.kill(first.ref)
    until(lambda: executor.inspect([first])[first].state is State.EXITED)
    second = start(executor, task)
    assert second.ref != first.ref
    seen = executor.inspect([first, second])
    assert (seen[first].state, seen[second].state) == (State.ABSENT, State.RUNNING)


def test_a_container_that_was_created_but_never_started_is_reported_and_replaced(
    make_executor: Any, api: docker.APIClient, make_task: Any, monkeypatch: pytest.MonkeyPatch, store_uid: str
) -> None:
    class Killed(BaseException):
        """Stands for the agent's end between two calls."""

    def end(*_: object) -> None:
        raise Killed

    task, dying = make_task(SLEEP), make_executor()
    monkeypatch.setattr(dying, "_run", end)
    with pytest.raises(Killed):
        start(dying, task)
    (left,) = ours(api, store_uid)
    assert left["State"] == "created"
    successor = make_executor()
    ((handle, seen),) = successor.recover().items()
    assert (handle.ref, seen.state, seen.detail) == (left["Id"], State.EXITED, "created but never started")
    started = start(successor, task)
    assert [(row["Id"], row["State"]) for row in ours(api, store_uid)] == [(started.ref, "running")]


def test_a_start_that_is_under_way_is_not_reported_as_left_behind(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    run = executor._run

    def look_first(ref: str, container: str) -> None:
        seen.append(executor.recover())
        run(ref, container)

    monkeypatch.setattr(executor, "_run", look_first)
    handle = start(executor, make_task(SLEEP))
    assert seen == [{}]
    assert list(executor.recover()) == [handle]


def test_how_a_container_ended(executor: DockerExecutor, api: docker.APIClient, make_task: Any) -> None:
    def ended(handle: Handle) -> Any:
        return until(lambda: (seen := executor.inspect([handle])[handle]).state is State.EXITED and seen)

    quick = start(executor, make_task({"cmd": "sh -c 'exit 3'"}, service="a"))
    assert (ended(quick).exit_code, ended(quick).detail) == (3, "exit 3")
    killed = start(executor, make_task(SLEEP, service="b"))
    api.kill(killed.ref)
    assert (ended(killed).exit_code, ended(killed).detail) == (137, "killed by signal 9")
    hungry = {"cmd": ["sh", "-c", "tail /dev/zero"], "flags": ["--memory-swap=8m"]}
    greedy = start(executor, make_task(hungry, service="c", memory=8))
    assert ended(greedy).detail == "out of memory"


def test_stop_ends_what_ignores_sigterm_and_is_idempotent(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str
) -> None:
    stubborn = start(executor, make_task(IGNORES_TERM))
    begun = time.monotonic()
    executor.stop(stubborn, 1)
    assert 0.9 < time.monotonic() - begun < 40
    assert ours(api, store_uid) == []
    assert executor.inspect([stubborn])[stubborn].state is State.ABSENT
    executor.stop(stubborn, 1)
    executor.stop(stubborn, 0)


def test_stop_lets_a_process_that_heeds_sigterm_end_by_itself(executor: DockerExecutor, make_task: Any) -> None:
    polite = start(executor, make_task(SLEEP))
    begun = time.monotonic()
    executor.stop(polite, 60)
    assert time.monotonic() - begun < 40


def test_stops_of_one_container_at_once_all_return_when_it_is_gone(executor: DockerExecutor, make_task: Any) -> None:
    handle = start(executor, make_task(SLEEP))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda grace: executor.stop(handle, grace), [0, 5, 0, 5]))
    assert executor.inspect([handle])[handle].state is State.ABSENT


def test_anonymous_volumes_go_with_their_container_and_named_ones_stay(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str
) -> None:
    named = f"sked-test-{store_uid}"
    handle = start(executor, make_task(SLEEP | {"volumes": [f"{named}:/n"], "flags": ["--mount=type=volume,dst=/a"]}))
    volumes = {mount["Destination"]: mount["Name"] for mount in api.inspect_container(handle.ref)["Mounts"]}
    executor.stop(handle, 0)
    left = {volume["Name"] for volume in api.volumes()["Volumes"] or ()}
    api.remove_volume(named)
    assert volumes["/n"] in left
    assert volumes["/a"] not in left


def test_two_containers_of_one_task_both_live_even_with_one_alias(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any
) -> None:
    task = make_task(SLEEP | {"name": "same"}, SLEEP | {"name": "same"})
    handles = [start(executor, task, 0), start(executor, task, 1)]
    assert [seen.state for seen in executor.inspect(handles).values()] == [State.RUNNING, State.RUNNING]
    executor.stop(handles[0], 0)
    assert executor.inspect(handles)[handles[1]].state is State.RUNNING


def test_an_alias_leads_to_the_container_in_its_network(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str
) -> None:
    network = api.create_network(f"sked-test-{store_uid[:12]}")["Id"]
    try:
        handle = start(executor, make_task(SLEEP | {"name": "db", "flags": [f"--net=sked-test-{store_uid[:12]}"]}))
        (endpoint,) = api.inspect_container(handle.ref)["NetworkSettings"]["Networks"].values()
        assert "db" in endpoint["Aliases"]
        executor.stop(handle, 0)
    finally:
        api.remove_network(network)


def test_a_taken_port_is_a_rejection_that_names_it_and_leaves_nothing(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str, free_port: Callable[[], int]
) -> None:
    port = free_port()
    holder = start(executor, make_task(SLEEP | {"container_port": 80}, port=port, service="holder"))
    with pytest.raises(Rejected, match=f"port {port} is already in use"):
        start(executor, make_task(SLEEP | {"container_port": 80}, port=port, service="late"))
    assert [row["Id"] for row in ours(api, store_uid)] == [holder.ref]


def test_a_port_held_by_a_process_of_the_host_is_a_rejection_that_names_it(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("0.0.0.0", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(Rejected, match=f"port {port} is already in use"):
            start(executor, make_task(SLEEP | {"container_port": 80}, port=port))
    assert ours(api, store_uid) == []


def test_a_stranger_with_the_name_is_left_alone(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, busybox_image: str
) -> None:
    task = make_task(SLEEP)
    handle = start(executor, task)
    name = api.inspect_container(handle.ref)["Name"].lstrip("/")
    executor.stop(handle, 0)
    stranger = api.create_container(busybox_image, ["true"], name=name, labels={"sked.store": "another"})["Id"]
    try:
        with pytest.raises(Rejected, match="that Sked did not create"):
            start(executor, task)
        assert executor.recover() == {}
        assert api.inspect_container(stranger)["State"]["Status"] == "created"
    finally:
        api.remove_container(stranger)


def test_containers_of_other_hosts_and_stores_are_not_ours(make_executor: Any, make_task: Any, store_uid: str) -> None:
    task = make_task(SLEEP)
    here, elsewhere, other_store = make_executor(), make_executor(host="host-2.local"), make_executor(store="other")
    handles = [start(executor, task) for executor in (here, elsewhere, other_store)]
    assert len({handle.ref for handle in handles}) == 3
    for executor, handle in zip((here, elsewhere, other_store), handles, strict=True):
        assert list(executor.recover()) == [handle]
    here.stop(handles[0], 0)
    assert elsewhere.inspect(handles[1:2])[handles[1]].state is State.RUNNING
    other_store.stop(handles[2], 0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"image": "registry.invalid/no/such:1"}, "can't be pulled"),
        ({"entry": "/no/such/program", "flags": ["--init=false"]}, "no such file"),
        ({"flags": ["--net=sked-no-such-network"]}, "sked-no-such-network"),
        ({"flags": ["--net=container:sked-no-such-container"]}, "sked-no-such-container"),
        ({"flags": ["--memory=1m"]}, "memory"),
        ({"flags": ["--runtime=none-such"]}, "none-such"),
    ],
)
def test_what_can_never_start_here_is_a_permanent_error_that_leaves_nothing(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str, spec: dict[str, Any], words: str
) -> None:
    with pytest.raises(ExecutorError) as caught:
        start(executor, make_task(SLEEP | spec))
    assert caught.value.permanent
    assert words in str(caught.value).lower()
    assert ours(api, store_uid) == []


def test_a_spec_that_came_past_validation_is_rejected(executor: DockerExecutor, make_task: Any) -> None:
    with pytest.raises(Rejected, match=r"container c0: flags\[0\]: --name can't be used"):
        start(executor, make_task(SLEEP | {"flags": ["--name=x"]}))


def test_watch_tells_of_a_kill_and_of_a_removal(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any
) -> None:
    calls: list[int] = []
    handle = start(executor, make_task(SLEEP))
    executor.watch(lambda: calls.append(1))
    until(lambda: calls)
    for act in (api.kill, api.remove_container):
        before = len(calls)
        act(handle.ref)
        until(lambda before=before: len(calls) > before)
    executor.close()
    watcher = executor._watcher
    assert watcher is not None
    assert not watcher.is_alive()


def test_watch_is_silent_about_strangers(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, busybox_image: str
) -> None:
    calls: list[int] = []
    mine = start(executor, make_task(SLEEP))
    executor.watch(lambda: calls.append(1))
    until(lambda: calls)
    stranger = api.create_container(busybox_image, ["true"])["Id"]
    api.start(stranger)
    api.wait(stranger)
    api.remove_container(stranger)
    api.kill(mine.ref)
    until(lambda: len(calls) > 1)
    assert calls == [1, 1]  # once for listening, once for the kill; events arrive in order
