"""What must hold on hosts, judged from what engines did, what stood in the store, and what agents had read."""

from __future__ import annotations

from collections.abc import Callable

from sked_core.errors import InvalidValue
from sked_core.model import codec, duration, keys
from sked_core.model.types import Task
from sked_core.runtime.agent.disk import Identity, Seen
from sked_core.testing.sim.engine import STRANGER, SimContainer
from sked_core.testing.sim.mirror import Mirror, Touched
from sked_core.testing.sim.scene import Scene, SimHost
from sked_core.testing.sim.store import Commit

EPSILON = 0.001
BRAKE_COUNT, BRAKE_SHARE, BRAKE_SECONDS = 3, 0.3, 10.0
WELL_SECONDS = 60.0
FREE_STARTS, LEAST_BACKOFF_SECONDS = 3, 2.0
"""From the fourth start in a row on, back-offs of at least 4 s (less a quarter) lie between them."""
GONE = "its key is gone"
ADOPTED_WITHIN_SECONDS = 60.0


class HostsJudge:
    """Part of the judge: see ``Judge``."""

    def __init__(self, world: Scene, mirror: Mirror, violated: Callable[[str, str], None]) -> None:
        self.world, self.mirror, self.violated = world, mirror, violated
        self.unproven: set[str] = set()
        """Hosts for which the data was set back or lost, and no operator has accepted that."""
        self._vanished: dict[tuple[str, str], float] = {}
        """When records vanished with so many others of their host that nothing may be stopped at once."""
        self._starts: dict[tuple[str, str], list[float]] = {}
        self._trouble: dict[tuple[str, str], float] = {}
        """When a container of a task on a host last ended."""

    # --- what it is told -------------------------------------------------------------------------------------------

    def began(self, host: SimHost, *, accept: bool) -> None:
        if accept:
            self.unproven.discard(host.name)
            for one in list(host.engine.containers.values()):
                self._judge_record(host.name, one)

    def reset(self) -> None:
        """The data was wiped, or set back: what it lacks now proves nothing to a host that has seen more of it."""
        for name, host in self.world.hosts.items():
            accepting = host.agent is not None and host.agent.loop.feed._accept  # it has not come to it yet
            (self.unproven.add if self.has_seen_more(name) and not accepting else self.unproven.discard)(name)

    def has_seen_more(self, host: str) -> bool:
        """Whether the disk of a host says that the data was once another, or newer."""
        files, values = self.world.hosts[host].files.by_name, self.mirror.values
        identity = self.mirror.decoded(files.get("identity.json", b""), Identity)
        seen = self.mirror.decoded(files.get("seen.json", b""), Seen)
        if identity is None or not identity.store_uid:
            return False
        uid, count = values.get(keys.STORE_UID, b"").decode(), int(values.get(keys.agent(host), b"0"))
        return identity.store_uid != uid or count < (seen.count if seen else 0)

    def commit(self, commit: Commit, before: Touched) -> None:
        """What ``commit`` did to the records of hosts; ``before``: what stood there."""
        gone: dict[str, int] = {}
        for (host, task_id), raw in before.own.items():
            now = self.mirror.own.get(host, {}).get(task_id, b"")
            if now == raw:
                continue
            self._vanished.pop((host, task_id), None)
            if raw and not now:
                gone[host] = gone.get(host, 0) + 1
                self._starts.pop((host, task_id), None)
                if commit.who == f"agent {host}":
                    self._let_go(host, task_id)
            former = self.mirror.decoded(raw)
            if former is None or former.rejected:
                self._starts.pop((host, task_id), None)
        for host, count in gone.items():
            known = self.world.hosts.get(host)
            if known is None or commit.who.startswith(("s", "agent")):
                continue
            running = {one.handle.task_id for one in known.engine.containers.values() if one.running}
            vanished = {task_id for name, task_id in before.own if name == host} & running
            if len(vanished) > max(BRAKE_COUNT, int(len(running) * BRAKE_SHARE)) and count >= len(vanished):
                self._vanished.update({(host, task_id): commit.at for task_id in vanished})
        for task_id in before.ids:
            for machine in self.world.hosts.values():
                for one in machine.engine.of(task_id):
                    self._judge_record(machine.name, one)

    def engine(self, what: str, one: SimContainer, by: str) -> None:
        host = one.owner[0]
        if what == "start":
            self._started(host, one, by)
            self._judge_record(host, one)
        elif what == "end":
            self._trouble[host, one.handle.task_id] = self.world.clock.now
        elif what == "stop" and by:
            self._stopped(host, one, by)
        if what in ("stop", "remove") and by and one.owner[1] == STRANGER:
            self.violated("A6", f"{by} removed {one.handle.ref}, which is not Sked's")

    # --- rules -----------------------------------------------------------------------------------------------------

    def _judge_record(self, host: str, one: SimContainer) -> None:
        """Whether what stands in the store says that the container may be stopped: then it may be from now on."""
        if one.released or host in self.unproven:
            return
        task_id = one.handle.task_id
        raw = self.mirror.own.get(host, {}).get(task_id)
        if raw is None:
            one.released = GONE
            return
        task = self.mirror.decoded(raw)
        if task is None or task.id != task_id or task.host not in ("", host):
            return  # nothing follows from a record that is no valid task of this host
        shared = self.mirror.task(task_id)
        if not task.scheduled:
            one.released = "withdrawn"
        elif task.rejected:
            one.released = "rejected"
        elif one.handle.digest != codec.digest(task):
            one.released = "its record changed"
        elif shared is not None and shared.host not in ("", host):
            one.released = f"it moved to {shared.host}"

    def _started(self, host: str, one: SimContainer, by: str) -> None:
        now, task_id = self.world.clock.now, one.handle.task_id
        known = self.world.hosts[host]
        for other in known.engine.containers.values():
            if other is one or not other.running or other.owner[1] == STRANGER:
                continue
            if other.handle.task_id == task_id and other.handle.container == one.handle.container:
                self.violated("A5", f"{by} started {task_id}/{one.handle.container} on {host} while it ran there")
            if other.ports & one.ports and other.handle.task_id != task_id:
                self.violated("A14", f"{by} started {task_id} on {host} with a port that {other.handle.task_id} has")
        agent = known.agent
        if agent is not None and agent.name == by and keys.host_tasks(host) not in agent.read_at:
            self.violated("A4", f"{by} started {task_id} before it had read what is issued")
        if one.handle.container != one.task.task_definition.containers[0].name:
            return
        began = agent.started if agent is not None else 0.0
        times = self._starts.setdefault((host, task_id), [])
        if times and now - times[-1] >= WELL_SECONDS:
            times.clear()
        times.append(now)
        if len(times) > FREE_STARTS and now - times[-2] < LEAST_BACKOFF_SECONDS and began < times[-2]:
            self.violated(
                "B8", f"{by} started {task_id} for the {len(times)}th time, {now - times[-2]:.1f} s after the last"
            )

    def _stopped(self, host: str, one: SimContainer, by: str) -> None:
        """A1, A2, A3, A9, A10, A11: a running container was stopped by an agent."""
        now, task_id = self.world.clock.now, one.handle.task_id
        if self._own_policy(host, one):
            return
        vanished = self._vanished.get((host, task_id))
        others = sum(at == vanished for (name, _), at in self._vanished.items() if name == host)
        alone = one.released not in ("", GONE)  # it was to be stopped before that, for a reason of its own
        if vanished is not None and not alone and others > BRAKE_COUNT and now - vanished < BRAKE_SECONDS - EPSILON:
            self.violated("A10", f"{by} stopped {task_id} {now - vanished:.1f} s after it vanished with many others")
        if one.released:
            return
        known = self.world.hosts[host]
        agent = known.agent
        raw = self.mirror.own.get(host, {}).get(task_id)
        if raw is not None and self.mirror.decoded(raw) is None:
            self.violated("A9", f"{by} stopped {task_id}, whose record can't be read")
        elif host in self.unproven:
            self.violated("A1", f"{by} stopped {task_id}: the store has lost data, and nobody accepted that")
        elif agent is not None and not agent.reachable():
            self.violated("A2", f"{by} stopped {task_id} while the store can't be reached")
        elif known.engine.faults.blind or known.engine.faults.down:
            self.violated("A11", f"{by} stopped {task_id} while the engine does not say what runs")
        elif agent is not None and now - agent.started < ADOPTED_WITHIN_SECONDS:
            self.violated("A3", f"{by} stopped {task_id}, which an earlier agent had started")
        else:
            self.violated("A1", f"{by} stopped {task_id} without proof that it is to be stopped")

    def _own_policy(self, host: str, one: SimContainer) -> bool:
        """Whether the agent may stop it by itself: part of the task died, did not start, or is unhealthy for long."""
        task_id = one.handle.task_id
        failed = self.world.hosts[host].engine.failures.get(task_id, -1.0)
        if max(failed, self._trouble.get((host, task_id), -1.0)) >= one.started - EPSILON:
            return True
        grace = duration.to_seconds(one.task.task_definition.grace_period)
        siblings = {*(other.handle.ref for other in self.world.hosts[host].engine.of(task_id)), one.handle.ref}
        if len(siblings) < len(one.task.task_definition.containers):
            return True  # its start was cut short
        # It was told unhealthy once its grace had passed, and not told well since its grace began.
        registry = self.world.registry
        at, healthy = registry.told.get((host, task_id), (-1.0, True))
        began = max(one.started, registry.told_well.get((host, task_id), -1.0))
        return not healthy and at - began >= grace - EPSILON

    def _let_go(self, host: str, task_id: str) -> None:
        """A8: whoever says that a task is gone has stopped all of it."""
        shared = self.mirror.task(task_id)
        # Then the removal says only that the task is another host's: what runs is stopped after it (A13).
        moved = shared is not None and shared.host not in ("", host)
        for one in self.world.hosts[host].engine.of(task_id):
            if one.running and not moved:
                self.violated("A8", f"agent {host} removed the keys of {task_id} while {one.handle.container} runs")

    def record_of(self, host: str, task_id: str) -> Task | None:
        """The record under the host's key."""
        try:
            raw = self.mirror.own.get(host, {}).get(keys.check_task_id(task_id), b"")
        except InvalidValue:
            return None
        return self.mirror.decoded(raw)
