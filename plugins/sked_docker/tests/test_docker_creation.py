"""The body of the create call, as data. No engine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sked_core.model.types import Cluster, Container, Task, TaskDefinition
from sked_core.plugin import ExecutorContext, Limits, Policy, digest
from sked_docker.creation import Creation, creation
from sked_docker.spec import parse

CONTEXT = ExecutorContext(host="host-1.local", store_uid="uid-1", state_dir=Path("/nonexistent"))


def _create(
    *containers: Container,
    port: int = 0,
    env: dict[str, str] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - it can't be changed
    **definition: Any,
) -> Creation:
    task = _task(*containers, port=port, **definition)
    context = replace(CONTEXT, policy=Policy(limits=limits))
    return creation(context, task, containers[0], spec=parse(containers[0].executor), env=env or {})


def _task(*containers: Container, port: int = 0, **definition: Any) -> Task:
    return Task(
        cluster=Cluster(name="default"),
        task_definition=TaskDefinition(name="web", version=3, containers=list(containers), **definition),
        service="web",
        host="host-1.local",
        port=port,
    )


def _container(called: str = "main", /, *, memory: int = 0, cpu_units: int = 0, **executor: Any) -> Container:
    spec = {"image": "hello", **executor}
    return Container(name=called, type="docker", memory=memory, cpu_units=cpu_units, executor=spec)


def test_labels_and_name_mark_the_container_as_ours() -> None:
    made = _create(_container("main"))
    assert made.name.startswith("default-web-3-0.main.")
    assert len(made.name.rpartition(".")[2]) == 8
    assert made.body["Labels"] == {
        "sked.store": "uid-1",
        "sked.host": "host-1.local",
        "sked.task": "default-web-3-0",
        "sked.container": "main",
        "sked.digest": digest(_task(_container("main"))),
    }


def test_every_container_of_a_task_has_a_name_of_its_own_whatever_its_alias() -> None:
    first, second = _container("a", name="x"), _container("b", name="x")
    names = {_create(first, second).name, _create(second, first).name}
    assert len(names) == 2


def test_fields_reach_the_body() -> None:
    made = _create(
        _container(
            cmd="serve --now",
            entry=["/bin/app"],
            container_port=80,
            ports=["127.0.0.1:53:53/udp"],
            env={"A": 1, "PORT": "9"},
            work_dir="/srv",
            volumes=["data:/data:ro"],
            name="alias",
        ),
        port=20_000,
        env={"PROVIDED_PORT": "20000", "PORT": "20000"},
    ).body
    assert (made["Cmd"], made["Entrypoint"], made["WorkingDir"]) == (["serve", "--now"], ["/bin/app"], "/srv")
    assert made["Env"] == ["PROVIDED_PORT=20000", "PORT=9", "A=1"]
    assert made["HostConfig"]["Binds"] == ["data:/data:ro"]
    assert made["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "20000"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
    }
    assert made["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert made["Labels"]["sked.name"] == "alias"
    assert "NetworkingConfig" not in made


def test_the_images_own_command_stays_where_none_is_given() -> None:
    assert not {"Cmd", "Entrypoint", "WorkingDir"} & _create(_container(cmd="", entry=[], work_dir="")).body.keys()


def test_limits() -> None:
    limits = _create(_container(memory=64, cpu_units=512)).body["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"]) == (64 * 1024 * 1024, 500_000_000)
    alone = _create(_container(), memory=32, cpu_units=2048).body["HostConfig"]
    assert (alone["Memory"], alone["NanoCpus"]) == (32 * 1024 * 1024, 2_000_000_000)
    own = _create(_container(memory=16), memory=32).body["HostConfig"]
    assert own["Memory"] == 16 * 1024 * 1024
    one_of_two = _create(_container("a"), _container("b"), memory=32, cpu_units=2048).body["HostConfig"]
    assert one_of_two["Memory"] == 32 * 1024 * 1024
    assert "NanoCpus" not in one_of_two


def test_who_asks_for_nothing_gets_the_default_and_who_asks_for_no_bound_as_well() -> None:
    for nothing in (_container(), _container(flags=["--memory=0"])):
        assert _create(nothing).body["HostConfig"]["Memory"] == 512 * 1024 * 1024
    limits = Limits(default_memory=512, max_memory=100, max_cpu_units=2048, pids=50, log_size=1, log_files=2)
    host = _create(_container(), limits=limits).body["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (100 * 1024 * 1024, 2 * 10**9, 50)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    unlimited = Limits(default_memory=0, max_memory=0)
    assert "Memory" not in _create(_container(), limits=unlimited).body["HostConfig"]
    quota = _create(_container(flags=["--cpu-quota=1000"]), limits=limits).body["HostConfig"]
    assert "NanoCpus" not in quota


def test_safe_defaults_and_how_flags_lift_them() -> None:
    host = _create(_container()).body["HostConfig"]
    assert (host["CapDrop"], host["SecurityOpt"], host["Init"], host["PidsLimit"]) == (
        ["NET_RAW"],
        ["no-new-privileges"],
        True,
        4096,
    )
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert "RestartPolicy" not in host
    flags = ["--cap-add NET_RAW", "--security-opt no-new-privileges=false", "--init=false", "--pids-limit=10"]
    lifted = _create(_container(flags=[*flags, "--log-opt max-size=1m"])).body["HostConfig"]
    assert "CapDrop" not in lifted
    assert (lifted["SecurityOpt"], lifted["Init"], lifted["PidsLimit"]) == (["no-new-privileges=false"], False, 10)
    assert lifted["LogConfig"]["Config"] == {"max-size": "1m", "max-file": "3"}
    all_lifted = _create(_container(flags=["--privileged", "--log-driver=none"])).body["HostConfig"]
    assert not {"CapDrop", "SecurityOpt"} & all_lifted.keys()
    assert all_lifted["LogConfig"] == {"Type": "none", "Config": {}}


def test_flags_are_gathered_and_win_over_fields() -> None:
    flags = ["-e A=2", "-v", "/x:/y", "-p 81:80", "--label=a=1", "--label", "b=2", "-m 1g", "-w /w", "--entrypoint=/e"]
    flags += ["--platform=linux/amd64", "--security-opt=systempaths=unconfined", "--health-retries=2"]
    made = _create(
        _container(flags=flags, env=["A=1"], volumes=["v:/v"], container_port=80, work_dir="/old", memory=5), port=8
    )
    body, host = made.body, made.body["HostConfig"]
    assert body["Env"] == ["A=2"]
    assert host["Binds"] == ["v:/v", "/x:/y"]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8"}, {"HostIp": "", "HostPort": "81"}]}
    assert (body["Labels"]["a"], body["Labels"]["b"]) == ("1", "2")
    assert (host["Memory"], body["WorkingDir"], body["Entrypoint"]) == (1024**3, "/w", ["/e"])
    assert made.query == {"platform": "linux/amd64"}
    assert "Platform" not in body
    assert (host["SecurityOpt"], host["MaskedPaths"], host["ReadonlyPaths"]) == (["no-new-privileges"], [], [])
    assert body["Healthcheck"] == {"Retries": 2}


def test_an_alias_and_an_address_belong_to_the_network_that_is_joined() -> None:
    body = _create(_container(name="db", flags=["--net=back", "--net-alias=db2", "--ip=172.30.0.4"])).body
    assert body["HostConfig"]["NetworkMode"] == "back"
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "back": {"Aliases": ["db2", "db"], "IPAMConfig": {"IPv4Address": "172.30.0.4"}}
    }
    assert "NetworkingConfig" not in _create(_container(name="db", flags=["--net=host"])).body
