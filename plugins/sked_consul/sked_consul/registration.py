"""What Consul's agent is told of a task: pure, so that the same task always gives the same registration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sked_consul.scripts import Script
from sked_core.plugin import Check, InvalidValue, Task, secret_variables, task_environment, to_seconds, with_port

HOST, STORE, DIGEST, SECRETS = "sked", "sked-store", "sked-task", "sked-secrets"
"""Keys of the service's metadata: whose it is, what was registered, and whether the task was given secrets."""
DEFAULT_INTERVAL, DEFAULT_TIMEOUT = "10s", "5s"
MIN_INTERVAL_SECONDS = 1.0
"""Consul's own minimum, kept for scripts as well."""
SCRIPT_SLACK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Registration:
    """``service`` is what Consul gets; ``scripts`` are the checks that the agent runs for it."""

    service: Mapping[str, Any]
    scripts: tuple[Script, ...]

    @property
    def meta(self) -> Mapping[str, str]:
        meta: Mapping[str, str] = self.service["Meta"]
        return meta


def registration(task: Task, host: str, store_uid: str) -> Registration:
    """The registration of ``task`` by the agent of ``host``. Raises InvalidValue for a check that can't be.

    Checks get the ids that Consul itself would give: ``service:<task id>``, numbered from 1 if there are several.
    """
    declared = [
        (container.name, check)
        for container in task.task_definition.containers
        for check in container.checks or ()
        if _kinds(check)
    ]
    checks, scripts = [], []
    for number, (container, check) in enumerate(declared, 1):
        check_id = f"service:{task.id}" + (f":{number}" if len(declared) > 1 else "")
        definition, script = _check(task, container, check, check_id)
        checks.append(definition)
        scripts += [script] if script else []
    service: dict[str, Any] = {
        "ID": task.id,
        "Name": f"{task.cluster.name}-{task.service}",
        "Tags": task.task_definition.tags or [],
        "Port": task.port,
        "Checks": checks,
    }
    described = json.dumps([service, [script.command for script in scripts]], sort_keys=True)
    digest = hashlib.sha256(described.encode()).hexdigest()[:16]
    service["Meta"] = {HOST: host, STORE: store_uid, DIGEST: digest}
    if any(secret_variables(task, container.name) for container in task.task_definition.containers):
        service["Meta"][SECRETS] = "yes"
    return Registration(service, tuple(scripts))


def _kinds(check: Check) -> list[str]:
    """Which of the four it says; fields with nothing in them, as the store has them, are as good as left out."""
    return [kind for kind in ("http", "tcp", "script", "ttl") if getattr(check, kind)]


def _check(task: Task, container: str, check: Check, check_id: str) -> tuple[dict[str, Any], Script | None]:
    kind, *more = _kinds(check)
    if more:
        raise InvalidValue(f"a check of container {container} has {' and '.join([kind, *more])}: only one can be")
    interval = max(MIN_INTERVAL_SECONDS, to_seconds(check.interval, DEFAULT_INTERVAL))
    timeout = to_seconds(check.timeout, DEFAULT_TIMEOUT) or to_seconds(DEFAULT_TIMEOUT)
    named = {"CheckID": check_id, "Name": check.name or check.id or f"{container} {kind}"}
    if kind in ("http", "tcp"):
        target = with_port(getattr(check, kind), task.port)
        timing = {"Interval": _duration(interval), "Timeout": _duration(timeout)}
        return {**named, "HTTP" if kind == "http" else "TCP": target, **timing}, None
    if kind == "ttl":
        return {**named, "TTL": _duration(to_seconds(check.ttl))}, None
    # An agent that restarts must not turn its tasks unhealthy: the ttl outlasts a few missed runs.
    ttl = 3 * interval + timeout + SCRIPT_SLACK_SECONDS
    environment = tuple(sorted(task_environment(task).items()))
    return {**named, "TTL": _duration(ttl)}, Script(check_id, check.script, environment, interval, timeout)


def _duration(seconds: float) -> str:
    """In the form that Consul reads; whole milliseconds."""
    return f"{max(1, round(seconds * 1000))}ms"
