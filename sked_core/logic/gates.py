"""Core's own part of a host's policy: which executors, setup commands, script checks, check targets, how much. Pure.

Executors judge what only they understand (interfaces.executor.Policed). What is not allowed by name is denied.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from sked_core.logic import secret_gate
from sked_core.model.environment import with_port
from sked_core.model.policy import ChecksGate, Denial, Policy, SetupGate
from sked_core.model.spec import plain
from sked_core.model.types import Check, Container, Task

if TYPE_CHECKING:
    from sked_core.as_user import Account

# Stricter than URLs are: what two programs could read in two ways is nobody's own address.
_URL = re.compile(
    r"(?P<scheme>https?)://(?:[\w.~!$&'()*+,;=:%-]*@)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>\d{1,5}))?(?P<rest>[/?#][!-~]*)?\Z",
    re.ASCII | re.IGNORECASE,
)
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})\Z", re.ASCII)
_TARGET = re.compile(r"(?:(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?:\d{1,5}|\*)|\*)\Z", re.ASCII)
ANY = "*"


@dataclass(frozen=True, slots=True)
class Premises:
    """What of the host a verdict depends on. ``addresses``: how it calls itself; ``ports``: TCP ports that the task
    binds on all of them; ``sockets``: those that it binds on one address only, which may be somebody else's on the
    others; ``whose``: as_user.chosen, which raises PermissionError."""

    whose: Callable[..., Account]
    addresses: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    sockets: frozenset[tuple[str, int]] = frozenset()


def denials(policy: Policy, task: Task, here: Premises) -> list[Denial]:
    """All that core's gates deny of ``task``, as it would be started now; ``[]``: executors are to be asked."""
    found = [
        one for container in task.task_definition.containers for one in of_container(policy, task, container, here)
    ]
    return list(dict.fromkeys([*found, *of_task(policy, task)]))  # in order, each once


def of_task(policy: Policy, task: Task) -> Iterator[Denial]:
    """What is denied of the task as a whole."""
    yield from _ceiling(policy, "memory", task.task_definition.memory, "the task")
    yield from _ceiling(policy, "cpu_units", task.task_definition.cpu_units, "the task")


def allowed_checks(policy: Policy, task: Task, here: Premises) -> tuple[Task, list[Denial]]:
    """``task`` with those of its checks that may be run now, and why not the others."""
    found: list[Denial] = []
    containers = []
    for container in task.task_definition.containers:
        kept = []
        for check in container.checks or ():
            denied = list(_of_check(policy, task, check, container, here))
            found += denied
            kept += [] if denied else [check]
        containers.append(msgspec.structs.replace(container, checks=kept) if container.checks else container)
    if not found:
        return task, []
    definition = msgspec.structs.replace(task.task_definition, containers=containers)
    return msgspec.structs.replace(task, task_definition=definition), found


def target_problem(target: str) -> str:
    """What is wrong with one of ``checks.targets``; ``""`` for one that is well."""
    return "" if _TARGET.match(target) else "expected HOST:PORT, HOST:* or *"


def of_container(policy: Policy, task: Task, container: Container, here: Premises) -> Iterator[Denial]:
    """What is denied of one container of ``task``."""
    name = f"container {plain(container.name)}"
    if container.type not in policy.executors:
        kinds = dict.fromkeys(one.type for one in task.task_definition.containers)
        lacking = [kind for kind in kinds if kind not in policy.executors]
        line = f"executors: [{', '.join([*policy.executors, *map(_word, lacking)])}]"
        yield Denial("executors", f"{name} is of type {plain(container.type)}, which this host does not run", line)
    if container.setup:
        asks = f"{name} has setup commands, which run on the host itself"
        yield from _commands("setup", "allow", policy.setup, policy.setup.allow, asks, here)
    for check in container.checks or ():
        yield from _of_check(policy, task, check, container, here)
    alone = msgspec.structs.replace(task.task_definition, containers=[container])
    yield from secret_gate.denials(policy.secrets, msgspec.structs.replace(task, task_definition=alone))
    yield from _ceiling(policy, "memory", container.memory, name)
    yield from _ceiling(policy, "cpu_units", container.cpu_units, name)


def _of_check(policy: Policy, task: Task, check: Check, container: Container, here: Premises) -> Iterator[Denial]:
    name = f"container {plain(container.name)}"
    if check.script:
        asks = f"{name} has a script check, which runs on the host itself"
        yield from _commands("checks", "scripts", policy.checks, policy.checks.scripts, asks, here)
    for asked in (check.http, check.tcp):
        if asked and (where := _beyond(with_port(asked, task.port), policy.checks, task, here)) is not None:
            targets = ", ".join(f'"{one}"' for one in [*policy.checks.targets, where])
            what = f"{name} has a check of {plain(with_port(asked, task.port))[:200]}, beside the task's own port"
            yield Denial("checks.targets", what, f"checks: {{targets: [{targets}]}}")


def _commands(
    section: str, switch: str, gate: SetupGate | ChecksGate, allowed: bool, asks: str, here: Premises
) -> Iterator[Denial]:
    """Whether there may be commands on the host, and as whom."""
    reason = ""
    try:
        here.whose(gate.user, root=gate.root)
    except PermissionError as error:
        reason = str(error)
    if allowed and not reason:
        return
    more = f", {_as_whom(gate, here)}" if reason else ""
    line = f"{section}: {{{switch}: true{more}}}"
    if not allowed:
        yield Denial(f"{section}.{switch}", asks, line)
    else:
        yield Denial(f"{section}.user", f"{asks}, and {reason}", line)


def _as_whom(gate: SetupGate | ChecksGate, here: Premises) -> str:
    """The part of a line that names somebody as whom commands can run here."""
    own = here.whose("", root=True)
    if own.uid:
        return f"user: {_word(own.name)}"
    with contextlib.suppress(PermissionError):
        if here.whose(gate.user, root=True).uid == 0 and gate.user:
            return "root: true"
    return "user: nobody"


def _ceiling(policy: Policy, what: str, asked: int, whose: str) -> Iterator[Denial]:
    most = policy.limits.max_memory if what == "memory" else policy.limits.max_cpu_units
    if most and asked > most:
        unit = " MB" if what == "memory" else ""
        said = f"{whose} asks for {asked}{unit} of {what}, {most} at most"
        yield Denial(f"limits.max_{what}", said, f"limits: {{max_{what}: {asked}}}")


def _beyond(asked: str, gate: ChecksGate, task: Task, here: Premises) -> str | None:
    """The target, as ``checks.targets`` would name it, that a check of ``asked`` would go to and may not; None if it
    may."""
    if ANY in gate.targets:
        return None
    found = _URL.match(asked) or _ADDRESS.match(asked)
    if found is None:
        return ANY  # nobody can tell where it would go
    port = int(found["port"] or (443 if found.groupdict().get("scheme", "").lower() == "https" else 80))
    host = _normal(found["host"])
    named = {_normal(one.rpartition(":")[0]): set[str]() for one in gate.targets}
    for one in gate.targets:
        name, _, number = one.rpartition(":")
        named[_normal(name)].add(number)
    if {ANY, str(port)} & named.get(host, set()):
        return None
    own = _is_loopback(host) or host in {_normal(one) for one in here.addresses if one}
    if own and _binds(task, here, host, port):
        return None
    return f"{found['host']}:{port}"


def _binds(task: Task, here: Premises, host: str, port: int) -> bool:
    """Whether what answers at ``host``, one of this machine's own, and ``port`` can only be the task."""
    narrow = {(_normal(address), number) for address, number in here.sockets}
    # Its own port is the task's everywhere (Admission sees to that), unless an executor says where alone.
    wide = here.ports | ({task.port} if task.port and task.port not in {number for _, number in narrow} else set())
    where = "127.0.0.1" if host == "localhost" else host
    return port in wide or (where, port) in narrow or (":" not in where and ("0.0.0.0", port) in narrow)  # noqa: S104


def _normal(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower()
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _is_loopback(host: str) -> bool:
    """Whether connecting to ``host``, as _normal gives it, stays on this machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False  # 127.1 and 2130706433 too: they are written so by whoever has something to hide
    return address.is_loopback or address.is_unspecified


def _word(text: str) -> str:
    """``text`` as one word of a YAML flow, whatever it holds."""
    return text if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", text) else msgspec.json.encode(plain(text)).decode()
