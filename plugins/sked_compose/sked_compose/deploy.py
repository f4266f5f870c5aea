"""How many, how large, where and how replaced: ``deploy`` of a service, and the older fields that say the same."""

from __future__ import annotations

import math
import re
from typing import Any

from sked_compose import shape
from sked_compose.findings import Findings

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_CONSTRAINT = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*(==|!=)\s*([A-Za-z0-9_./-]+)\s*")
_NODES = {"node.hostname": "host.name", "node.platform.os": "host.os", "node.platform.arch": "host.arch"}
RESTARTS = "Sked starts again whatever ends, with growing delays"
_MOST = 1_000_000


class Deploy:
    """``service``, ``definition`` and ``flags``: what it comes to. ``binds``: only one such task can be on a host."""

    def __init__(self, said: dict[str, Any], path: str, binds: bool, findings: Findings) -> None:
        self._findings, self._path = findings, f"{path}.deploy"
        self.service: dict[str, Any] = {}
        self.definition: dict[str, Any] = {}
        self.flags: list[str] = []
        deploy = findings.sound(said.get("deploy"), shape.DEPLOY, self._path)
        for field, why in (
            ("labels", "labels of a service are for swarm; labels of the service itself are kept"),
            ("endpoint_mode", "a port leads to the task on its own host"),
            ("rollback_config", "a roll-out that is taken back goes by the same rules"),
        ):
            if field in deploy:
                self._lose(field, why)
        self._count(said, deploy, path, binds)
        self._resources(said, deploy, path)
        self._restart(said, deploy, path)
        self._update(deploy, binds)
        self._placement(deploy)

    def _count(self, said: dict[str, Any], deploy: dict[str, Any], path: str, binds: bool) -> None:
        where = f"{self._path}.replicas" if "replicas" in deploy else f"{path}.scale"
        self.desired = self._whole(deploy.get("replicas", said.get("scale", 1)), where)
        mode = deploy.get("mode", "replicated")
        if mode == "global":
            why = "one task, and no two on one host; scale it to as many as there are hosts"
            self._lose("mode", why, "changed")
            self.service["placement"] = {"distinct_hosts": True}
        elif mode != "replicated":
            self._lose("mode", RESTARTS + ": it does not know what is to run once")
        self.service["desired"] = self.desired
        if binds:
            # The old task has to go before its port is free for the new one.
            self.service |= {"min": max(self.desired - 1, 0), "max": self.desired}
            if self.desired > 1:
                self._findings.note(where, f"with a port of its own on each host, {self.desired} tasks need as many")

    def _resources(self, said: dict[str, Any], deploy: dict[str, Any], path: str) -> None:
        at = f"{self._path}.resources"
        both = self._findings.sound(deploy.get("resources"), shape.RESOURCES, at)
        limits = self._findings.sound(both.get("limits"), shape.AMOUNTS, f"{at}.limits")
        kept = self._findings.sound(both.get("reservations"), shape.AMOUNTS, f"{at}.reservations")
        memory = limits.get("memory", said.get("mem_limit", kept.get("memory")))
        if memory is not None:
            self.definition["memory"] = self._megabytes(memory, f"{at}.limits.memory")
            if "memory" in kept and memory is not kept["memory"]:
                self.flags.append(f"--memory-reservation={kept['memory']}")
        if not self.definition.get("memory"):
            self.definition.pop("memory", None)
            self._findings.note(path, "says no memory limit: each host's policy has one by default (512 MB)")
        cpus = limits.get("cpus", said.get("cpus", kept.get("cpus")))
        if cpus is not None and (units := self._units(cpus, f"{at}.limits.cpus")):
            self.definition["cpu_units"] = units
        if "cpus" in kept and cpus is not kept["cpus"]:
            self._findings.lose(f"{at}.reservations.cpus", "what is reserved is the limit")
        if "pids" in limits:
            self.flags.append(f"--pids-limit={limits['pids']}")
        for index, device in enumerate(kept.get("devices", [])):
            self._device(device, f"{at}.reservations.devices[{index}]")
        for name, found in (("limits", limits), ("reservations", kept)):
            if "generic_resources" in found:
                why = "give the hosts a tag, and require it by placement"
                self._findings.lose(f"{at}.{name}.generic_resources", why)

    def _device(self, device: dict[str, Any], path: str) -> None:
        ids, count = device.get("device_ids"), device.get("count", "all")
        if device.get("capabilities") == ["gpu"] and device.get("driver", "nvidia") == "nvidia":
            if isinstance(ids, list) and ids:
                self.flags.append(f"--gpus=device={','.join(map(str, ids))}")
            else:
                self.flags.append(f"--gpus={count}")
        else:
            self._findings.lose(path, "only GPUs of the driver nvidia can be asked for")

    def _restart(self, said: dict[str, Any], deploy: dict[str, Any], path: str) -> None:
        old = str(said.get("restart", "always"))
        name, _, times = old.partition(":")
        if name not in ("no", "always", "on-failure", "unless-stopped"):
            self._findings.refuse(
                f"{path}.restart", f'expected no, always, on-failure or unless-stopped, got "{old[:30]}"'
            )
        elif name == "no" or (name == "on-failure" and not times):
            self._findings.lose(f"{path}.restart", RESTARTS)
        at = f"{self._path}.restart_policy"
        policy = self._findings.sound(deploy.get("restart_policy"), shape.RESTART, at)
        if policy.get("condition", "any") != "any":
            self._findings.lose(f"{at}.condition", RESTARTS)
        for field in ("delay", "window"):
            if field in policy:
                self._findings.lose(f"{at}.{field}", RESTARTS)
        attempts = policy.get("max_attempts", times or None)
        if attempts is not None:
            where = f"{at}.max_attempts" if "max_attempts" in policy else f"{path}.restart"
            # Compose counts restarts, Sked starts.
            self.definition["max_attempts"] = self._whole(attempts, where) + 1
            self._findings.lose(where, "after so many starts the task is given another host, not given up", "changed")

    def _update(self, deploy: dict[str, Any], binds: bool) -> None:
        at = f"{self._path}.update_config"
        said = self._findings.sound(deploy.get("update_config"), shape.UPDATE, at)
        if not said:
            return
        step = self._whole(said.get("parallelism", 1), f"{at}.parallelism") or max(self.desired, 1)
        if said.get("order", "stop-first") == "start-first" and not binds:
            self.service |= {"min": self.desired, "max": self.desired + step}
        else:
            self.service |= {"min": max(self.desired - step, 0), "max": self.desired}
            if said.get("order") == "start-first":
                why = "a task with a port of its own on each host has to go before another one comes"
                self._findings.lose(f"{at}.order", why, "changed")
        action = said.get("failure_action", "pause")
        if action == "continue":
            why = "a roll-out that fails stops; `sked rollout resume` has it go on"
            self._findings.lose(f"{at}.failure_action", why, "changed")
        update = {"on_failure": "rollback" if action == "rollback" else "pause"}
        if "monitor" in said:
            update["healthy_for"] = said["monitor"]
        for field, why in (
            ("delay", "the next step follows once tasks are healthy: healthy_for says for how long"),
            ("max_failure_ratio", "one task that does not become healthy in time is enough"),
        ):
            if field in said:
                self._findings.lose(f"{at}.{field}", why)
        self.service["update"] = update

    def _placement(self, deploy: dict[str, Any]) -> None:
        at = f"{self._path}.placement"
        said = self._findings.sound(deploy.get("placement"), shape.PLACEMENT, at)
        placement: dict[str, Any] = self.service.get("placement", {})
        for index, text in enumerate(said.get("constraints", [])):
            match = _CONSTRAINT.fullmatch(text)
            name = _tag(match[1]) if match else ""
            if match and name:
                rule = f"{name} {'=' if match[2] == '==' else '!='} {match[3]}"
                placement.setdefault("require", []).append(rule)
            else:
                self._findings.lose(f"{at}.constraints[{index}]", "give the hosts a tag, and require it")
        for index, one in enumerate(said.get("preferences", [])):
            tag = _tag(str(one.get("spread", "")))
            if tag:
                placement.setdefault("spread", []).append({"over": tag})
            else:
                self._findings.lose(f"{at}.preferences[{index}]", "only over a label of nodes can tasks be spread")
        if "max_replicas_per_node" in said:
            count = self._whole(said["max_replicas_per_node"], f"{at}.max_replicas_per_node")
            placement |= {"at_most": [{"count": count}]} if count else {}
        if "require" in placement or "spread" in placement:
            self._findings.note(at, "labels of swarm's nodes are tags of hosts here: `sked run agent --tag zone=a`")
        if placement:
            self.service["placement"] = placement

    def _lose(self, field: str, why: str, what: str = "left out") -> None:
        self._findings.lose(f"{self._path}.{field}", why, what)

    def _whole(self, value: object, path: str) -> int:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) > _MOST:
            self._findings.refuse(path, f'expected a whole number up to {_MOST}, got "{text[:30]}"')
            return 1
        return int(text)

    def _megabytes(self, value: object, path: str) -> int:
        match = _SIZE.fullmatch(str(value)[:40])
        if match is None:
            self._findings.refuse(path, f'expected an amount such as 512m, got "{str(value)[:30]}"')
            return 0
        factor = float(1024 ** _POWERS[match[2].lower()])
        return min(math.ceil(float(match[1]) * factor / 1024**2), 2**53)

    def _units(self, value: object, path: str) -> int:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,9})?", text):
            self._findings.refuse(path, f'expected a number of cores such as 0.5, got "{text[:30]}"')
            return 0
        return math.ceil(float(text) * 1024)


def _tag(name: str) -> str:
    """What stands for a property of swarm's nodes; empty for what does not exist here."""
    return _NODES.get(name) or (name.removeprefix("node.labels.") if name.startswith("node.labels.") else "")
