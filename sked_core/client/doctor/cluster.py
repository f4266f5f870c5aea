"""Whether everybody that is needed is there, and sees the same time."""

from __future__ import annotations

import ipaddress
import socket
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

from sked_core.client.doctor.exam import Check, Exam, Fault
from sked_core.clock import SystemClock
from sked_core.model import keys
from sked_core.model.types import (
    Cluster,
    Event,
    Host,
    Liveness,
    Presence,
    Service,
    Task,
    TaskDefinition,
)
from sked_core.runtime.agent.disk import AgentDisk

MAX_SKEW_SECONDS = 30.0
"""What times that people read may differ by; nothing that Sked decides depends on the clocks of two machines."""
RECENT = 5
"""So many of the last things that somebody told are looked at: one alone may have been told late, after an outage."""


def schedulers(exam: Exam) -> Iterator[Fault]:
    present, wanted = exam.objects(keys.SCHEDULERS, Presence), exam.objects(keys.SERVICES, Service)
    if not present and wanted:
        yield Fault("no scheduler is running: nothing new is placed, and nothing lost replaced", "sked run scheduler")


def scheduler_names(exam: Exam) -> Iterator[Fault]:
    present = exam.objects(keys.SCHEDULERS, Presence).values()
    offered = {name for one in present for name in one.schedulers}
    for name, service in sorted(exam.objects(keys.SERVICES, Service).items()) if present else ():
        if service.scheduler not in offered:
            what = f"service {name} is placed by scheduler {service.scheduler}, which no running process has"
            there = ", ".join(sorted(offered))
            remedy = f"install its plugin where schedulers run (they have {there}), or name another one\n"
            yield Fault(what, remedy + "where a program outside of Sked places by it:  start that")


def agents(exam: Exam) -> Iterator[Fault]:
    if exam.objects(keys.SERVICES, Service) and not exam.objects(keys.LIVE, Liveness):
        yield Fault("no agent is running: no task starts, and none that dies is started again", "sked run agent")


def lost_hosts(exam: Exam) -> Iterator[Fault]:
    living, tasks = exam.objects(keys.LIVE, Liveness), exam.objects(keys.TASKS, Task).values()
    for name in sorted(exam.objects(keys.HOSTS, Host).keys() - living.keys()) if living else ():
        count = sum(task.host == name for task in tasks)
        what = f"host {name} has no living agent" + (f"; {count} of its tasks stand in the store" if count else "")
        yield Fault(what, f"start its agent; or if it is gone for good:  sked drain {name} --force")


def executors(exam: Exam) -> Iterator[Fault]:
    living = exam.objects(keys.LIVE, Liveness)
    hosts = [one for name, one in exam.objects(keys.HOSTS, Host).items() if name in living]
    definitions = exam.objects(keys.TASK_DEFINITIONS, TaskDefinition)
    clusters = exam.objects(keys.CLUSTERS, Cluster).values()
    for name, service in sorted(exam.objects(keys.SERVICES, Service).items()) if hosts else ():
        definition = definitions.get(f"{service.task_name}/{service.task_version}")
        needed = {container.type for container in definition.containers} if definition else set()
        for cluster in (one for one in clusters if name in one.services):
            there = [one for one in hosts if cluster.hosts is None or one.name in cluster.hosts]
            if there and not any(needed <= set(one.executors) for one in there):
                common: set[str] = set(there[0].executors).intersection(*(one.executors for one in there))
                lacking = sorted(needed - common)
                what = f"service {name} needs executor {', '.join(lacking)}"
                what += f", which no living host of cluster {cluster.name} has"
                remedy = f"install it on hosts, with its engine:  pip install sked-{lacking[0]}\n"
                yield Fault(
                    what,
                    remedy + "where it is installed, name it in the host's policy (executors), and restart its agent",
                )


def memory_given_away(exam: Exam) -> Iterator[Fault]:
    reserved: dict[str, int] = defaultdict(int)
    for task in exam.objects(keys.TASKS, Task).values():
        if task.scheduled and not task.rejected:
            reserved[task.host] += task.task_definition.total_memory
    for name, host in sorted(exam.objects(keys.HOSTS, Host).items()):
        if host.memory and reserved[name] > host.memory:
            what = f"tasks on {name} ask for {reserved[name]} MB of memory, it has {host.memory} MB"
            yield Fault(what, f"move some:  sked rebalance --host {name}  (or give it more: --memory)")


def clocks(exam: Exam) -> Iterator[Fault]:
    now = SystemClock().wall()
    told = _told(exam, now)
    for who, times in told.items():
        if (ahead := min(at for at, _ in times[-RECENT:]) - now) > MAX_SKEW_SECONDS:
            yield Fault(f"the clock of {who} is {ahead:.0f} s ahead of this machine's", "set both by NTP: timedatectl")
        elif len(times) >= RECENT and (behind := min(late for _, late in times[-RECENT:])) > MAX_SKEW_SECONDS:
            yield Fault(f"the clock of {who} is {behind:.0f} s behind that of others", "set it by NTP: timedatectl")


def _told(exam: Exam, now: float) -> dict[str, list[tuple[float, float]]]:
    """By who told it, in the order in which the store took it: when it was, as its clock says, and how much earlier
    that is than what others had told before, those apart whose clocks are ahead of ``now``."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    latest: dict[str, float] = {}
    entries = {keys.EVENTS + rest: events for rest, events in exam.objects(keys.EVENTS, list[Event]).items()}
    for key in sorted(entries, key=lambda one: exam.entries()[one].revision):
        for event in entries[key][-1:]:
            try:
                at = datetime.fromisoformat(event.at).replace(tzinfo=UTC).timestamp()
            except ValueError:
                continue
            others = [one for who, one in latest.items() if who != event.who and one <= now + MAX_SKEW_SECONDS]
            found[event.who].append((at, max(others, default=at) - at))
            latest[event.who] = max(at, latest.get(event.who, at))
    return found


def addresses(exam: Exam) -> Iterator[Fault]:
    living = exam.objects(keys.LIVE, Liveness)
    hosts = {name: one for name, one in exam.objects(keys.HOSTS, Host).items() if name in living and one.address}
    by_address: dict[str, list[str]] = defaultdict(list)
    for name, host in sorted(hosts.items()):
        by_address[host.address].append(name)
        try:
            found = socket.getaddrinfo(host.address, None)
        except OSError:
            yield Fault(f"the address of host {name}, {host.address}, can't be resolved here", "correct its --address")
            continue
        if len(hosts) > 1 and all(ipaddress.ip_address(one[4][0]).is_loopback for one in found):
            what = f"the address of host {name}, {host.address}, leads every other host to itself"
            yield Fault(what, "start its agent with --address ADDR, one that others reach")
    for address, names in by_address.items():
        ranges = sorted(hosts[name].port_range for name in names)
        apart = all(last < first for (_, last), (first, _) in pairwise(ranges))
        if not apart and not address.startswith("127."):
            what = f"hosts {' and '.join(names)} have one address, {address}: their tasks share its ports"
            yield Fault(what, "give each agent of one machine a --port-range of its own, or correct --address")


def host_name(exam: Exam) -> Iterator[Fault]:
    live = exam.objects(keys.LIVE, Liveness).get(exam.host)
    if live is None or not (exam.state_dir / "identity.json").exists():
        return
    if live.agent != AgentDisk(exam.state_dir).identity().agent:
        what = f"another agent (id {live.agent}) runs as host {exam.host}, which is this machine's name"
        yield Fault(what, "give one of them a name of its own: --host NAME")


CHECKS = (
    Check("schedulers", "no scheduler running though services are declared", schedulers),
    Check("scheduler-names", "services placed by a scheduler that no running process offers", scheduler_names),
    Check("agents", "no agent running though services are declared", agents),
    Check("lost-hosts", "hosts whose agent is gone", lost_hosts),
    Check("executors", "services whose executor no living host of their cluster has", executors),
    Check("memory-given-away", "hosts whose tasks ask for more memory than they have", memory_given_away),
    Check("clocks", "clocks that differ by more than 30 s, as events tell", clocks),
    Check("addresses", "addresses that can't be resolved, are loopback, or of hosts that share ports", addresses),
    Check("host-name", "another agent that runs under the name of this machine", host_name),
)
