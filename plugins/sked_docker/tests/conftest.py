"""What the tests with a real engine share: executors of a store of their own, and a look past the executor."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from sked_core.model.types import Cluster, Container, Task, TaskDefinition
from sked_core.plugin import ExecutorContext, Policy
from sked_docker.executor import DockerExecutor
from sked_docker.policy import DockerPolicy

MakeTask = Callable[..., Task]
MakeExecutor = Callable[..., DockerExecutor]


@pytest.fixture
def api(docker_engine: None) -> Iterator[docker.APIClient]:
    """The engine itself, to see what is really there."""
    client = docker.from_env().api
    yield client
    client.close()


@pytest.fixture
def store_uid(api: docker.APIClient) -> Iterator[str]:
    """A store that no other test has; whatever its containers are, they are gone afterwards."""
    uid = uuid.uuid4().hex
    yield uid
    for row in api.containers(all=True, filters={"label": f"sked.store={uid}"}):
        api.remove_container(row["Id"], force=True, v=True)


@pytest.fixture
def make_executor(store_uid: str, tmp_path: Path) -> Iterator[MakeExecutor]:
    """Executors of that store, as separate agents would have them. Unless told otherwise they allow everything."""
    made: list[DockerExecutor] = []
    everything = Policy(sections={"docker": DockerPolicy.development()})

    def make(
        *, host: str = "host-1.local", store: str = "", policy: Policy = everything, **rest: Any
    ) -> DockerExecutor:
        state = tmp_path / "state"
        context = ExecutorContext(host=host, store_uid=store or store_uid, state_dir=state, policy=policy)
        made.append(DockerExecutor(context, **rest))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


@pytest.fixture
def executor(make_executor: MakeExecutor) -> DockerExecutor:
    return make_executor()


@pytest.fixture
def make_task(busybox_image: str) -> MakeTask:
    """A task of the given containers, each a mapping of fields of ``executor`` or a Container."""

    def make(*specs: dict[str, Any] | Container, port: int = 0, service: str = "web", **definition: Any) -> Task:
        containers = [
            spec
            if isinstance(spec, Container)
            else Container(name=f"c{index}", type="docker", executor={"image": busybox_image, **spec})
            for index, spec in enumerate(specs)
        ]
        return Task(
            cluster=Cluster(name="default"),
            task_definition=TaskDefinition(name=service, version=1, containers=containers, **definition),
            service=service,
            host="host-1.local",
            port=port,
        )

    return make
