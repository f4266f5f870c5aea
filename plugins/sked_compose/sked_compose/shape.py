"""What stands in a compose file, field by field: of what type it is, and what becomes of it.

A field of a service is an option of ``docker run`` (FLAGS), has a function of its own (services, ports, checks), or has
nothing in Sked that stands for it (LEFT, with the reason). One that is in none of these is no field of compose's.
"""

from __future__ import annotations

from typing import Any

import msgspec

Scalar = str | int | float | bool | None
Number = int | float | str
Texts = list[str | int | float]
OneOrMore = str | list[str | int | float]
Pairs = list[str] | dict[str, Scalar]
Mixed = list[str | int | dict[str, Any]]

FLAGS: dict[str, tuple[str, Any]] = {
    "annotations": ("annotation", Pairs),
    "cap_add": ("cap-add", Texts),
    "cap_drop": ("cap-drop", Texts),
    "cgroup": ("cgroupns", str),
    "cgroup_parent": ("cgroup-parent", str),
    "cpu_period": ("cpu-period", Number),
    "cpu_quota": ("cpu-quota", Number),
    "cpu_rt_period": ("cpu-rt-period", Number),
    "cpu_rt_runtime": ("cpu-rt-runtime", Number),
    "cpu_shares": ("cpu-shares", Number),
    "cpuset": ("cpuset-cpus", str | int),
    "device_cgroup_rules": ("device-cgroup-rule", Texts),
    "devices": ("device", Texts),
    "dns": ("dns", OneOrMore),
    "dns_opt": ("dns-option", OneOrMore),
    "dns_search": ("dns-search", OneOrMore),
    "domainname": ("domainname", str),
    "expose": ("expose", Texts),
    "extra_hosts": ("add-host", Pairs),
    "group_add": ("group-add", Texts),
    "hostname": ("hostname", str),
    "ipc": ("ipc", str),
    "isolation": ("isolation", str),
    "labels": ("label", Pairs),
    "mac_address": ("mac-address", str),
    "mem_reservation": ("memory-reservation", Number),
    "mem_swappiness": ("memory-swappiness", Number),
    "memswap_limit": ("memory-swap", Number),
    "oom_kill_disable": ("oom-kill-disable", bool),
    "oom_score_adj": ("oom-score-adj", Number),
    "pid": ("pid", str),
    "pids_limit": ("pids-limit", Number),
    "platform": ("platform", str),
    "read_only": ("read-only", bool),
    "runtime": ("runtime", str),
    "security_opt": ("security-opt", Texts),
    "shm_size": ("shm-size", Number),
    "stop_signal": ("stop-signal", str),
    "storage_opt": ("storage-opt", Pairs),
    "sysctls": ("sysctl", Pairs),
    "tmpfs": ("tmpfs", OneOrMore),
    "user": ("user", str | int),
    "userns_mode": ("userns", str),
    "uts": ("uts", str),
}
"""The option of ``docker run`` that says the same."""

_DETACHED = "tasks run detached, with nobody at their terminal"
_OWN_NETWORK = "Sked makes no networks; a service is found by the address and port of its tasks"
_GATE = "it lifts every default of a container; add --privileged to flags where the host's policy opens that"
LEFT: dict[str, tuple[str, Any]] = {
    "attach": ("`sked logs` shows any task", bool),
    "blkio_config": ("write the options --blkio-weight, --device-read-bps and so on into flags", dict[str, Any]),
    "build": ("Sked builds no images: build and push it before", str | dict[str, Any]),
    "configs": ("Sked hands out no files: put it into the image, or on the hosts and into volumes", Mixed),
    "container_name": ("a host may run several tasks of a service", str),
    "cpu_count": ("for Windows only", Number),
    "cpu_percent": ("for Windows only", Number),
    "credential_spec": ("for Windows only", dict[str, Any]),
    "depends_on": (
        "tasks start in any order and have to bear that those they need come later",
        list[str] | dict[str, Any],
    ),
    "develop": ("for those who write the program", dict[str, Any]),
    "driver_opts": (_OWN_NETWORK, dict[str, Scalar]),
    "external_links": (_OWN_NETWORK, Texts),
    "label_file": ("write the labels into labels", OneOrMore),
    "links": (_OWN_NETWORK, Texts),
    "models": ("Sked has nothing like it", Any),
    "networks": (_OWN_NETWORK, list[str] | dict[str, Any]),
    "post_start": ("Sked runs no commands in a container by itself", list[Any]),
    "pre_stop": ("Sked runs no commands in a container by itself", list[Any]),
    "privileged": (_GATE, bool),
    "provider": ("Sked has nothing like it", dict[str, Any]),
    "pull_policy": ("an image is pulled where the host does not have it", str),
    "pull_refresh_after": ("an image is pulled where the host does not have it", str),
    "stdin_open": (_DETACHED, bool),
    "tty": (_DETACHED, bool),
    "use_api_socket": ("it would hand the credentials of the engine's user to the task", bool),
    "volumes_from": ("name the same volumes in each service", Texts),
}
"""Why it is left out."""

_OWN: dict[str, Any] = {
    "command": OneOrMore,
    "cpus": Number,
    "deploy": dict[str, Any],
    "entrypoint": OneOrMore,
    "env_file": str | list[str | dict[str, Any]],
    "environment": Pairs,
    "extends": str | dict[str, Any],
    "gpus": str | list[dict[str, Any]],
    "healthcheck": dict[str, Any],
    "image": str,
    "init": bool,
    "logging": dict[str, Any],
    "mem_limit": Number,
    "network_mode": str,
    "ports": Mixed,
    "profiles": list[str],
    "restart": str,
    "scale": int | str,
    "secrets": Mixed,
    "stop_grace_period": str,
    "ulimits": dict[str, int | str | dict[str, Any]],
    "volumes": Mixed,
    "working_dir": str,
}


def _struct(title: str, /, **fields: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct(title, [(field, kind | None, None) for field, kind in fields.items()])


SERVICE = _struct("Service", **_OWN, **{name: kind for table in (FLAGS, LEFT) for name, (_, kind) in table.items()})
FILE = _struct(
    "File",
    services=dict[str, Any],
    name=str,
    version=str | int | float,
    volumes=dict[str, Any],
    networks=dict[str, Any],
    secrets=dict[str, Any],
    configs=dict[str, Any],
    include=list[Any],
    models=dict[str, Any],
)
PORT = _struct(
    "Port",
    target=int | str,
    published=int | str,
    host_ip=str,
    protocol=str,
    mode=str,
    name=str,
    app_protocol=str,
)
VOLUME = _struct(
    "Volume",
    type=str,
    source=str,
    target=str,
    read_only=bool,
    consistency=str,
    bind=dict[str, Any],
    volume=dict[str, Any],
    tmpfs=dict[str, Any],
    image=dict[str, Any],
)
HEALTHCHECK = _struct(
    "Healthcheck",
    test=str | list[str],
    interval=str,
    timeout=str,
    retries=int | str,
    start_period=str,
    start_interval=str,
    disable=bool,
)
DEPLOY = _struct(
    "Deploy",
    mode=str,
    replicas=int | str,
    labels=Pairs,
    endpoint_mode=str,
    update_config=dict[str, Any],
    rollback_config=dict[str, Any],
    resources=dict[str, Any],
    restart_policy=dict[str, Any],
    placement=dict[str, Any],
)
UPDATE = _struct(
    "Update",
    parallelism=int | str,
    delay=str,
    failure_action=str,
    monitor=str,
    max_failure_ratio=Number,
    order=str,
)
RESOURCES = _struct("Resources", limits=dict[str, Any], reservations=dict[str, Any])
AMOUNTS = _struct(
    "Amounts", memory=Number, cpus=Number, pids=Number, devices=list[dict[str, Any]], generic_resources=list[Any]
)
RESTART = _struct("Restart", condition=str, delay=str, max_attempts=int | str, window=str)
PLACEMENT = _struct(
    "Placement", constraints=list[str], preferences=list[dict[str, str]], max_replicas_per_node=int | str
)
LOGGING = _struct("Logging", driver=str, options=dict[str, Scalar])
