"""What stands under ``executor`` in a manifest, what a host allows of it, and the unit that comes of both."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from sked_core.plugin import Container, Denial, Policy, Problem, Task, account, check_spec

ANYONE = ANYTHING = "*"
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PROPERTY = re.compile(r"[A-Z][A-Za-z0-9]{1,60}")
FREE = frozenset({"CPUQuota", "LimitCORE", "LimitNOFILE", "RuntimeMaxSec"})
"""Properties by which a task takes nothing from others: it gets less, or what there is enough of."""
KEPT = frozenset(
    {
        "Description",
        "DynamicUser",
        "EnvironmentFile",
        "ExecStart",
        "ExecStartPre",
        "ExecStartPost",
        "ExecStop",
        "ExecStopPost",
        "ExecReload",
        "ExecCondition",
        "Group",
        "KillMode",
        "MemoryMax",
        "Delegate",
        "RemainAfterExit",
        "Restart",
        "SyslogIdentifier",
        "TasksMax",
        "TimeoutStopSec",
        "Type",
        "User",
        "WorkingDirectory",
    }
)
"""Properties that are the executor's own: a task that set them would not be what it is taken for."""
SANDBOX = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "LockPersonality": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectSystem": "strict",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
}
"""What every task gets unless it asks otherwise, and the host allows it (systemd.exec(5))."""


class SystemdSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``start``: what `/bin/sh -c` runs. ``user``: whom it runs as; `""`: as the host's policy says. ``properties``: of
    the unit, beside or instead of those that every task gets."""

    start: Annotated[str, Meta(min_length=1, max_length=65_536)]
    env: dict[str, str] = {}
    user: str = ""
    working_directory: str = "/"
    properties: dict[str, str] = {}


class SystemdPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``systemd`` of a host's policy. What it does not say is denied."""

    run_as: str = ""
    """The user that tasks run as which ask for none; `""`: one that systemd makes up for each (DynamicUser)."""
    users: list[str] = []
    """Who else a task may ask for; `*`: anybody but root."""
    root: bool = False
    """Tasks may run as root."""
    properties: list[str] = []
    """Properties that tasks may set, beside those by which they only get less; `*`: all but the executor's own."""

    @classmethod
    def development(cls) -> SystemdPolicy:
        """For a machine of one's own."""
        return cls(users=[ANYONE], root=True, properties=[ANYTHING])


def problems(spec: object) -> list[Problem]:
    """All that is wrong with an ``executor`` object. Pure."""
    found = check_spec(spec, SystemdSpec)
    if found:
        return found
    read = msgspec.convert(spec, SystemdSpec)
    if read.user and not _USER.fullmatch(read.user):
        found.append(Problem("user", f"{read.user!r:.80} is no name of a user"))
    if not read.working_directory.startswith("/"):
        found.append(Problem("working_directory", "expected an absolute path"))
    for name in read.env:
        if not _VARIABLE.fullmatch(name):
            found.append(Problem("env", f"{name!r:.80} is no name of a variable"))
    for name, value in read.properties.items():
        if not _PROPERTY.fullmatch(name):
            found.append(Problem("properties", f"{name!r:.80} is no property of a unit"))
        elif name.removesuffix("Ex") in KEPT:  # systemd has ExecStartPreEx and its like as well
            found.append(Problem(f"properties.{name}", "is the executor's own"))
        elif not _printable(value):
            found.append(Problem(f"properties.{name}", "expected one line of text"))
    texts = {
        "start": read.start,
        "working_directory": read.working_directory,
        **{f"env.{n}": v for n, v in read.env.items()},
    }
    found += [
        Problem(path, "has a character that no process can be given")
        for path, text in texts.items()
        if not _passes(text)
    ]
    return found


def denials(policy: SystemdPolicy, spec: SystemdSpec) -> list[Denial]:
    """All that ``policy`` does not allow of ``spec``."""
    found = []
    user = spec.user or policy.run_as
    if _is_root(user) and not policy.root:
        found.append(Denial("systemd.root", "it would run as root", "systemd: {root: true}"))
    elif spec.user and ANYONE not in policy.users and spec.user not in (policy.run_as, "root", *policy.users):
        line = f"systemd: {{users: [{', '.join([*policy.users, spec.user])}]}}"
        found.append(Denial("systemd.users", f"it asks to run as {spec.user}", line))
    wanted = sorted(set(spec.properties) - FREE - set(policy.properties))
    if wanted and ANYTHING not in policy.properties:
        line = f"systemd: {{properties: [{', '.join([*policy.properties, *wanted])}]}}"
        found.append(Denial("systemd.properties", f"it sets {', '.join(wanted)}", line))
    return found


def _is_root(user: str) -> bool:
    """Whether the user of this name, or number, has root's rights: root may have other names on this host."""
    try:
        return user == "root" or (int(user) if user.isdecimal() else account(user).uid) == 0
    except LookupError:
        return False  # systemd does not start it either


def properties_of(policy: Policy, spec: SystemdSpec, task: Task, container: Container) -> dict[str, str]:
    """What the unit of a container without denials is to be like."""
    own = policy.section("systemd", SystemdPolicy)
    alone = len(task.task_definition.containers) == 1
    memory = container.memory or (task.task_definition.memory if alone else 0) or policy.limits.default_memory
    shares = container.cpu_units or (task.task_definition.cpu_units if alone else 0)
    user = spec.user or own.run_as
    who = {"User": user} if user else {"DynamicUser": "yes"}
    limits = {"TasksMax": str(policy.limits.pids)}
    if memory:
        limits |= {"MemoryMax": f"{memory}M", "MemorySwapMax": "0"}
    if shares:
        limits["CPUWeight"] = str(min(max(shares * 100 // 1024, 1), 10_000))
    fixed = {"KillMode": "control-group", "TimeoutStopSec": "infinity", "WorkingDirectory": spec.working_directory}
    return {**SANDBOX, **limits, **spec.properties, **who, **fixed}


def _passes(text: str) -> bool:
    """Whether a process can be given it: no NUL, nothing that is no UTF-8."""
    return "\0" not in text and text.encode("utf-8", "replace") == text.encode("utf-8", "surrogatepass")


def _printable(text: str) -> bool:
    return _passes(text) and all(sign.isprintable() for sign in text)
