"""Whether a create call asks for more than the policy of the host allows. Pure; judged is what would be sent.

Every key of the body has one rule here, and a key without a rule is denied: whatever way something was asked for,
by a field, an option or another spelling of it, it meets the same gate.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sked_core.plugin import Denial
from sked_docker import bounds, references
from sked_docker.cases import Case, Rule, denied, unknown, words
from sked_docker.flags import FLAGS
from sked_docker.paths import within
from sked_docker.policy import ANY, DockerPolicy, port_range, volume_entry
from sked_docker.values import PROPAGATIONS

ORDINARY_CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
"""What the engine gives to every container, but NET_RAW; adding these after dropping all is what the careful do."""
RISKY_VARIABLES = ("LD_*", "NVIDIA_*", "DOCKER_*")
"""Hooks and runtimes on the host read some variables of containers: LD_PRELOAD was a way to root (CVE-2025-23266), and
NVIDIA_VISIBLE_DEVICES asks for devices."""
LEAST_HEALTH_INTERVAL = 10**9
"""One second, in the engine's nanoseconds."""
LONGEST_STOP = 300
"""Seconds that the engine may wait for a container when it is stopped itself: a host's shutdown waits for that."""
_EVERY_ADDRESS = ("", "0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104 - compared with, not bound
_PLAIN_NETWORKS = ("", "default", "bridge", "none")
_HARMLESS_SECURITY = ("no-new-privileges", "no-new-privileges=true", "seccomp=builtin")


def judge(case: Case, body: Mapping[str, Any]) -> list[Denial]:
    """All that ``body``, of a call to /containers/create, asks for and ``case`` does not allow."""
    return list(dict.fromkeys(_judged(case, body, "")))


def _judged(case: Case, values: Mapping[str, Any], path: str) -> Iterator[Denial]:
    for key, value in values.items():
        rule = RULES.get(path + key)
        if rule is not None:
            yield from rule(case, value)
        else:
            yield unknown(f"the setting {path}{key}")


# --- the small rules -------------------------------------------------------------------------------------------------


def _free(_: Case, __: Any) -> Iterable[Denial]:
    """Nothing that leaves the container."""
    return ()


def _inside(path: str) -> Rule:
    """The keys of a mapping have rules of their own."""
    return lambda case, value: _judged(case, value or {}, f"{path}.")


def _switch(gate: str, what: str, *, when: Callable[[Any], bool] = bool) -> Rule:
    def rule(case: Case, value: Any) -> Iterator[Denial]:
        if when(value) and not getattr(case.policy, gate):
            yield denied(case.policy, gate, what, True)

    return rule


def _named(target: str) -> Rule:
    """What has no gate of its own is let through by the option's name."""
    names = [f"--{flag.name}" for flag in FLAGS if flag.target == target]

    def rule(case: Case, value: Any) -> Iterator[Denial]:
        if value and ANY not in case.policy.flags and not set(names) & set(case.policy.flags):
            yield denied(case.policy, "flags", f"the option {names[0]}", [names[0]])

    return rule


def _not_too_often(case: Case, value: Any) -> Iterable[Denial]:
    """The engine starts a process for each check: a thousand of them in a second are its whole work."""
    return _named("Healthcheck.Interval")(case, value) if 0 < value < LEAST_HEALTH_INTERVAL else ()


def _not_too_long(case: Case, value: Any) -> Iterable[Denial]:
    return () if 0 <= value <= LONGEST_STOP else _named("StopTimeout")(case, value)


def _namespace(name: str) -> Rule:
    def rule(case: Case, value: Any) -> Iterator[Denial]:
        if value == "host" and name not in case.policy.host_namespaces:
            yield denied(case.policy, "host_namespaces", f"the host's namespace {name}", [name])
        elif (value == "shareable" or str(value).startswith("container:")) and (
            name not in case.policy.container_namespaces
        ):
            yield denied(case.policy, "container_namespaces", f"a namespace {name} that containers share", [name])

    return rule


def _network(case: Case, value: Any) -> Iterator[Denial]:
    yield from _namespace("net")(case, value)
    if value not in (*_PLAIN_NETWORKS, "host") and not str(value).startswith("container:"):
        yield from words("networks", "network")(case, value)


def _endpoints(case: Case, value: Any) -> Iterator[Denial]:
    for network, endpoint in value.items():
        yield from _network(case, network)
        yield from _judged(case, endpoint, "Endpoint.")


def _capabilities(case: Case, value: Any) -> Iterator[Denial]:
    allowed = {name.upper().removeprefix("CAP_") for name in case.policy.caps_add} | {*ORDINARY_CAPABILITIES}
    for capability in value or ():
        if capability not in allowed and not {"ALL", ANY} & allowed:
            yield denied(case.policy, "caps_add", f"capability {capability}", [capability])


def _unmasked(case: Case, _: Any) -> Iterable[Denial]:
    return words("security_opt", "security option")(case, "systempaths=unconfined")


def _devices(case: Case, value: Any) -> Iterator[Denial]:
    for device in value or ():
        yield from words("devices", "device")(case, device["PathOnHost"])


def _image(case: Case, value: Any) -> Iterator[Denial]:
    policy = case.policy
    if not references.allowed(value, policy.registries, private=policy.private_registries):
        name = references.repository(value)
        entry = name if references.is_id(value) else name.partition("/")[0]
        yield denied(case.policy, "registries", f"image {value[:100]} from {entry[:100]}", [entry])
    if policy.require_digest and not references.is_pinned(value):
        yield denied(case.policy, "require_digest", f"image {value[:100]} is not given by its digest", False)


def _environment(case: Case, value: Any) -> Iterator[Denial]:
    for pair in value:
        name = pair.partition("=")[0]
        matching = [one for one in (*RISKY_VARIABLES, *case.policy.env_deny) if fnmatch.fnmatchcase(name, one)]
        if matching and not any(fnmatch.fnmatchcase(name, one) for one in case.policy.env):
            yield denied(case.policy, "env", f"variable {name}", [name])


def _ports(case: Case, value: Any) -> Iterator[Denial]:
    ports = [port_range(entry) for entry in case.policy.ports]
    addresses = {_address(entry) for entry in case.policy.addresses}
    for name, ends in value.items():
        for end in ends:
            number, address = int(end["HostPort"]), _address(end["HostIp"])
            own = number == case.port and name.endswith("/tcp") and number >= 1024
            if not own and not any(number in some for some in ports):
                kind = "privileged port" if number < 1024 else "port"
                yield denied(case.policy, "ports", f"{kind} {number} of the host", [str(number)])
            if address not in {*addresses, *_EVERY_ADDRESS} and ANY not in addresses:
                yield denied(case.policy, "addresses", f"the host's address {address}", [address])


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


# --- volumes ---------------------------------------------------------------------------------------------------------


def _binds(case: Case, value: Any) -> Iterator[Denial]:
    for text in value or ():
        source, _, rest = text.partition(":")
        options = rest.partition(":")[2].split(",")
        if not source.startswith("/"):
            yield from _volume(case, source)
            continue
        # Relabelling writes to what it mounts, also where the container may not.
        yield from _path(case, source, writable="ro" not in options or bool({"z", "Z"} & set(options)))
        yield from _propagation(case, next((one for one in options if one in PROPAGATIONS), ""))


def _mounts(case: Case, value: Any) -> Iterator[Denial]:
    for mount in value or ():
        yield from _judged(case, mount, "Mount.")
        match mount["Type"]:
            case "bind":
                yield from _path(case, mount["Source"], writable=not mount.get("ReadOnly"))
            case "volume":
                yield from _volume(case, mount["Source"])
            case "tmpfs":
                yield from _TMPFS(case, True)
            case other:
                yield unknown(f"mounts of type {other}")


def _volume(case: Case, name: str) -> Iterator[Denial]:
    if name and not case.policy.named_volumes:
        yield denied(case.policy, "named_volumes", f"volume {name}", True)


def has_paths(body: Mapping[str, Any]) -> bool:
    """Whether a container is to have anything of the host's files."""
    host = body["HostConfig"]
    binds = any(text.startswith("/") for text in host.get("Binds", ()))
    return binds or any(one["Type"] == "bind" for one in host.get("Mounts", ()))


def named_volumes(body: Mapping[str, Any]) -> list[str]:
    """The volumes that a container is to have by their names."""
    host = body["HostConfig"]
    binds = [text.partition(":")[0] for text in host.get("Binds", ())]
    mounts = [one["Source"] for one in host.get("Mounts", ()) if one["Type"] == "volume" and one["Source"]]
    return list(dict.fromkeys([name for name in binds if not name.startswith("/")] + mounts))


def judge_volume(policy: DockerPolicy, volume: Mapping[str, Any]) -> list[Denial]:
    """What is denied of a volume that exists, as the engine describes it."""
    name, driver = volume["Name"], volume["Driver"]
    found = []
    if driver != "local" and not {driver, ANY} & set(policy.volume_drivers):
        found.append(denied(policy, "volume_drivers", f"volume {name} of driver {driver}", [driver]))
    if volume.get("Options") and not policy.volume_options:
        found.append(denied(policy, "volume_options", f"volume {name}, which was made with options", True))
    return found


def _propagation(case: Case, value: str) -> Iterator[Denial]:
    if value not in ("", "private", "rprivate") and not case.policy.mount_propagation:
        yield denied(case.policy, "mount_propagation", f"mounts that are {value} with the host", True)


def _path(case: Case, source: str, *, writable: bool) -> Iterator[Denial]:
    """A path of the host has to lie under an entry. Where it holds or lies under what is guarded, or is no file or
    folder, an entry must name it, or something within what is guarded."""
    policy = case.policy
    if policy.whole_host:
        return
    found = case.resolve(source)
    path, how = found.path, "writing" if writable else "reading"
    is_path = path if path == source else f"{source}, which leads to {path},"
    entry = f"{path}:rw" if writable else path
    covering = [
        held
        for held, may_write in map(volume_entry, policy.volumes)
        if within(path, held) and (may_write or not writable)
    ]
    if not covering:
        yield denied(case.policy, "volumes", f"host path {is_path} for {how}", [entry])
    elif not policy.guarded_paths and path not in covering:
        for guarded in case.guarded:
            if within(path, guarded) and not any(within(held, guarded) for held in covering):
                yield denied(
                    case.policy,
                    "volumes",
                    f"host path {is_path} is guarded: {guarded} needs to be named itself",
                    [entry],
                )
                return
            if within(guarded, path) and guarded != path:
                yield denied(case.policy, "volumes", f"host path {is_path} holds {guarded}, which is guarded", [entry])
                return
        if found.special:
            yield denied(
                case.policy, "volumes", f"host path {is_path} is no file and no folder, so needs to be named", [entry]
            )


# --- the tables ---


def _host(case: Case, value: Any) -> Iterator[Denial]:
    yield from _judged(case, value, "HostConfig.")
    yield from bounds.cores(case, value)
    for key, rule in _NEEDED.items():  # what must be there is judged also where it is not
        if key not in value:
            yield from rule(case, 0)


def _all(names: str, rule: Rule, *, below: str = "") -> dict[str, Rule]:
    return {f"{below}{name}": rule for name in names.split()}


_TMPFS = _switch("tmpfs", "a file system in memory")
_NEEDED: dict[str, Rule] = {"Memory": bounds.memory, "PidsLimit": bounds.pids}
_HOST: dict[str, Rule] = {
    "Binds": _binds,
    "CapAdd": _capabilities,
    "CapDrop": _free,
    "CgroupParent": words("cgroup_parents", "control group"),
    "CgroupnsMode": _namespace("cgroup"),
    "DeviceCgroupRules": words("device_cgroup_rules", "device rule"),
    "DeviceRequests": _switch("gpus", "graphics processors"),
    "Devices": _devices,
    "Init": _switch("without_init", "a container without an init process", when=lambda value: not value),
    "IpcMode": _namespace("ipc"),
    "LogConfig": bounds.logging,
    "MaskedPaths": _unmasked,
    "Memory": bounds.memory,
    "Mounts": _mounts,
    "CpuPeriod": _free,
    "CpuQuota": _free,
    "NanoCpus": _free,
    "NetworkMode": _network,
    "PidMode": _namespace("pid"),
    "PidsLimit": bounds.pids,
    "PortBindings": _ports,
    "Privileged": _switch("privileged", "a privileged container"),
    "ReadonlyPaths": _unmasked,
    "ReadonlyRootfs": _free,
    "RestartPolicy": _switch("engine_restarts", "restarts by the engine", when=lambda value: value["Name"] != "no"),
    "Runtime": words("runtimes", "runtime", free=("runc",)),
    "SecurityOpt": words("security_opt", "security option", free=_HARMLESS_SECURITY),
    "ShmSize": _free,
    "Sysctls": words("sysctls", "kernel setting"),
    "Tmpfs": _TMPFS,
    "UTSMode": _namespace("uts"),
    "Ulimits": lambda case, value: words("ulimits", "limit")(case, [one["Name"] for one in value or ()]),
    "UsernsMode": _namespace("userns"),
    "VolumeDriver": words("volume_drivers", "volume driver", free=("local",)),
    "VolumesFrom": _switch("volumes_from", "the volumes of another container"),
}
_TOP: dict[str, Rule] = {
    **_all("Cmd Entrypoint ExposedPorts Hostname Labels StopSignal User WorkingDir", _free),
    "StopTimeout": _not_too_long,
    "Env": _environment,
    "Healthcheck": _inside("Healthcheck"),
    "HostConfig": _host,
    "Image": _image,
    "NetworkingConfig": _inside("NetworkingConfig"),
    "NetworkingConfig.EndpointsConfig": _endpoints,
    "Endpoint.Aliases": _free,
    "Endpoint.IPAMConfig": _inside("Endpoint.IPAMConfig"),
    "Mount.BindOptions": _inside("Mount.BindOptions"),
    "Mount.BindOptions.Propagation": _propagation,
    "Mount.TmpfsOptions": _free,
    "Mount.VolumeOptions": _inside("Mount.VolumeOptions"),
    "Mount.VolumeOptions.NoCopy": _free,
    **_all("Type Source Target ReadOnly", _free, below="Mount."),
    **_all("Test Retries StartPeriod Timeout", _free, below="Healthcheck."),
    "Healthcheck.Interval": _not_too_often,
}
_NAMED = (
    "Domainname MacAddress Endpoint.IPAMConfig.IPv4Address Endpoint.IPAMConfig.IPv6Address "
    "Endpoint.IPAMConfig.LinkLocalIPs"
)
_NAMED_OF_HOST = (
    "Annotations BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps BlkioWeight "
    "BlkioWeightDevice CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus CpusetMems Dns DnsOptions DnsSearch "
    "ExtraHosts GroupAdd Isolation KernelMemory Links MemoryReservation MemorySwap MemorySwappiness OomKillDisable "
    "OomScoreAdj StorageOpt"
)
RULES: dict[str, Rule] = {
    **_TOP,
    **{f"HostConfig.{key}": rule for key, rule in _HOST.items()},
    **{target: _named(target) for target in _NAMED.split()},
    **{target: _named(target) for target in _all(_NAMED_OF_HOST, _free, below="HostConfig.")},
}
"""Who judges each key, by its path; what a mount and an endpoint hold goes by ``Mount`` and ``Endpoint``."""
