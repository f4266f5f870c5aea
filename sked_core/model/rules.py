"""What makes one object of a manifest wrong beyond the types of its fields; paths are relative to the object.

The rules look at plain data that may hold anything: a value of the wrong type is passed over here, since
``check_spec`` has a message for it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from sked_core.errors import InvalidValue, PluginError, Problem
from sked_core.model import secret_refs
from sked_core.model.duration import to_nanoseconds
from sked_core.model.environment import with_port
from sked_core.model.first_party import install_hint
from sked_core.model.ports import bindings_of, counted_all, port_name
from sked_core.model.spec import did_you_mean, plain, show
from sked_core.model.types import DEFAULT_PROGRESS_DEADLINE

MIN_DURATION_NS = 1_000_000
"""Shortest grace period: a smaller one is seconds that were taken for nanoseconds."""
MIN_INTERVAL_NS = 10_000_000
"""Shortest interval of a check."""
MAX_CHECKS = 100
"""Checks of one task: an agent that probed thousands for one would do little else."""
CHECK_KINDS = ("http", "tcp", "script", "ttl")

_FIRST_PARTY_EXECUTORS = ("docker", "bash")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5}|\$PROVIDED_PORT|\$\{PROVIDED_PORT\})\Z")


class SpecChecker(Protocol):
    """The part of an executor that manifests need; both are pure."""

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]: ...

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]: ...


class Checkers(dict[str, SpecChecker]):
    """Executors by type. ``lacking``: by name, why what a plugin of that name may offer can't be used."""

    lacking: Mapping[str, str] = MappingProxyType({})


def cluster_problems(value: Mapping[str, Any]) -> Iterator[Problem]:
    """Services that are listed twice; a list of hosts that leaves none."""
    seen: dict[str, int] = {}
    for index, name in texts(value.get("services")):
        if name in seen:
            yield Problem(f"services[{index}]", f"{show(name)} is listed already, as services[{seen[name]}]")
        seen.setdefault(name, index)
    if value.get("hosts") == []:
        yield Problem("hosts", "no host may run it; leave it out (or null) for every host", warning=True)


def service_problems(value: Mapping[str, Any]) -> Iterator[Problem]:
    """Durations of the update policy, and a policy that contradicts itself."""
    policy = value.get("update")
    if not isinstance(policy, Mapping):
        return
    for name in ("healthy_for", "progress_deadline", "promote_after"):
        if policy.get(name) not in ("", None):
            yield from _duration(policy[name], f"update.{name}", at_least=MIN_DURATION_NS, zero=name == "healthy_for")
    if policy.get("progress_deadline") == "":
        yield Problem("update.progress_deadline", "expected a duration; leave it out for the default")
    canaries, desired = policy.get("canaries", 0), value.get("desired")
    if policy.get("promote_after") not in ("", None) and not canaries:
        yield Problem("update.promote_after", "says nothing without canaries", warning=True)
    if isinstance(canaries, int) and isinstance(desired, int) and canaries > desired:
        yield Problem("update.canaries", f"expected no more than desired, which is {desired}, got {canaries}")
    if _longer(policy.get("healthy_for"), policy.get("progress_deadline", DEFAULT_PROGRESS_DEADLINE)):
        yield Problem("update.healthy_for", "longer than the progress_deadline: every roll-out would fail")


def definition_problems(value: Mapping[str, Any], executors: Mapping[str, SpecChecker]) -> Iterator[Problem]:
    """Everything about a task definition but the types of its fields. ``executors``: the installed ones by type."""
    has_port = value.get("provide_port") is True or bool(value.get("port"))
    if value.get("provide_port") is True and value.get("port"):
        yield Problem("port", "not together with provide_port: leave one of them out")
    if "grace_period" in value:
        yield from _duration(value["grace_period"], "grace_period", at_least=MIN_DURATION_NS)
    if "shutdown_delay" in value:
        yield from _duration(value["shutdown_delay"], "shutdown_delay", at_least=MIN_DURATION_NS, zero=True)
    containers = value.get("containers", [])
    if containers == []:
        yield Problem("containers", "expected at least one container")
    names: dict[str, str] = {}
    check_ids: dict[str, str] = {}
    ports: dict[int, str] = {}
    count = 0
    for index, container in mappings(containers):
        path = f"containers[{index}]"
        name = container.get("name")
        if isinstance(name, str) and names.setdefault(name, path) != path:
            yield Problem(f"{path}.name", f"{show(name)} is the name of {names[name]} already")
        yield from _executor_problems(container, path, executors, ports)
        count += len(checks) if isinstance(checks := container.get("checks"), list) else 0
        if count > MAX_CHECKS:
            yield Problem(f"{path}.checks", f"more than {MAX_CHECKS} checks in one task definition")
            return
        for number, check in mappings(checks):
            yield from _check_problems(check, f"{path}.checks[{number}]", has_port, check_ids)


def _executor_problems(
    container: Mapping[str, Any], path: str, executors: Mapping[str, SpecChecker], ports: dict[int, str]
) -> Iterator[Problem]:
    kind, spec = container.get("type"), container.get("executor", {})
    if not isinstance(kind, str):
        return
    if kind not in executors:
        yield Problem(f"{path}.type", _unknown_executor(kind, executors))
        return
    if not isinstance(spec, Mapping):
        return
    try:
        # A copy: what a plugin does to its argument must not reach the store.
        judged = copy.deepcopy(secret_refs.held(spec))
        problems = [*secret_refs.problems(spec), *executors[kind].validate(judged)]
        for problem in problems:
            inner = f".{plain(problem.path)}" if problem.path and problem.path[0] != "[" else plain(problem.path)
            yield Problem(f"{path}.executor{inner} ({kind})", plain(problem.message), warning=problem.warning)
        taken = frozenset() if problems else bindings_of(executors[kind], judged, 0)
        for port in sorted(counted_all(taken)):
            if ports.setdefault(port, path) != path:
                yield Problem(f"{path}.executor ({kind})", f"port {port_name(port)} is taken by {ports[port]} already")
    except PluginError as error:
        error.add_note(f"asked about {path}, container {show(container.get('name'))}")
        raise
    except Exception as error:  # noqa: BLE001  a plugin that fails is reported where it was needed
        message = f"the executor could not check this: {type(error).__name__}: {error}"
        yield Problem(f"{path}.executor ({kind})", plain(message[:200]))


def _unknown_executor(kind: str, executors: Mapping[str, SpecChecker]) -> str:
    if isinstance(executors, Checkers) and (why := executors.lacking.get(kind)):
        return f"executor {show(kind)} can't be used: {why}"
    if kind in _FIRST_PARTY_EXECUTORS:
        advice = f"{install_hint('executor', kind)}; if it is, `sked plugins` says what is wrong with it"
        return f"executor {show(kind)} is not installed: {advice}"
    near = did_you_mean(kind, [*executors, *_FIRST_PARTY_EXECUTORS])
    installed = ", ".join(sorted(executors)) or "none"
    return f"unknown executor {show(kind)}{near or f'; installed are: {installed}'}"


def _check_problems(
    check: Mapping[str, Any], path: str, has_port: bool, check_ids: dict[str, str]
) -> Iterator[Problem]:
    given = [kind for kind in CHECK_KINDS if check.get(kind) not in ("", None)]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        yield Problem(path, f"exactly one of http, tcp, script and ttl, got {got}")
    identity = check.get("id")
    if isinstance(identity, str) and identity and check_ids.setdefault(identity, path) != path:
        yield Problem(f"{path}.id", f"{show(identity)} is the id of {check_ids[identity]} already")
    for name in ("interval", "timeout", "ttl"):
        if check.get(name) not in ("", None):
            yield from _duration(check[name], f"{path}.{name}", at_least=MIN_INTERVAL_NS)
    http, tcp, script = (check.get(kind) if isinstance(check.get(kind), str) else "" for kind in CHECK_KINDS[:3])
    if http and not (http.startswith(("http://", "https://")) and http.isprintable() and " " not in http):
        yield Problem(f"{path}.http", f"expected a URL that begins with http:// or https://, got {show(http)}")
    if tcp and not _ADDRESS.match(tcp):
        yield Problem(f"{path}.tcp", f"expected host:port, got {show(tcp)}")
    if script and not script.strip():
        yield Problem(f"{path}.script", "expected a shell command, got blanks")
    for kind, text in (("http", http), ("tcp", tcp), ("script", script)):
        if text and not has_port and with_port(text, 0) != text:
            message = "$PROVIDED_PORT stands for no port: the task has neither provide_port nor port"
            yield Problem(f"{path}.{kind}", message, warning=True)
    if _longer(check.get("timeout"), check.get("interval")):
        yield Problem(f"{path}.timeout", "longer than the interval", warning=True)


def _duration(value: object, path: str, *, at_least: int, zero: bool = False) -> Iterator[Problem]:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return
    try:
        nanoseconds = to_nanoseconds(value)
    except InvalidValue as error:
        yield Problem(path, plain(str(error)))
        return
    if nanoseconds < at_least and not (zero and nanoseconds == 0):
        shortest = f"{at_least // 1_000_000}ms"
        if isinstance(value, int) and value > 0:
            yield Problem(path, f'{value} is {value} nanoseconds; write "{value}s" for seconds')
        else:
            yield Problem(path, f"expected at least {shortest}, got {show(value)}")


def _longer(one: object, other: object) -> bool:
    try:
        return bool(one and other) and to_nanoseconds(one) > to_nanoseconds(other)  # type: ignore[arg-type]
    except InvalidValue:
        return False


def texts(value: object) -> Iterator[tuple[int, str]]:
    """The texts of a list with their index; nothing where it is no list."""
    if isinstance(value, list):
        yield from ((index, item) for index, item in enumerate(value) if isinstance(item, str))


def mappings(value: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """As ``texts``, of mappings."""
    if isinstance(value, list):
        yield from ((index, item) for index, item in enumerate(value) if isinstance(item, Mapping))
