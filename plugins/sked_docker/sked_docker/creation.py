"""From a task's container to the body of the engine's create call. Pure: no engine is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sked_core.plugin import Container, ExecutorContext, Limits, Task, TaskId, digest
from sked_docker.flags import Gather, Setting, binding
from sked_docker.spec import Spec

STORE, HOST, TASK, CONTAINER, DIGEST, ALIAS, START = (
    f"sked.{part}" for part in ("store", "host", "task", "container", "digest", "name", "start")
)
"""Labels that mark a container as Sked's own. They are the truth about what runs; names are only locks."""

LOG_DRIVER = "json-file"
_MB = 1024 * 1024
_SPECIAL_NETWORKS = ("", "default", "bridge", "host", "none")


@dataclass(frozen=True, slots=True)
class Creation:
    """One create call: the container's name, its image's, the query and the body, and the task's digest."""

    name: str
    image: str
    digest: str
    query: dict[str, str]
    body: dict[str, Any]


def container_name(context: ExecutorContext, task_id: TaskId, container: str) -> str:
    """The engine's name for a container: the same at every start, so that the engine lets only one exist.

    The hash keeps the agents of several hosts or stores apart that share one engine.
    """
    owner = hashlib.sha256(f"{context.store_uid}\n{context.host}".encode()).hexdigest()[:8]
    return f"{task_id}.{container}.{owner}"


def creation(
    context: ExecutorContext, task: Task, container: Container, *, spec: Spec, env: Mapping[str, str]
) -> Creation:
    """The call that creates ``container`` of ``task``. ``env`` is the agent's; the spec's own goes over it.

    The image's variables stay: the engine adds ours to them, so PATH is never lost.
    """
    task_digest = digest(task)
    labels = {
        STORE: context.store_uid,
        HOST: context.host,
        TASK: task.id,
        CONTAINER: container.name,
        DIGEST: task_digest,
    }
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": {**env, **spec.variables},
        "Labels": labels | ({ALIAS: spec.name} if spec.name else {}),
        "ExposedPorts": {},
        "HostConfig": {
            "Init": True,  # a first process that ignores SIGTERM or reaps nobody would make every stop a kill
            "PidsLimit": context.policy.limits.pids,  # far more than a service needs, far fewer than a fork bomb
            "Binds": list(spec.volumes or ()),
            "PortBindings": _bindings(task, spec),
            **_asked(task, container),
        },
    }
    said = {"Cmd": spec.command, "Entrypoint": spec.entry_point, "WorkingDir": spec.work_dir}
    body |= {key: value for key, value in said.items() if value}
    _apply(body, spec.settings)
    return Creation(
        name=container_name(context, task.id, container.name),
        image=spec.image,
        digest=task_digest,
        query={"platform": body.pop("Platform")} if "Platform" in body else {},
        body=_finished(body, alias=spec.name or "", limits=context.policy.limits),
    )


def _bindings(task: Task, spec: Spec) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    if spec.container_port and task.port:
        bindings[f"{spec.container_port}/tcp"] = [{"HostIp": "", "HostPort": str(task.port)}]
    for port in spec.published:
        for name, ends in binding(port).items():
            bindings.setdefault(name, []).extend(ends)
    return bindings


def _asked(task: Task, container: Container) -> dict[str, int]:
    """Memory in bytes and cpu in billionths of a core. The task's own limit of memory holds for each container that
    has none, since no one of them can have more; that of cpu only for a container that is alone."""
    definition = task.task_definition
    memory = container.memory or definition.memory
    cpu_units = container.cpu_units or (definition.cpu_units if len(definition.containers) == 1 else 0)
    limits = {"Memory": memory * _MB, "NanoCpus": cpu_units * 10**9 // 1024}
    return {name: limit for name, limit in limits.items() if limit}


def _limit(host: dict[str, Any], limits: Limits) -> None:
    """Give what asked for no memory, or for no bound of it, the default; and a bound of cpu where the host has one."""
    if not host.get("Memory"):
        most = limits.max_memory
        memory = min(limits.default_memory or most, most) if most else limits.default_memory
        host |= {"Memory": memory * _MB} if memory else {}
    if limits.max_cpu_units and not any(host.get(key, 0) > 0 for key in ("NanoCpus", "CpuQuota")):
        host["NanoCpus"] = limits.max_cpu_units * 10**9 // 1024


def _apply(body: dict[str, Any], settings: Iterable[Setting]) -> None:
    """Set what the flags say; they go last, since nobody writes one by accident."""
    for setting in settings:
        *path, last = setting.flag.target.split(".")
        place = body
        for key in path:
            place = place.setdefault(key, {})
        match setting.flag.gather:
            case Gather.SET:
                place[last] = setting.value
            case Gather.ADD:
                place.setdefault(last, []).append(setting.value)
            case Gather.MERGE:
                held = place.setdefault(last, {})
                for name, value in setting.value.items():
                    held[name] = held.get(name, []) + value if isinstance(value, list) else value


def _finished(body: dict[str, Any], *, alias: str, limits: Limits) -> dict[str, Any]:
    """The body with what depends on several fields: variables as a list, safe defaults, capped logs, the network."""
    host = body["HostConfig"]
    body["Env"] = [f"{name}={value}" for name, value in body["Env"].items()]
    body["ExposedPorts"] |= {port: {} for port in host["PortBindings"]}
    host["LogConfig"] = _logging(host.get("LogConfig", {}), limits)
    _limit(host, limits)
    if not host.get("Privileged"):
        _harden(host)
    if "systempaths=unconfined" in host.get("SecurityOpt", ()):
        host["SecurityOpt"].remove("systempaths=unconfined")
        host |= {"MaskedPaths": [], "ReadonlyPaths": []}
    endpoint = body.pop("Endpoint", {})
    network = host.get("NetworkMode", "")
    if alias and network not in _SPECIAL_NETWORKS and not network.startswith("container:"):
        endpoint.setdefault("Aliases", []).append(alias)
    if endpoint:
        body["NetworkingConfig"] = {"EndpointsConfig": {network or "bridge": endpoint}}
    return body


def _logging(flagged: dict[str, Any], limits: Limits) -> dict[str, Any]:
    driver, options = flagged.get("Type", LOG_DRIVER), flagged.get("Config", {})
    if driver in (LOG_DRIVER, "local"):
        options = {"max-size": f"{limits.log_size}m", "max-file": str(limits.log_files)} | options
    return {"Type": driver, "Config": options}


def _harden(host: dict[str, Any]) -> None:
    """No raw sockets and no gain of rights through setuid files, unless a flag asks for either."""
    if not {"NET_RAW", "ALL"} & set(host.get("CapAdd", ())):
        host.setdefault("CapDrop", []).append("NET_RAW")
    options = host.setdefault("SecurityOpt", [])
    if not any(option.startswith("no-new-privileges") for option in options):
        options.append("no-new-privileges")
