"""Options of ``docker run`` and what each becomes in the engine's API: a table, and the reader that applies it.

A list of allowed options, never one of forbidden ones: what the table does not know is an error. Targets are paths
into the body of ``POST /containers/create`` (https://docs.docker.com/reference/api/engine/version/v1.41/). Two of
them are the plugin's own: ``Endpoint.*`` belongs to the network that the container joins, ``Platform`` to the URL.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sked_docker import values
from sked_docker.values import boolean, duration, plain, size, size_or_unlimited, whole


class Gather(Enum):
    """What becomes of a value: it replaces, is added to a list, or is merged into a mapping."""

    SET = "set"
    ADD = "add"
    MERGE = "merge"


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: its long name without dashes, where its value goes, and how text becomes that value."""

    name: str
    target: str
    parse: Callable[[str], Any] = plain
    gather: Gather = Gather.SET
    short: str = ""
    switch: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """An option as found: ``index`` is its place in the list, ``value`` what ``flag.parse`` made of its text."""

    index: int
    flag: Flag
    value: Any


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with the item at ``index`` of the list."""

    index: int
    message: str


def _label(text: str) -> dict[str, str]:
    label = values.pair(text)
    if any(key.startswith("sked.") for key in label):
        raise ValueError("labels that begin with sked. are how Sked finds its containers; choose another name")
    return label


def _capability(text: str) -> str:
    name = text.upper().removeprefix("CAP_")
    if not re.fullmatch(r"[A-Z][A-Z_]{1,40}", name):
        raise ValueError(f'expected a capability such as NET_ADMIN, got "{text[:60]}"')
    return name


def _restart(text: str) -> dict[str, Any]:
    name, _, count = text.partition(":")
    if name not in ("no", "always", "unless-stopped", "on-failure") or (count and name != "on-failure"):
        raise ValueError(f'expected no, always, unless-stopped or on-failure[:times], got "{text[:60]}"')
    return {"Name": name, "MaximumRetryCount": whole(0, 1_000_000)(count) if count else 0}


def _security(text: str) -> str:
    name, _, value = plain(text).replace(":", "=", 1).partition("=")
    if name == "seccomp" and value not in ("unconfined", "builtin"):
        raise ValueError("a seccomp profile is a file of the docker command's machine; only unconfined works here")
    if name not in ("seccomp", "apparmor", "label", "no-new-privileges", "systempaths"):
        raise ValueError(f'unknown security option "{name[:60]}"')
    return f"{name}={value}" if value else name


def _ulimit(text: str) -> dict[str, Any]:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    number = whole(-1)
    if not re.fullmatch(r"[a-z]+", name):
        raise ValueError(f'expected "nofile=1024:2048", got "{text[:60]}"')
    return {"Name": name, "Soft": number(soft), "Hard": number(hard or soft)}


def _device(text: str) -> dict[str, str]:
    parts = plain(text).split(":")
    rights = parts.pop() if len(parts) > 1 and re.fullmatch("[rwm]{1,3}", parts[-1]) else "rwm"
    if len(parts) > 2:
        raise ValueError(f'expected "/dev/host[:/dev/container[:rwm]]", got "{text[:60]}"')
    path = values.absolute_path(parts[0])
    return {"PathOnHost": path, "PathInContainer": values.absolute_path(parts[-1]), "CgroupPermissions": rights}


def _device_figure(key: str, parse: Callable[[str], int]) -> Callable[[str], dict[str, Any]]:
    def figure(text: str) -> dict[str, Any]:
        path, _, amount = text.rpartition(":")
        return {"Path": values.absolute_path(path), key: parse(amount)}

    return figure


def _gpus(text: str) -> dict[str, Any]:
    if text.startswith("device="):
        return {"DeviceIDs": plain(text)[len("device=") :].split(","), "Capabilities": [["gpu"]]}
    return {"Count": -1 if text == "all" else whole(1, 1024)(text), "Capabilities": [["gpu"]]}


def _host_entry(text: str) -> str:
    name, mark, address = re.sub("=", ":", plain(text), count=1).partition(":")
    if not (name and mark and address):
        raise ValueError(f'expected "name:address", got "{text[:60]}"')
    return f"{name}:{address}"


def _tmpfs(text: str) -> dict[str, str]:
    path, _, options = text.partition(":")
    return {values.absolute_path(path): plain(options) if options else ""}


def _octal(text: str) -> int:
    if not re.fullmatch("[0-7]{3,4}", text):
        raise ValueError(f'expected a mode such as 1777, got "{text[:60]}"')
    return int(text, 8)


def _mount(text: str) -> dict[str, Any]:
    known = {"type": values.one_of("bind", "volume", "tmpfs"), "bind-propagation": plain, "volume-nocopy": boolean}
    known |= {"tmpfs-size": size, "tmpfs-mode": _octal}
    known |= dict.fromkeys(("src", "source"), plain) | dict.fromkeys(("ro", "readonly"), boolean)
    known |= dict.fromkeys(("dst", "destination", "target"), values.absolute_path)
    found = values.described(text, known)
    kind = found.get("type", "volume")
    source = found.get("source", found.get("src", ""))
    target = found.get("target", found.get("destination", found.get("dst", "")))
    if not target:
        raise ValueError("expected target=/path/in/container")
    mount: dict[str, Any] = {"Type": kind, "Target": target, "Source": source}
    mount["ReadOnly"] = found.get("readonly", found.get("ro", False))
    if kind == "bind":
        values.absolute_path(source)
        mount["BindOptions"] = {"Propagation": found.get("bind-propagation", "")}
    elif kind == "volume":
        if source:
            values.volume_name(source)
        mount["VolumeOptions"] = {"NoCopy": found.get("volume-nocopy", False)}
    else:
        mount["TmpfsOptions"] = {"SizeBytes": found.get("tmpfs-size", 0), "Mode": found.get("tmpfs-mode", 0o1777)}
    return mount


def _publish(text: str) -> dict[str, list[dict[str, str]]]:
    return binding(values.published_port(text))


def binding(port: values.PublishedPort) -> dict[str, list[dict[str, str]]]:
    """``port`` as an entry of HostConfig.PortBindings."""
    return {f"{port.container_port}/{port.protocol}": [{"HostIp": port.address, "HostPort": str(port.host_port)}]}


def _network(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*(:[A-Za-z0-9][A-Za-z0-9_.-]*)?", text):
        raise ValueError(f'expected bridge, host, none or the name of a network, got "{text[:60]}"')
    return text


def _cpus(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,9})?", text):
        raise ValueError(f'expected a number of cpus such as 1.5, got "{text[:60]}"')
    return round(float(text) * 1e9)


_ADD, _MERGE = Gather.ADD, Gather.MERGE
_READ_WRITE = (("read", "Read"), ("write", "Write"))
FLAGS: tuple[Flag, ...] = (
    Flag("add-host", "HostConfig.ExtraHosts", _host_entry, _ADD),
    Flag("annotation", "HostConfig.Annotations", values.pair, _MERGE),
    Flag("blkio-weight", "HostConfig.BlkioWeight", whole(0, 1000)),
    Flag("blkio-weight-device", "HostConfig.BlkioWeightDevice", _device_figure("Weight", whole(0, 1000)), _ADD),
    Flag("cap-add", "HostConfig.CapAdd", _capability, _ADD),
    Flag("cap-drop", "HostConfig.CapDrop", _capability, _ADD),
    Flag("cgroup-parent", "HostConfig.CgroupParent"),
    Flag("cgroupns", "HostConfig.CgroupnsMode", values.one_of("host", "private")),
    Flag("cpu-period", "HostConfig.CpuPeriod", whole(0)),
    Flag("cpu-quota", "HostConfig.CpuQuota", whole(-1)),
    Flag("cpu-rt-period", "HostConfig.CpuRealtimePeriod", whole(0)),
    Flag("cpu-rt-runtime", "HostConfig.CpuRealtimeRuntime", whole(0)),
    Flag("cpu-shares", "HostConfig.CpuShares", whole(0), short="c"),
    Flag("cpus", "HostConfig.NanoCpus", _cpus),
    Flag("cpuset-cpus", "HostConfig.CpusetCpus"),
    Flag("cpuset-mems", "HostConfig.CpusetMems"),
    Flag("device", "HostConfig.Devices", _device, _ADD),
    Flag("device-cgroup-rule", "HostConfig.DeviceCgroupRules", plain, _ADD),
    *(
        Flag(f"device-{low}-{unit}", f"HostConfig.BlkioDevice{high}{suffix}", _device_figure("Rate", parse), _ADD)
        for low, high in _READ_WRITE
        for unit, suffix, parse in (("bps", "Bps", size), ("iops", "IOps", whole(0)))
    ),
    Flag("dns", "HostConfig.Dns", plain, _ADD),
    Flag("dns-option", "HostConfig.DnsOptions", plain, _ADD),
    Flag("dns-search", "HostConfig.DnsSearch", plain, _ADD),
    Flag("domainname", "Domainname"),
    Flag("entrypoint", "Entrypoint", lambda text: [values.argument(text)]),
    Flag("env", "Env", lambda text: dict([values.env_pair(text)]), _MERGE, short="e"),
    Flag("expose", "ExposedPorts", lambda text: {values.exposed_port(text): {}}, _MERGE),
    Flag("gpus", "HostConfig.DeviceRequests", _gpus, _ADD),
    Flag("group-add", "HostConfig.GroupAdd", plain, _ADD),
    Flag("health-cmd", "Healthcheck.Test", lambda text: ["CMD-SHELL", values.argument(text)]),
    Flag("health-interval", "Healthcheck.Interval", duration),
    Flag("health-retries", "Healthcheck.Retries", whole(0, 1000)),
    Flag("health-start-period", "Healthcheck.StartPeriod", duration),
    Flag("health-timeout", "Healthcheck.Timeout", duration),
    Flag("hostname", "Hostname", plain, short="h"),
    Flag("init", "HostConfig.Init", boolean, switch=True),
    Flag("ip", "Endpoint.IPAMConfig.IPv4Address"),
    Flag("ip6", "Endpoint.IPAMConfig.IPv6Address"),
    Flag("ipc", "HostConfig.IpcMode", values.one_of("none", "private", "shareable", "host", "container:")),
    Flag("isolation", "HostConfig.Isolation"),
    Flag("kernel-memory", "HostConfig.KernelMemory", size),
    Flag("label", "Labels", _label, _MERGE, short="l"),
    Flag("link", "HostConfig.Links", plain, _ADD),
    Flag("link-local-ip", "Endpoint.IPAMConfig.LinkLocalIPs", plain, _ADD),
    Flag("log-driver", "HostConfig.LogConfig.Type"),
    Flag("log-opt", "HostConfig.LogConfig.Config", values.pair, _MERGE),
    Flag("mac-address", "MacAddress"),
    Flag("memory", "HostConfig.Memory", size, short="m"),
    Flag("memory-reservation", "HostConfig.MemoryReservation", size),
    Flag("memory-swap", "HostConfig.MemorySwap", size_or_unlimited),
    Flag("memory-swappiness", "HostConfig.MemorySwappiness", whole(0, 100)),
    Flag("mount", "HostConfig.Mounts", _mount, _ADD),
    Flag("network", "HostConfig.NetworkMode", _network),
    Flag("network-alias", "Endpoint.Aliases", plain, _ADD),
    Flag("no-healthcheck", "Healthcheck.Test", lambda text: ["NONE"] if boolean(text) else [], switch=True),
    Flag("oom-kill-disable", "HostConfig.OomKillDisable", boolean, switch=True),
    Flag("oom-score-adj", "HostConfig.OomScoreAdj", whole(-1000, 1000)),
    Flag("pid", "HostConfig.PidMode", values.one_of("host", "container:")),
    Flag("pids-limit", "HostConfig.PidsLimit", whole(-1)),
    Flag("platform", "Platform"),
    Flag("privileged", "HostConfig.Privileged", boolean, switch=True),
    Flag("publish", "HostConfig.PortBindings", _publish, _MERGE, short="p"),
    Flag("read-only", "HostConfig.ReadonlyRootfs", boolean, switch=True),
    Flag("restart", "HostConfig.RestartPolicy", _restart),
    Flag("runtime", "HostConfig.Runtime"),
    Flag("security-opt", "HostConfig.SecurityOpt", _security, _ADD),
    Flag("shm-size", "HostConfig.ShmSize", size),
    Flag("stop-signal", "StopSignal"),
    Flag("stop-timeout", "StopTimeout", whole(-1, 86_400)),
    Flag("storage-opt", "HostConfig.StorageOpt", values.pair, _MERGE),
    Flag("sysctl", "HostConfig.Sysctls", values.pair, _MERGE),
    Flag("tmpfs", "HostConfig.Tmpfs", _tmpfs, _MERGE),
    Flag("ulimit", "HostConfig.Ulimits", _ulimit, _ADD),
    Flag("user", "User", plain, short="u"),
    Flag("userns", "HostConfig.UsernsMode", values.one_of("host")),
    Flag("uts", "HostConfig.UTSMode", values.one_of("host")),
    Flag("volume", "HostConfig.Binds", values.volume, _ADD, short="v"),
    Flag("volume-driver", "HostConfig.VolumeDriver"),
    Flag("volumes-from", "HostConfig.VolumesFrom", plain, _ADD),
    Flag("workdir", "WorkingDir", values.work_dir, short="w"),
)

_OWN = "Sked decides that itself"
_DETACHED = "tasks run detached, with nobody at their terminal"
_CLIENT_FILE = "it reads or writes a file of the machine that docker run is typed on"
_GLOBAL = "it is an option of the docker command, not of docker run"
REFUSED: dict[str, str] = {
    "name": f"{_OWN}: the name is the lock that keeps a task from running twice; use the field name for an alias",
    "rm": f"{_OWN}: a dead container is kept until its end has been seen",
    "detach": _DETACHED,
    "interactive": _DETACHED,
    "tty": _DETACHED,
    "attach": _DETACHED,
    "detach-keys": _DETACHED,
    "sig-proxy": _DETACHED,
    "cidfile": _CLIENT_FILE,
    "env-file": f"{_CLIENT_FILE}; list the variables in env",
    "label-file": f"{_CLIENT_FILE}; give each label by itself",
    "publish-all": "ports that the engine picks are unknown to the scheduler; use provide_port and container_port",
    "pull": f"{_OWN}: an image is pulled when the host does not have it",
    "quiet": "it only changes what docker run prints",
    "help": "it only changes what docker run prints",
    "disable-content-trust": "signatures are checked by the docker command only, which is not used",
    "use-api-socket": "it would hand the credentials of the docker command to the task",
    "host": f"{_GLOBAL}; set DOCKER_HOST for the agent",
    "context": f"{_GLOBAL}; set DOCKER_CONTEXT for the agent",
    "config": _GLOBAL,
    "debug": _GLOBAL,
    "log-level": _GLOBAL,
    "tls": _GLOBAL,
    "tlsverify": _GLOBAL,
}
ALIASES = {"net": "network", "net-alias": "network-alias", "dns-opt": "dns-option"}
_REFUSED_SHORT = {
    "d": "detach", "i": "interactive", "t": "tty", "a": "attach", "P": "publish-all", "q": "quiet", "H": "host",
    "D": "debug",
}  # fmt: skip
_BY_NAME = {flag.name: flag for flag in FLAGS}
_BY_SHORT = {flag.short: flag for flag in FLAGS if flag.short}


def read(items: Sequence[str]) -> Iterator[Setting | Mistake]:
    """Each option in ``items``, as it was set or as what is wrong with it.

    An option and its value may share an item (``--cap-add=NET_ADMIN``, ``--cap-add NET_ADMIN``, ``-e A=1``) or take
    two. Behind ``=`` everything is the value, as it is; behind a space, quotes are taken off like a shell would.
    """
    rest = iter(enumerate(items))
    for index, item in rest:
        try:
            flag, text = _split(item)
            if text is None:
                text = "true" if flag.switch else next(rest, (index, None))[1]
            if text is None:
                raise ValueError(f"--{flag.name} needs a value")
            yield Setting(index, flag, flag.parse(text))
        except ValueError as error:
            yield Mistake(index, str(error))


def _split(item: str) -> tuple[Flag, str | None]:
    """The flag that ``item`` begins with, and the text of its value where the item holds it."""
    if not re.match(r"--[A-Za-z]|-[A-Za-z]", item):
        raise ValueError(f'expected an option of docker run such as "--read-only", got {item[:60]!r}')
    if not item.startswith("--"):
        return _split_short(item)
    head, mark, text = _partition(item[2:])
    flag = _find(head)
    if flag.switch and mark == " ":
        raise ValueError(f"--{head} takes no value behind a space; write --{head} or --{head}=false")
    return flag, _value(text, behind=mark)


def _split_short(item: str) -> tuple[Flag, str | None]:
    letter, text = item[1], item[2:]
    if letter in _REFUSED_SHORT:
        raise ValueError(f"-{letter} can't be used: {REFUSED[_REFUSED_SHORT[letter]]}")
    flag = _BY_SHORT.get(letter)
    if flag is None:
        raise ValueError(f'unknown option "-{letter}" of docker run')
    if text.startswith("="):
        return flag, text[1:]
    return flag, _value(text.lstrip(), behind=" " if text[:1].isspace() else "=") if text else None


def _find(name: str) -> Flag:
    name = ALIASES.get(name, name)
    if name in REFUSED:
        raise ValueError(f"--{name} can't be used: {REFUSED[name]}")
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, [*_BY_NAME, *ALIASES], n=1, cutoff=0.6)
        advice = f', did you mean "--{near[0]}"?' if near else "; README.md of sked-docker lists those that are known"
        raise ValueError(f'unknown option "--{name[:60]}" of docker run{advice}')
    return _BY_NAME[name]


def _partition(text: str) -> tuple[str, str, str]:
    """Name, the mark that ends it (``=``, a space, or nothing) and what stands behind."""
    match = re.match(r"([^=\s]*)(=|\s+|$)", text)
    assert match  # each of the three parts may be empty
    return match[1], match[2][:1].replace("\t", " "), text[match.end() :]


def _value(text: str, *, behind: str) -> str | None:
    if behind == "=":
        return text
    parts = shlex.split(text)
    if len(parts) > 1:
        raise ValueError(f"one option and one value per line; {' '.join(parts[1:])[:60]!r} is too much")
    return parts[0] if parts else None
