"""Objects for tests with only what matters spelled out."""

from __future__ import annotations

from sked_core.interfaces.store import Revision
from sked_core.logic.fleet import HostView
from sked_core.logic.plan import Goal, Issued
from sked_core.model.policy import ChecksGate, Policy, SetupGate
from sked_core.model.types import Check, Cluster, Container, Health, Host, Service, Task, TaskDefinition, TaskId


def an_open_policy(*executors: str, **fields: object) -> Policy:
    """One that allows what there is no executor's section for, of the executors ``bash`` unless others are named."""
    gates: dict[str, object] = {
        "executors": list(executors or ("bash",)),
        "setup": SetupGate(allow=True, root=True),
        "checks": ChecksGate(scripts=True, root=True, targets=["*"]),
    }
    return Policy(**gates | fields)  # type: ignore[arg-type]


def a_container(name: str = "web", type: str = "bash", **fields: object) -> Container:  # noqa: A002 - the field's name
    """A container that sleeps, unless ``fields`` say otherwise."""
    return Container(name=name, type=type, **{"executor": {"start": "exec sleep 1000"}, **fields})  # type: ignore[arg-type]


def a_definition(name: str = "web", version: int = 1, **fields: object) -> TaskDefinition:
    """A task definition with one sleeping container."""
    return TaskDefinition(name=name, version=version, **{"containers": [a_container()], **fields})  # type: ignore[arg-type]


def a_service(name: str = "web", version: int = 1, desired: int = 3, **fields: object) -> Service:
    """A service with the bounds that apply would resolve."""
    bounds = {"min": desired, "max": desired + max(1, -(-desired // 4)), "task_name": name}
    return Service(name=name, task_version=version, desired=desired, **{**bounds, **fields})  # type: ignore[arg-type]


def a_cluster(name: str = "default", services: tuple[str, ...] = ("web",), hosts: list[str] | None = None) -> Cluster:
    """A cluster that lists ``services``."""
    return Cluster(name=name, services=list(services), hosts=hosts)


def a_host(name: str = "h1", **fields: object) -> HostView:
    """A living host of 8 GB, 4 cores and 100 GB with the bash executor; ``alive``, ``lost`` and ``mark`` as given."""
    state = {key: fields.pop(key) for key in ("alive", "lost", "mark") if key in fields}
    facts = {"memory": 8192, "cpu_units": 4096, "disk": 100_000, "executors": ["bash"], **fields}
    return HostView(Host(name=name, **facts), **state)  # type: ignore[arg-type]


def a_task(host: str = "h1", instance: int = 0, definition: TaskDefinition | None = None, **fields: object) -> Task:
    """An issued task of service web in cluster default."""
    record = {"cluster": a_cluster(), "service": "web", "task_definition": definition or a_definition(), **fields}
    return Task(host=host, instance=instance, **record)  # type: ignore[arg-type]


def issued(*tasks: Task) -> list[Issued]:
    """The tasks as they would stand in a store."""
    return [Issued(task, Revision(number + 1)) for number, task in enumerate(tasks)]


def a_goal(service: Service | None = None, **fields: object) -> Goal:
    """What users declared for service web in cluster default."""
    service = service or a_service()
    definition = a_definition(service.task_name, service.task_version)
    wanted = {"cluster": a_cluster(services=(service.name,)), "definition": definition, **fields}
    return Goal(service=service, **wanted)  # type: ignore[arg-type]


def healthy(*ids: TaskId) -> dict[TaskId, Health]:
    """A health report in which exactly these tasks are well."""
    return dict.fromkeys(ids, Health(True))


def a_check(**fields: str) -> Check:
    """A check, http unless another kind is given."""
    return Check(**(fields or {"http": "http://127.0.0.1:$PROVIDED_PORT"}))
