#!/usr/bin/env python3
"""A scheduler for Sked that shares nothing with it but the store: Python's standard library, and no line of Sked.

    SKED_BACKEND=consul://127.0.0.1:8500 ./scheduler.py NAME        (or etcd://127.0.0.1:2379)

places every service that says `scheduler: NAME`. Run as many of it as you like, and kill any of them at any time.
docs/outside-schedulers.md says why each write looks as it does. LOST_AFTER: seconds without a living agent after which
a host's tasks are replaced; LEASE_TTL: of this process's lease; SKED_PREFIX: of all keys.
"""

import json
import os
import random
import re
import sys
import time

from stores import Consul, Etcd

NAME = sys.argv[1]
LOST_AFTER = float(os.environ.get("LOST_AFTER", "60"))
FITS = re.compile("[A-Za-z0-9._-]+")
"""What can be a name: what has another one Sked does not know either, and it might say something in a URL."""
BATCH = 14
"""Changes in one commit, of up to 4 operations each: Consul takes 64 in a transaction, etcd 128."""


class World:
    """What stands in the store at one moment. Raises ValueError for what can't be read, and then nothing is done:
    unreadable is not absent."""

    def __init__(self, items, memory):
        self.items = items
        self.tasks, self.services = self.named("state/tasks/"), self.named("config/services/")
        self.clusters, self.hosts = self.named("config/clusters/"), self.named("config/hosts/")
        self.marks, self.statuses = self.named("hosts/marks/"), self.named("status/services/")
        self.alive = self.named("hosts/live/").keys()
        self.lost, self.avoided = memory.look(self)

    def below(self, prefix):
        return [(key, json.loads(value)) for key, (value, _) in self.items.items() if key.startswith(prefix)]

    def named(self, prefix):
        found = {key.removeprefix(prefix): one for key, one in self.below(prefix)}
        return {name: one for name, one in found.items() if FITS.fullmatch(name)}

    def one(self, key):
        return json.loads(self.items[key][0]) if key in self.items else None

    def unchanged(self, key):
        """The guard that it is still as we know it."""
        return "check", key, self.items[key][1] if key in self.items else 0

    def moves(self, name):
        """What `sked restart` asks for of those tasks that are still there."""
        found = self.one(f"scheduling/moves/{name}") or {"moves": []}
        return [one for one in found["moves"] if one["task"] in self.tasks]

    def mine(self):
        """Services that we place, and those that are declared no more whose status says that we did."""
        placed = {name for name, one in self.statuses.items() if one.get("scheduler") == NAME} - self.services.keys()
        return sorted(placed | {name for name, one in self.services.items() if one.get("scheduler") == NAME})


class Memory:
    """Since when hosts have been away, and who rejected what. It dies with the process, and nothing depends on it."""

    def __init__(self):
        self.away, self.noted, self.rejections = {}, set(), {}

    def look(self, world):
        """The hosts that are lost, and what is not tried again yet, with the reason."""
        now = time.monotonic()
        used, rejected = {one["host"] for one in world.tasks.values()}, {}
        self.away = {host: self.away.get(host, now) for host in used if host not in world.alive}
        if not world.alive or len(self.away) > max(2, len(used) * 0.3):
            self.away = {}  # rather the way to so many is broken: doubling their tasks would make it worse
        for id, task in world.tasks.items():
            seen = world.unchanged(f"state/tasks/{id}")
            if task.get("rejected"):
                rejected[seen] = task["host"], task["service"], task["task_definition"]["version"]
        for seen, what in rejected.items():
            if seen not in self.noted:
                count = self.rejections.get(what, (0,))[0] + 1
                why = world.tasks[seen[1].rpartition("/")[2]].get("reject_reason", "")
                self.rejections[what] = count, now + min(300, 5 * 2 ** (count - 1)), why
        self.noted = rejected.keys()
        avoided = {what: why for what, (_, until, why) in self.rejections.items() if until > now}
        return {host for host, since in self.away.items() if now - since >= LOST_AFTER}, avoided


def needs(definition):
    """What one task takes: what its definition says, or the sum over the containers."""
    total = {
        what: sum(one.get(what) or 0 for one in definition.get("containers", ())) for what in ("memory", "cpu_units")
    }
    disk = sum(one.get("disk_use") or 0 for one in definition.get("containers", ()))
    return {what: definition.get(what) or sum_ for what, sum_ in total.items()} | {"disk": disk}


def refusals(world, tasks, host, service, cluster, definition):
    """Why `host` takes no more task; empty if it does. `tasks`: all that are there, those about to be included."""
    name, port = host["name"], definition.get("port")
    there = [one for one in tasks.values() if one["host"] == name and not one.get("rejected")]
    if cluster.get("hosts") is not None and name not in cluster["hosts"]:
        yield f"not among the hosts of cluster {cluster['name']}"
    if name not in world.alive:
        yield "its agent is not running"
    if name in world.marks:
        yield world.marks[name]["state"]
    if (what := (name, service, definition["version"])) in world.avoided:
        yield f"rejected one: {world.avoided[what]}"
    if lacking := {one["type"] for one in definition.get("containers", ())} - {*host.get("executors", ())}:
        yield f"no executor {', '.join(sorted(lacking))}"
    for what, wanted in needs(definition).items():
        if wanted > (free := host.get(what, 0) - sum(needs(one["task_definition"])[what] for one in there)):
            yield f"{what}: free {free} < {wanted}"
    if definition.get("provide_port") and free_port(there, host) is None:
        yield "no port is free"
    if port and (port in host.get("ports", ()) or port in (one.get("port") for one in there)):
        yield f"port {port} is taken"


def free_port(there, host):
    """One that nobody has, from anywhere in the host's range: one that was just left had better rest. None: there is
    none."""
    first, last = host.get("port_range", (20000, 29999))
    taken, start = {*host.get("ports", ()), *(one.get("port") for one in there)}, random.randint(first, last)
    return next((port for port in (*range(start, last + 1), *range(first, start)) if port not in taken), None)


def plan(world, name, healthy_in):
    """For one service: {task id: the task as it is to be, or None}, the status of each cluster, and whether all tasks
    are of the wanted version and healthy."""
    service, tasks, changes, status, rolled_out = world.services.get(name), dict(world.tasks), {}, {}, True
    listing = {key for key, one in world.clusters.items() if service and name in one.get("services", ())}

    def change(id, task):
        tasks[id] = changes[id] = task
        if task is None:
            del tasks[id]

    for cluster_name in sorted(listing | {one["cluster"]["name"] for one in tasks.values() if one["service"] == name}):
        own = [(id, one) for id, one in sorted(tasks.items(), key=lambda pair: pair[1]["instance"])
               if one["service"] == name and one["cluster"]["name"] == cluster_name]  # fmt: skip
        cluster, wanted = world.clusters.get(cluster_name), cluster_name in listing
        desired, least, most = (service["desired"], service["min"], service["max"]) if wanted else (0, 0, 0)
        said = status[cluster_name] = {"desired": desired, "waiting": 0, "blocked": "", "hosts": {}}
        key = f"config/task_definitions/{service['task_name']}/{service['task_version']}" if wanted else ""
        definition = world.one(key)
        if wanted and (definition is None or service.get("placement")):
            said["blocked"] = f"{NAME} knows no placement rules" if definition else f"there is no {key}"
            rolled_out = False
            continue

        def same(one, definition=definition):
            return definition and all(one["task_definition"][it] == definition[it] for it in ("name", "version"))

        def may_stay(host, cluster=cluster):
            draining = world.marks.get(host, {}).get("state") == "draining"
            return cluster and not draining and (cluster.get("hosts") is None or host in cluster["hosts"])

        healthy = healthy_in(cluster_name)
        stopping = [id for id, one in own if not one.get("scheduled", True)]
        holes = [id for id, one in own if id not in stopping and (one.get("rejected") or one["host"] in world.lost)]
        holes.sort(key=lambda hole: bool(tasks[hole].get("rejected")))  # rather those that may yet run go first
        moved = [one["task"] for one in world.moves(name)]
        good = [id for id, one in own if id not in stopping + holes + moved and same(one) and may_stay(one["host"])]
        old = [id for id, one in own if id not in stopping + holes + good]

        # What is issued as `scheduled` false is stopped by its agent, which then removes the keys.
        leaving = sorted(good, key=lambda one: one not in healthy)[desired:]
        for id in stopping:
            if tasks[id]["host"] in world.lost:
                change(id, None)  # nobody is left there to confirm that it is gone

        # Issue what is missing, but never more than `max` at once.
        room = most - len(good) - len(old) - len(stopping)
        for _ in range(min(desired - len(good), room, BATCH)):
            found = {key: [*refusals(world, tasks, one, name, cluster, definition)] for key, one in world.hosts.items()}
            free = [key for key, why in found.items() if not why]
            if not free:
                said |= {"waiting": desired - len(good), "hosts": dict([*found.items()][:100])}
                break
            there = [tasks[one]["host"] for one in good]  # spread those that are to stay
            host = world.hosts[min(free, key=lambda key: (there.count(key), key))]
            if holes:
                change(holes.pop(0), None)
            start = f"{cluster_name}-{name}-{definition['version']}-"
            number = next(n for n in range(10**9) if f"{start}{n}" not in tasks)
            port = definition.get("port", 0)
            if definition.get("provide_port"):
                port = free_port([one for one in tasks.values() if one["host"] == host["name"]], host)
            task = {"cluster": cluster, "task_definition": definition, "service": name, "instance": number}
            task |= {"port": port, "host": host["name"], "scheduled": True, "rejected": False, "reject_reason": ""}
            change(f"{start}{number}", task)
            good.append(f"{start}{number}")
        if len(good) >= desired:
            for id in holes:
                change(id, None)

        # Replace what is of another version, or has to leave its host, once what takes its place is healthy.
        waits_for = [id for id in good if id not in healthy]
        surplus = len(good) + len(old) - desired
        if surplus <= 0 and not stopping:
            surplus = 1  # no room for a replacement: make some, as far as `min` allows
        spare = len([id for id in good + old if id in healthy]) - least
        for id in sorted(old, key=healthy.__contains__):
            host = tasks[id]["host"]
            if world.marks.get(host, {}).get("force") or not wanted:
                leaving.append(id)
            elif said["waiting"] and not may_stay(host):
                continue  # nothing can be placed where it leaves: it stays until something can
            elif not waits_for and surplus > 0 and (spare > 0 or id not in healthy):
                leaving.append(id)
                surplus, spare = surplus - 1, spare - (id in healthy)
        for id in leaving:
            change(id, tasks[id] | {"scheduled": False})
        if old and not leaving and not stopping:
            said["blocked"] = (
                f"waiting for {waits_for[0]} to become healthy" if waits_for else "min and max leave no room"
            )
        rolled_out = rolled_out and not old and not waits_for and len(good) == desired
    return changes, status, rolled_out


def work(world, name, healthy_in):
    """The operations that bring the service on, as many as fit into one commit; empty if there is nothing to do."""
    changes, clusters, rolled_out = plan(world, name, healthy_in)
    changes, after, ops = dict([*changes.items()][:BATCH]), dict(world.tasks), []
    for id, task in changes.items():
        before, value = world.tasks.get(id), json.dumps(task)
        ops.append(world.unchanged(f"state/tasks/{id}"))
        if before and (task is None or task["host"] != before["host"]):
            ops.append(("delete", f"state/hosts/{before['host']}/{id}"))
        if task is None:
            ops.append(("delete", f"state/tasks/{id}"))
            del after[id]
        else:  # both keys, with the same bytes
            ops += [("put", f"state/tasks/{id}", value), ("put", f"state/hosts/{task['host']}/{id}", value)]
            after[id] = task
    if changes:
        ops.append(("put", f"scheduling/changed/{name}", NAME))  # Sked's schedulers count what our tasks take
    for cluster, said in clusters.items():
        runs = [one for one in after.values() if one.get("scheduled", True) and not one.get("rejected")]
        said["issued"] = len([one for one in runs if (one["service"], one["cluster"]["name"]) == (name, cluster)])
    key, under_way, asked = f"status/services/{name}", f"scheduling/rollouts/{name}", f"scheduling/moves/{name}"
    rollout, moves, left = world.one(under_way), world.one(asked), world.moves(name)
    if name not in world.services and not clusters:  # deleted, and the last task gone: nothing is left to say
        return [("check", f"config/services/{name}", 0), *(("delete", one) for one in (key, under_way, asked))]
    if world.one(key) != (said := {"scheduler": NAME, "clusters": clusters, "decisions": 0}):
        ops.append(("put", key, json.dumps(said)))
    if rollout and rolled_out:
        ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        value = json.dumps(rollout | {"result": "succeeded", "ended": ended})
        ops += [("delete", under_way), ("put", f"rollouts/{name}/{rollout['number']}", value)]
        ops.append(("delete", f"rollouts/{name}/{rollout['number'] - 20}"))
    if moves and len(left) < len(moves["moves"]):
        ops.append(("put", asked, json.dumps(moves | {"moves": left})) if left else ("delete", asked))
    guards = [world.unchanged(f"config/services/{name}"), world.unchanged(f"scheduling/changed/{name}")]
    return ops and [*guards, *ops]


def evaluate(store, memory, name, world):
    """Do what there is to do for one service, under its lock."""

    def todo(world):
        return work(world, name, lambda cluster: store.healthy(world, cluster, name))

    lock = f"locks/services/{name}"
    if todo(world) and store.commit([("check", lock, 0), ("bind", lock, NAME)]):
        ops = todo(World(store.read(), memory))  # as it is now that no other scheduler changes it
        if not ops or not store.commit([("fence", lock), *ops, ("delete", lock)]):
            store.commit([("fence", lock), ("delete", lock)])  # an agent was faster: the next round sees


def main():
    kind, _, address = os.environ["SKED_BACKEND"].partition("://")
    store, memory, at = {"consul": Consul, "etcd": Etcd}[kind](address), Memory(), 0
    while True:
        try:
            if not store.lease or not store.renew():
                store.take_lease()
                me = f"scheduling/schedulers/{NAME}-{os.uname().nodename}-{os.urandom(4).hex()}"
                store.commit([("bind", me, json.dumps({"schedulers": [NAME]}))])  # for `sked status` to know
            at = store.wait(at, 1)
            world = World(store.read(), memory)
            for name in world.mine():
                evaluate(store, memory, name, world)
        except Exception as error:  # the store is away, or a record can't be read: what runs goes on meanwhile
            print(f"{type(error).__name__}: {error}; retrying", file=sys.stderr, flush=True)
            store.lease = ""  # what a commit without an answer has locked goes with the lease
            memory.away = {}  # while nobody could know, no host was away
            time.sleep(1)


if __name__ == "__main__":
    main()
