"""What people do to a simulated cluster: what ``sked`` commands do, and what hands in the store do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from sked_core.client.acting.changes import begin_rollout, commit_changes
from sked_core.client.acting.rollout_edits import forgive
from sked_core.errors import Conflict, InvalidValue, SkedError
from sked_core.interfaces.store import Check, Delete, Op, Put
from sked_core.logic.apply import CONFIGURED, Change, plan_apply, scale
from sked_core.model import keys
from sked_core.model.codec import decode, encode, patch
from sked_core.model.manifest import Manifest, StoredConfig
from sked_core.model.resolve import derived_bounds
from sked_core.model.types import Check as HealthCheck
from sked_core.model.types import (
    Cluster,
    Container,
    Mark,
    Moves,
    Rollout,
    Service,
    TaskDefinition,
    TaskMove,
    UpdatePolicy,
)
from sked_core.model.validate import validate
from sked_core.model.yaml_source import parse
from sked_core.runtime.journal import Journal
from sked_core.runtime.state import marker, store_uid
from sked_core.testing.sim.processes import EXECUTOR

if TYPE_CHECKING:
    from sked_core.testing.sim.world import World

CLUSTER = "default"
PROGRESS_DEADLINE = "90s"
GRACE = "12s"
BAD = ("sick", "spoils", "exits", "dies", "fails", "refused")
FIXED_PORT = 8080


@dataclass(slots=True)
class Wish:
    """What users want of one service, as declared last."""

    service: Service
    definition: TaskDefinition


class Users:
    """People at work. Each method is one action; it returns what was done, for the story, or "" if nothing could be.

    What they want outlives the store's data: they keep their manifests.
    """

    def __init__(self, world: World, dice: Random) -> None:
        self.world, self.dice = world, dice
        self.store = world.user
        self.journal = Journal(self.store, world.clock, "user")
        self.wishes: dict[str, Wish] = {}
        self._versions: dict[str, int] = {}
        """The highest version of each task definition that was ever applied."""
        self.cluster_hosts: list[str] | None = None
        self.most_fixed = min(2, len(world.hosts) - 1)
        """How many tasks with a fixed port there may be: one host has to be left, to replace them."""

    # --- declaring -------------------------------------------------------------------------------------------------

    def definition(self, name: str, version: int, behaviour: str, shape: Mapping[str, Any]) -> TaskDefinition:
        """A version of a task: ``shape`` says how many containers it has, and which ports it takes."""
        spec: dict[str, Any] = {"behaviour": behaviour, "warm": self.dice.choice((0.0, 1.0, 4.0))}
        if behaviour in ("spoils", "dies"):
            spec["lasts"] = self.dice.choice((3.0, 8.0, 20.0, 70.0))
        checks = [HealthCheck(http="http://127.0.0.1:$PROVIDED_PORT")] if shape["checks"] else None
        containers = [Container(name="web", type=EXECUTOR, executor=spec, checks=checks)]
        if shape["pair"]:
            containers.append(Container(name="side", type=EXECUTOR, executor={"warm": 0.5}))
        port = FIXED_PORT if shape["fixed"] else 0
        fields: dict[str, Any] = {"shutdown_delay": shape["delay"]} if shape["delay"] else {}
        return TaskDefinition(
            name=name,
            version=version,
            provide_port=not port,
            port=port,
            containers=containers,
            grace_period=GRACE,
            max_attempts=5,
            **fields,
        )

    def declare_first(self, name: str, *, desired: int, fixed: bool = False) -> str:
        """A new service, of a good version."""
        dice = self.dice
        shape = {
            "pair": dice.random() < 0.3,
            "checks": dice.random() < 0.6,
            "fixed": fixed,
            "delay": dice.choice(("", "", "2s")),
        }
        version = self._next_version(name)
        low, high = derived_bounds(desired)
        low = dice.choice((low, max(0, low - 1)))
        high = dice.choice((high, high + 1))
        policy = UpdatePolicy(
            on_failure=dice.choice(("pause", "rollback")),
            healthy_for=dice.choice(("", "3s")),
            progress_deadline=PROGRESS_DEADLINE,
            canaries=dice.choice((0, 0, 1)),
            promote_after=dice.choice(("", "10s")),
        )
        service = Service(
            name=name, task_name=name, task_version=version, desired=desired, min=low, max=high, update=policy
        )
        self.wishes[name] = Wish(service, self.definition(name, version, "good", shape))
        return self._apply(name, f"declares {name}: {desired} tasks, min {low}, max {high}")

    def deploy(self, name: str = "", behaviour: str = "") -> str:
        """Another version of a service, good or not."""
        name = name or self._some_service()
        if not name:
            return ""
        wish = self.wishes[name]
        behaviour = behaviour or self.dice.choice(("good", "good", *BAD))
        version = self._next_version(name)
        former = wish.definition
        shape = {
            "pair": len(former.containers) > 1,
            "checks": bool(former.containers[0].checks),
            "fixed": bool(former.port),
            "delay": getattr(former, "shutdown_delay", "") if isinstance(former.shutdown_delay, str) else "",
        }
        declared = self._declared(name)
        base = declared or wish.service
        self.wishes[name] = Wish(
            replace(base, task_version=version, task_name=name), self.definition(name, version, behaviour, shape)
        )
        return self._apply(name, f"deploys {name} version {version}, which is {behaviour}")

    def _next_version(self, name: str) -> int:
        """A version that was never used: what agents write back after a loss of data is of the version that it says."""
        stored = self.store.read(keys.task_definition_versions(name)).entries
        known = [self._versions.get(name, 0), *(int(keys.last_segment(key)) for key in stored)]
        self._versions[name] = 1 + max(known)
        return self._versions[name]

    def _declared(self, name: str) -> Service | None:
        entry = self.store.read(keys.service(name)).entries.get(keys.service(name))
        try:
            return decode(entry.value, Service) if entry else None
        except InvalidValue:
            return None

    def _some_service(self) -> str:
        return self.dice.choice(sorted(self.wishes)) if self.wishes else ""

    def _apply(self, name: str, told: str) -> str:
        wish = self.wishes[name]
        cluster = Cluster(name=CLUSTER, services=sorted(self.wishes), hosts=self.cluster_hosts)
        manifest = Manifest(clusters=(cluster,), services=(wish.service,), task_definitions=(wish.definition,))
        return self._attempt(lambda: self._commit(manifest), told)

    def _commit(self, manifest: Manifest) -> None:
        changes = plan_apply(manifest, self.store.read(keys.CONFIG).entries)
        begun = [begin_rollout(self.store, self.journal, change, "") for change in changes]
        store_uid(self.store, create=True)
        commit_changes(self.store, self.journal, begun, "")

    def _attempt(self, action: Any, told: str) -> str:
        try:
            action()
        except (Conflict, InvalidValue) as error:
            return f"{told}: refused: {error}"
        except SkedError as error:
            return f"{told}: {error}"
        return told

    def behaviour(self, name: str) -> str:
        """How the version behaves that is declared now, whoever went back to it."""
        mirror = self.world.judge.mirror
        service = mirror.service(name)
        key = keys.task_definition(service.task_name, service.task_version) if service else ""
        definition = mirror.decoded(mirror.values.get(key, b""), TaskDefinition)
        return str(definition.containers[0].executor.get("behaviour", "good")) if definition else "good"

    def restore_manifests(self) -> str:
        """Apply everything again: what stands there now may be older, or nothing."""
        for name in sorted(self.wishes):
            if "refused" in self._apply(name, "applies"):
                self.deploy(name, "good")  # another version of that number stands there
        return "applies all manifests again"

    def scale(self) -> str:
        name = self._some_service()
        entry = self.store.read(keys.service(name)).entries.get(keys.service(name)) if name else None
        if entry is None:
            return ""
        count = self.dice.randrange(1, 5)
        wish = self.wishes[name]
        if wish.definition.port:
            count = min(count, self.most_fixed)
        low, high = derived_bounds(count)
        changed = patch(entry.value, desired=count, min=low, max=high)
        wish.service = replace(wish.service, desired=count, min=low, max=high)
        return self._attempt(
            lambda: self.store.commit([Check(keys.service(name), entry.revision), Put(keys.service(name), changed)]),
            f"scales {name} to {count}",
        )

    def scale_within(self) -> str:
        """What ``sked scale`` does where bounds were given: refuse, or change the count alone."""
        name = self._some_service()
        entry = self.store.read(keys.service(name)).entries.get(keys.service(name)) if name else None
        if entry is None:
            return ""
        count = self.dice.randrange(0, 1 + (self.most_fixed if self.wishes[name].definition.port else 4))
        try:
            changed = scale(entry.value, count)
        except InvalidValue:
            return ""
        self.store.commit([Check(keys.service(name), entry.revision), Put(keys.service(name), changed)])
        self.wishes[name].service = decode(changed, Service)
        return f"scales {name} to {count} within its bounds"

    def delete(self) -> str:
        """Take a service away, keeping one at least."""
        if len(self.wishes) < 2:
            return ""
        name = self._some_service()
        cluster = self.store.read(keys.cluster(CLUSTER)).entries.get(keys.cluster(CLUSTER))
        ops: list[Op] = [Delete(keys.service(name))]
        if cluster is not None:
            ops.append(Put(keys.cluster(CLUSTER), patch(cluster.value, services=sorted({*self.wishes} - {name}))))
        self.store.commit(ops)
        del self.wishes[name]
        return f"deletes {name}"

    def restrict(self) -> str:
        """Limit the cluster to some hosts, or to none in particular again."""
        hosts = sorted(self.world.hosts)
        some = None if self.dice.random() < 0.5 else sorted(self.dice.sample(hosts, max(2, len(hosts) - 1)))
        entry = self.store.read(keys.cluster(CLUSTER)).entries.get(keys.cluster(CLUSTER))
        if entry is None:
            return ""
        self.cluster_hosts = some
        self.store.commit([Put(keys.cluster(CLUSTER), patch(entry.value, hosts=some))])
        return f"limits the cluster to {', '.join(some) if some else 'no hosts in particular'}"

    def collide(self) -> str:
        """Try to declare a cluster and service whose ids would be those of others (B6)."""
        name = next((name for name in sorted(self.wishes) if "-" not in name), "")
        if not name:
            return ""
        text = f"""
clusters: [{{name: {CLUSTER}-{name}, services: [x]}}, {{name: {CLUSTER}, services: [{name}-x]}}]
services:
  - {{name: x, task_name: {name}, task_version: 1}}
  - {{name: {name}-x, task_name: {name}, task_version: 1}}
"""
        stored = StoredConfig.from_values(
            {key: entry.value for key, entry in self.store.read(keys.CONFIG).entries.items()}
        )
        source = parse(text.encode(), "collide.yml")
        try:
            manifest = validate([source], stored=stored, executors={}, schedulers=["default"])
        except SkedError:
            return "is refused what would give two tasks one id"
        self._commit(manifest)
        return "declares what gives two tasks one id"

    # --- roll-outs ---------------------------------------------------------------------------------------------------

    def edit_rollout(self) -> str:
        """Pause, resume or promote a roll-out."""
        running = [name for name in sorted(self.wishes) if self._rollout(name) is not None]
        if not running:
            return ""
        name = self.dice.choice(running)
        entry = self.store.read(keys.rollout(name)).entries[keys.rollout(name)]
        active = decode(entry.value, Rollout)
        if active.state != "running":
            verb, changes = "resumes", {"state": "running", "reason": "", "waited": 0.0}
        elif not active.promoted and self.wishes[name].service.update_policy.canaries:
            verb, changes = "promotes", {"promoted": True}
        else:
            verb, changes = "pauses", {"state": "paused", "reason": "paused by user"}
        put = Put(keys.rollout(name), patch(entry.value, **changes))

        def edit() -> None:
            if verb == "resumes":
                forgive(self.store, name, active)
            self.store.commit([Check(put.key, entry.revision), put, marker(name, "user")])

        return self._attempt(edit, f"{verb} the roll-out of {name}")

    def _rollout(self, name: str) -> Rollout | None:
        entry = self.store.read(keys.rollout(name)).entries.get(keys.rollout(name))
        try:
            return decode(entry.value, Rollout) if entry else None
        except InvalidValue:
            return None

    def undo(self) -> str:
        """Go back to the version before."""
        name = self._some_service()
        active = self._rollout(name) if name else None
        entry = self.store.read(keys.service(name)).entries.get(keys.service(name)) if name else None
        if active is None or entry is None or not active.from_name:
            return ""
        before = decode(entry.value, Service)
        key = keys.task_definition(active.from_name, active.from_version)
        stored = self.store.read(key).entries.get(key)
        if stored is None or (before.task_name, before.task_version) == (active.from_name, active.from_version):
            return ""
        after = replace(before, task_version=active.from_version)
        put = Put(keys.service(name), patch(entry.value, task_version=active.from_version))
        change = Change("service", name, CONFIGURED, (Check(put.key, entry.revision), put), before, after)

        def begin() -> None:
            commit_changes(self.store, self.journal, [begin_rollout(self.store, self.journal, change, "", "undo")], "")

        self.wishes[name] = Wish(after, decode(stored.value, TaskDefinition))
        return self._attempt(begin, f"undoes the roll-out of {name}: back to version {active.from_version}")

    def move_tasks(self) -> str:
        """Ask for some tasks of a service to go to other hosts, whatever that is good for; or give that up again."""
        name = self._some_service()
        entry = self.store.read(keys.service(name)).entries.get(keys.service(name)) if name else None
        tasks = self.world.judge.mirror.tasks_of((CLUSTER, name)) if entry is not None else []
        if entry is None or not tasks:
            return ""
        key, hosts, dice = keys.moves(name), sorted(self.world.hosts), self.dice
        if dice.random() < 0.2:
            self.store.commit([Delete(key)])
            return f"gives up the moves of {name}"
        moves = [
            TaskMove(
                task=task.id,
                cluster=CLUSTER,
                source=task.host,
                to=dice.choice([host for host in hosts if host != task.host]),
                turn=dice.randrange(4),
            )
            for task in dice.sample(sorted(tasks, key=lambda one: one.id), dice.randrange(1, len(tasks) + 1))
            if task.host
        ]
        record = Moves(moves=moves, desired=decode(entry.value, Service).desired, by="user")
        ops: list[Op] = [Check(keys.service(name), entry.revision), Put(key, encode(record))]
        ways = ", ".join(f"{move.task} to {move.to}" for move in moves)
        return self._attempt(lambda: self.store.commit(ops), f"moves {ways}")

    # --- hosts -------------------------------------------------------------------------------------------------------

    def mark(self) -> str:
        """Cordon or drain a host, or take its mark away."""
        dice = self.dice
        name = dice.choice(sorted(self.world.hosts))
        kind = dice.choice(("drain", "drain", "force", "deadline", "cordon", "ready", "ready"))
        if kind == "ready":
            self.store.commit([Delete(keys.mark(name))])
            return f"takes the mark of {name} away"
        mark = Mark(
            state="cordoned" if kind == "cordon" else "draining",
            force=kind == "force",
            deadline=15.0 if kind == "deadline" else 0.0,
            at=str(self.world.clock.now),
        )
        self.store.commit([Put(keys.mark(name), encode(mark))])
        return f"marks {name}: {kind}"

    def unmark_all(self) -> str:
        self.store.commit([Delete(keys.mark(name)) for name in sorted(self.world.hosts)])
        return "takes all marks away"
