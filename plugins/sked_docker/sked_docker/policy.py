"""The section ``docker`` of a host's policy: what containers may have that ordinary ones do not get."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ANY = "*"
"""In a list of the policy: everything."""

HostNamespace = Literal["net", "pid", "ipc", "uts", "userns", "cgroup"]
JoinedNamespace = Literal["net", "pid", "ipc"]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Texts = Annotated[list[Text], Meta(max_length=1000)]
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_FLAG = re.compile(r"--[a-z][a-z0-9-]*")


class DockerPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each field is one gate, closed until the policy opens it; README.md has them in a table. Where a list is
    compared as a whole word, ``*`` in it stands for everything."""

    privileged: bool = False
    host_namespaces: list[HostNamespace] = msgspec.field(default_factory=list)
    container_namespaces: list[JoinedNamespace] = msgspec.field(default_factory=list)
    networks: Texts = msgspec.field(default_factory=list)
    caps_add: Texts = msgspec.field(default_factory=list)
    security_opt: Texts = msgspec.field(default_factory=list)
    devices: Texts = msgspec.field(default_factory=list)
    device_cgroup_rules: Texts = msgspec.field(default_factory=list)
    gpus: bool = False
    runtimes: Texts = msgspec.field(default_factory=list)
    volumes: Texts = msgspec.field(default_factory=list)
    guarded_paths: bool = False
    mount_propagation: bool = False
    named_volumes: bool = False
    volume_drivers: Texts = msgspec.field(default_factory=list)
    volume_options: bool = False
    volumes_from: bool = False
    tmpfs: bool = False
    ports: Texts = msgspec.field(default_factory=list)
    addresses: Texts = msgspec.field(default_factory=list)
    registries: Texts = msgspec.field(default_factory=lambda: [ANY])
    private_registries: bool = False
    require_digest: bool = False
    env: Texts = msgspec.field(default_factory=list)
    env_deny: Texts = msgspec.field(default_factory=list)
    flags: Texts = msgspec.field(default_factory=list)
    sysctls: Texts = msgspec.field(default_factory=list)
    ulimits: Texts = msgspec.field(default_factory=list)
    log_drivers: Texts = msgspec.field(default_factory=list)
    log_opts: Texts = msgspec.field(default_factory=list)
    cgroup_parents: Texts = msgspec.field(default_factory=list)
    without_init: bool = False
    engine_restarts: bool = False

    def __post_init__(self) -> None:
        for entry in self.volumes:
            path, _ = volume_entry(entry)
            if not path.startswith("/") or _unclean(path):
                raise ValueError(f'volumes: expected "/a/folder" or "/a/folder:rw", got "{entry[:60]}"')
        for entry in self.ports:
            port_range(entry)
        for entry in self.flags:
            if entry != ANY and not _FLAG.fullmatch(entry):
                raise ValueError(f'flags: expected the long name of an option, such as "--dns", got "{entry[:60]}"')
        for entry in self.registries:
            if ANY in entry and entry != ANY:  # no image is called so: it would allow nothing, and look as if it did
                raise ValueError(f'registries: a "*" stands alone, for every public one, got "{entry[:60]}"')

    @classmethod
    def development(cls) -> DockerPolicy:
        """All gates open, for a machine of one's own."""
        return cls(
            privileged=True,
            host_namespaces=["net", "pid", "ipc", "uts", "userns", "cgroup"],
            container_namespaces=["net", "pid", "ipc"],
            networks=[ANY],
            caps_add=["ALL"],
            security_opt=[ANY],
            devices=[ANY],
            device_cgroup_rules=[ANY],
            gpus=True,
            runtimes=[ANY],
            volumes=["/:rw"],
            guarded_paths=True,
            mount_propagation=True,
            named_volumes=True,
            volume_drivers=[ANY],
            volume_options=True,
            volumes_from=True,
            tmpfs=True,
            ports=["1-65535"],
            addresses=[ANY],
            private_registries=True,
            env=[ANY],
            flags=[ANY],
            sysctls=[ANY],
            ulimits=[ANY],
            log_drivers=[ANY],
            log_opts=[ANY],
            cgroup_parents=[ANY],
            without_init=True,
            engine_restarts=True,
        )

    @property
    def whole_host(self) -> bool:
        """Whether any path of the host may be mounted for writing: then there is nothing left to look for in it."""
        return self.guarded_paths and "/:rw" in self.volumes


def volume_entry(entry: str) -> tuple[str, bool]:
    """The path of an entry of ``volumes``, and whether it may be written to."""
    for mark, writable in ((":rw", True), (":ro", False)):
        if entry.endswith(mark):
            return entry.removesuffix(mark), writable
    return entry, False


def port_range(entry: str) -> range:
    """The ports of an entry of ``ports``: ``5000`` or ``8000-8999``. Raises ValueError."""
    match = _PORTS.fullmatch(entry)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise ValueError(f'ports: expected "5000" or "8000-8999", got "{entry[:60]}"')
    return range(first, last + 1)


def _unclean(path: str) -> bool:
    return path != "/" and any(step in ("", ".", "..") for step in path[1:].split("/"))
