"""What Sked's processes and the machine use, sampled for a soak, and the rule by which that counts as flat."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from campaign.mix import PORTS, SPARED
from campaign.samples import issued, task_of
from campaign.stage import Stage
from sked_core.model import keys
from sked_core.runtime.journal import MAX_KEPT_KEYS

OF_PROCESSES = ("descriptors", "threads", "memory", "zombies", "children")
OF_MACHINE = ("iptables", "networks", "containers", "cgroups", "leases", "keys", "events", "files", "marked")
SLACK = {
    "descriptors": 4, "threads": 3, "memory": 6.0, "zombies": 1, "children": 2, "iptables": 2, "networks": 0,
    "containers": 2, "cgroups": 2, "leases": 2, "keys": 40, "files": 60, "marked": 6,
}  # fmt: skip
"""What the last fifth may have beyond a tenth more: faults are under way in both. Memory in MB."""
MOST = {"events": MAX_KEPT_KEYS + 150}
"""What rises by design, to a bound. Living schedulers clear up once a minute, in which thirty to forty come; what is
written while all of them are dead or paused comes on top."""
KEPT = (keys.EVENTS, keys.ENDINGS, keys.TASK_DEFINITIONS, keys.ROLLOUT_HISTORY, keys.DECISIONS)
"""Keys that stay by design when their time is over: the past, up to a bound, and all versions that users declared."""
Point = dict[str, float]


def of_process(pid: int, tasks: frozenset[int]) -> Point | None:
    """``children``: without those that are tasks."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        children = process.children()
        return {
            "descriptors": process.num_fds(),
            "threads": process.num_threads(),
            "memory": round(process.memory_info().rss / 2**20, 2),
            "zombies": sum(_status(child) == psutil.STATUS_ZOMBIE for child in children),
            "children": sum(child.pid not in tasks for child in children),
        }
    return None


def _status(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.status()
    return ""


def of_machine(stage: Stage, ever: set[str]) -> Point | None:
    """Of what is this stage's own: rules about its ports, containers by its label, their cgroups, files in its folder.
    What moves with what is declared is counted beyond that: each container that is issued has one rule and one cgroup,
    each task two keys. None while the store does not tell what is issued. ``ever``: ids of all containers that it had;
    kept up here."""
    sample = stage.monitor.history[-1]
    ours = {one.mark for one in (*sample.instances, *sample.ended) if "/" not in one.mark}
    ever |= ours
    if sample.store is None:
        return None
    tasks = [task for one in issued(sample.store).values() if (task := task_of(one.value)) and not task.rejected]
    containers = sum(one.type == "docker" for task in tasks for one in task.task_definition.containers)
    low, high = int(PORTS["a"].partition("-")[0]), int(PORTS["c"].partition("-")[2])
    rules = _output("iptables", "-w", "-t", "nat", "-S", "DOCKER").split()
    dports = [int(port) for word, port in itertools.pairwise(rules) if word == "--dport" and port.isdigit()]
    listed = _output("docker", "network", "ls", "--format", "{{.Name}}").split()
    return {
        "iptables": sum(low <= port <= high for port in dports) - containers,
        "networks": sum("sked-" not in name or stage.rig.mark in name for name in listed),
        "containers": len(ours) - containers,
        "cgroups": sum(_has_cgroup(one) for one in ever) - containers,
        "leases": sample.leases or 0,
        "keys": sum(not key.startswith(KEPT) for key in sample.store) - 2 * len(tasks),
        "events": sum(key.startswith(keys.EVENTS) for key in sample.store),
        "files": sum(len(files) for _, _, files in os.walk(stage.folder / "tmp"))
        + sum(len(files) for name in ("a", "b", "c") for _, _, files in os.walk(stage.folder / f"agent-{name}")),
        "marked": len(sample.instances) - len(tasks),
    }


def _has_cgroup(container: str) -> bool:
    return any(
        Path(f"/sys/fs/cgroup/{place}{container}").exists()
        for place in ("memory/docker/", "docker/", "system.slice/docker-")
    )


def _output(*command: str) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    return ""


def flat(series: Sequence[float], slack: float, beside: Sequence[float] = ()) -> bool:
    """Whether the median of the last fifth is at most a tenth, and ``slack``, above that of the second fifth of its own
    or of ``beside``.

    The first fifth is for warming up: caches fill, and Python keeps what it once had."""
    fifth = max(1, len(series) // 5)
    if len(series) < 10:
        return True
    early = max(statistics.median(one[fifth : 2 * fifth]) for one in (series, beside) if len(one) > fifth)
    return statistics.median(series[-fifth:]) <= 1.1 * early + slack


def judged(series: Mapping[str, Sequence[float]]) -> dict[str, bool]:
    """For each series, named by ``<whose> <what>``, whether it is flat, or keeps within its bound. Those of processes
    that are killed begin anew each time: they are to come to no more than the one of their kind that lives on."""
    found = {}
    for name, points in series.items():
        whose, _, what = name.rpartition(" ")
        spared = SPARED[whose.startswith("scheduler")]
        beside = series.get(f"{spared} {what}", ()) if whose != "machine" else ()
        found[name] = max(points, default=0) <= MOST[what] if what in MOST else flat(points, SLACK[what], beside)
    return found
