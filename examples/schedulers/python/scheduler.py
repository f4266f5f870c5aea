#!/usr/bin/env python3
"""A scheduler for Sked that shares nothing with it but the store: Python's standard library, and no line of Sked.

    SKED_BACKEND=consul://127.0.0.1:8500 ./scheduler.py NAME        (or etcd://127.0.0.1:2379)

places every service that says `scheduler: NAME`. Run as many of it as you like, and kill any of them at any time.
docs/outside-schedulers.md says why each write looks as it does. LOST_AFTER: seconds without a living agent after which
a host's tasks are replaced; SKED_PREFIX: of all keys. Read it from below: a round, a service, a plan.
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

    def __init__(self, items):
        self.items = items
        self.tasks, self.services = self.named("state/tasks/"), self.named("config/services/")
        self.clusters, self.hosts = self.named("config/clusters/"), self.named("config/hosts/")
        self.alive, self.marks = self.named("hosts/live/"), self.named("hosts/marks/")
        self.statuses = self.named("status/services/")

    def named(self, prefix):
        found = {key.removeprefix(prefix): self.one(key) for key in self.items if key.startswith(prefix)}
        return {name: one for name, one in found.items() if FITS.fullmatch(name)}

    def one(self, key):
        return json.loads(self.items[key][0]) if key in self.items else None

    def unchanged(self, key):
        """The guard that it is still as we know it."""
        return "check", key, self.items[key][1] if key in self.items else 0


class Memory:
    """Since when hosts have been away, and who rejected what. It dies with the process, and nothing depends on it."""

    away, rejections, known = {}, {}, set()

    def look(self, world):
        now, used = time.monotonic(), {one["host"] for one in world.tasks.values()}
        away = used - world.alive.keys()
        if not world.alive or len(away) > max(2, len(used) * 0.3):
            away = ()  # rather the way to so many is broken: doubling their tasks would make it worse
        self.away = {host: self.away.get(host, now) for host in away}
        rejected = {world.unchanged(f"state/tasks/{id}"): one for id, one in world.tasks.items() if one.get("rejected")}
        for one in (rejected[seen] for seen in rejected.keys() - self.known):
            what = one["host"], one["service"], one["task_definition"]["version"]
            times = self.rejections.get(what, (0,))[0] + 1
            self.rejections[what] = times, now + min(300, 5 * 2 ** (times - 1)), one.get("reject_reason", "")
        self.known = rejected.keys()

    def lost(self, host):
        return time.monotonic() - self.away.get(host, float("inf")) >= LOST_AFTER

    def avoided(self, *what):
        _, until, why = self.rejections.get(what, (0, 0, ""))
        return f"rejected one: {why}" if time.monotonic() < until else None


def needs(definition):
    """What one task takes: what its definition says, or the sum over the containers."""

    def total(what):
        return sum(one.get(what) or 0 for one in definition.get("containers", ()))

    said = {what: definition.get(what) or total(what) for what in ("memory", "cpu_units")}
    return said | {"disk": total("disk_use")}


def free_port(there, host):
    """One that nobody has, from anywhere in the host's range: one that was just left had better rest."""
    first, last = host.get("port_range", (20000, 29999))
    free = {*range(first, last + 1)} - {*host.get("ports", ())} - {one.get("port") for one in there}
    return random.choice([*free]) if free else None


def refusals(world, memory, there, host, service, cluster, definition):
    """Why `host` takes no more task; empty if it does. `there`: all that are on it, those about to be included."""
    name, port, there = host["name"], definition.get("port"), [one for one in there if not one.get("rejected")]
    if cluster.get("hosts") is not None and name not in cluster["hosts"]:
        yield f"not among the hosts of cluster {cluster['name']}"
    if name not in world.alive:
        yield "its agent is not running"
    if name in world.marks:
        yield world.marks[name]["state"]
    if why := memory.avoided(name, service, definition["version"]):
        yield why
    if lacking := {one["type"] for one in definition.get("containers", ())} - {*host.get("executors", ())}:
        yield f"no executor {', '.join(sorted(lacking))}"
    for what, wanted in needs(definition).items():
        if wanted > (free := host.get(what, 0) - sum(needs(one["task_definition"])[what] for one in there)):
            yield f"{what}: free {free} < {wanted}"
    if definition.get("provide_port") and free_port(there, host) is None:
        yield "no port is free"
    if port and (port in host.get("ports", ()) or port in (one.get("port") for one in there)):
        yield f"port {port} is taken"


def plan(world, memory, name, cluster_name, healthy, changes):
    """For the tasks of one service in one cluster: put {id: the task as it is to be, or None} into `changes`; returns
    the status, and whether all tasks are of the wanted version and healthy."""
    cluster, service = world.clusters.get(cluster_name), world.services.get(name)
    wanted = bool(service and cluster and name in cluster.get("services", ()))
    desired, least, most = (service["desired"], service["min"], service["max"]) if wanted else (0, 0, 0)
    said = {"desired": desired, "issued": 0, "waiting": 0, "blocked": "", "hosts": {}}
    key = f"config/task_definitions/{service['task_name']}/{service['task_version']}" if wanted else ""
    definition = world.one(key)
    if wanted and (definition is None or service.get("placement")):
        said["blocked"] = f"{NAME} knows no placement rules" if definition else f"there is no {key}"
        return said, False

    def belongs(one):
        return (one["service"], one["cluster"]["name"]) == (name, cluster_name)

    def may_stay(host):
        draining = world.marks.get(host, {}).get("state") == "draining"
        return cluster and not draining and (cluster.get("hosts") is None or host in cluster["hosts"])

    # What each task is: being stopped; a hole, which runs no more; good; or old, which has to be replaced.
    tasks = {id: one for id, one in (world.tasks | changes).items() if one}
    stopping, holes, good, old = [], [], [], []
    restarting = [one["task"] for one in (world.one(f"scheduling/moves/{name}") or {"moves": []})["moves"]]
    for id, one in sorted(tasks.items(), key=lambda pair: pair[1]["instance"]):
        its = one["task_definition"]
        if not belongs(one):
            continue
        if not one.get("scheduled", True):
            if memory.lost(one["host"]):
                changes[id] = None  # nobody is left there to confirm that it is gone
            stopping.append(id)
        elif one.get("rejected") or memory.lost(one["host"]):
            holes.append(id)
        elif wanted and all(its[it] == definition[it] for it in ("name", "version")) and may_stay(one["host"]):
            (old if id in restarting else good).append(id)
        else:
            old.append(id)
    holes.sort(key=lambda it: bool(tasks[it].get("rejected")))  # rather those that may yet run go first
    leaving = sorted(good, key=lambda it: it not in healthy)[desired:]

    # Issue what is missing, but never more than `max` at once.
    for _ in range(min(desired - len(good), most - len(good) - len(old) - len(stopping), BATCH)):
        there = {host: [one for one in tasks.values() if one["host"] == host] for host in world.hosts}
        asked = ((host, there[host], one, name, cluster, definition) for host, one in world.hosts.items())
        found = {host: [*refusals(world, memory, *more)] for host, *more in asked}
        spread = [tasks[id]["host"] for id in good]
        host = min(
            (host for host, why in found.items() if not why), key=lambda it: (spread.count(it), it), default=None
        )
        if host is None:
            said |= {"waiting": desired - len(good), "hosts": dict([*found.items()][:100])}
            break
        if holes:
            changes[holes[0]] = None
            del tasks[holes.pop(0)]
        number, start = 0, f"{cluster_name}-{name}-{definition['version']}-"
        while f"{start}{number}" in tasks:
            number += 1
        port = (
            free_port(there[host], world.hosts[host]) if definition.get("provide_port") else definition.get("port", 0)
        )
        task = {"cluster": cluster, "task_definition": definition, "service": name, "instance": number, "port": port}
        task |= {"host": host, "scheduled": True, "rejected": False, "reject_reason": ""}
        changes[f"{start}{number}"] = tasks[f"{start}{number}"] = task
        good.append(f"{start}{number}")
    if len(good) >= desired:
        changes |= dict.fromkeys(holes)

    # Replace what is old once what takes its place is healthy; where there is no room for that, as far as `min` allows.
    waits_for = [id for id in good if id not in healthy]
    surplus = len(good) + len(old) - desired
    if surplus <= 0 and not stopping:
        surplus = 1
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
    changes |= {id: tasks[id] | {"scheduled": False} for id in leaving}  # its agent stops it, and removes the keys
    if old and not leaving and not stopping:
        said["blocked"] = f"waiting for {waits_for[0]} to become healthy" if waits_for else "min and max leave no room"
    after = [one for one in (world.tasks | changes).values() if one and belongs(one)]
    said["issued"] = len([one for one in after if one.get("scheduled", True) and not one.get("rejected")])
    return said, not old and not waits_for and len(good) == desired


def work(world, memory, name, healthy_in):
    """The operations that bring the service on, as many as fit into one commit; empty if there is nothing to do."""
    clusters = {
        key for key, one in world.clusters.items() if name in world.services and name in one.get("services", ())
    }
    clusters |= {one["cluster"]["name"] for one in world.tasks.values() if one["service"] == name}
    said, under_way, asked = f"status/services/{name}", f"scheduling/rollouts/{name}", f"scheduling/moves/{name}"
    if name not in world.services and not clusters:  # deleted, and the last task gone: nothing is left to say
        ended = [key for key in world.items if key.startswith(f"rollouts/{name}/")]
        return [("check", f"config/services/{name}", 0), *(("delete", key) for key in (said, under_way, asked, *ended))]
    changes, ops = {}, []
    planned = {one: plan(world, memory, name, one, healthy_in(one, name), changes) for one in sorted(clusters)}
    for id, task in [*changes.items()][:BATCH]:
        before = world.tasks.get(id)
        ops.append(world.unchanged(f"state/tasks/{id}"))
        if before and (task is None or task["host"] != before["host"]):
            ops.append(("delete", f"state/hosts/{before['host']}/{id}"))
        if task is None:
            ops.append(("delete", f"state/tasks/{id}"))
        else:  # both keys, with the same bytes
            ops += [("put", one, json.dumps(task)) for one in (f"state/tasks/{id}", f"state/hosts/{task['host']}/{id}")]
    if changes:
        ops.append(("put", f"scheduling/changed/{name}", NAME))  # Sked's schedulers count what our tasks take
    status = {"scheduler": NAME, "clusters": {one: of_it for one, (of_it, _) in planned.items()}, "decisions": 0}
    if world.one(said) != status:
        ops.append(("put", said, json.dumps(status)))
    if (rollout := world.one(under_way)) and all(done for _, done in planned.values()):
        ended = {"result": "succeeded", "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        ops += [("delete", under_way), ("put", f"rollouts/{name}/{rollout['number']}", json.dumps(rollout | ended))]
        ops.append(("delete", f"rollouts/{name}/{rollout['number'] - 20}"))
    if moves := world.one(asked):
        left = [one for one in moves["moves"] if one["task"] in world.tasks]
        if len(left) < len(moves["moves"]):
            ops.append(("put", asked, json.dumps(moves | {"moves": left})) if left else ("delete", asked))
    return ops and [world.unchanged(f"config/services/{name}"), world.unchanged(f"scheduling/changed/{name}"), *ops]


def evaluate(store, memory, name, world):
    """Do what there is to do for one service, under its lock; whether anything was done."""
    lock = f"locks/services/{name}"
    if not work(world, memory, name, store.healthy) or not store.commit([("check", lock, 0), ("bind", lock, NAME)]):
        return False
    ops = work(World(store.read()), memory, name, store.healthy)  # as it is now that no other scheduler changes it
    if ops and store.commit([("fence", lock), *ops, ("delete", lock)]):
        return True
    store.commit([("fence", lock), ("delete", lock)])  # an agent was faster: the next round sees
    return False


def go_round(store, memory):
    """Look at every service that is ours; whether anything was done."""
    if not store.lease or not store.renew():
        store.take_lease()
        me = f"scheduling/schedulers/{NAME}-{os.uname().nodename}-{os.urandom(4).hex()}"
        store.commit([("bind", me, json.dumps({"schedulers": [NAME]}))])  # for `sked status` to know
    world = World(store.read())
    memory.look(world)
    # Those that are declared no more, too, whose status says that we have placed them.
    known = world.statuses | world.services
    mine = [name for name, one in known.items() if one.get("scheduler") == NAME]
    return True in [evaluate(store, memory, name, world) for name in mine]


def main():
    kind, _, address = os.environ["SKED_BACKEND"].partition("://")
    store = {"consul": Consul, "etcd": Etcd}[kind.partition("+")[0]](address, kind.endswith("+https"))
    memory = Memory()
    while True:
        try:
            if not go_round(store, memory):
                time.sleep(1)
        except Exception as error:  # the store is away, or a record can't be read: what runs goes on meanwhile
            print(f"{type(error).__name__}: {error}; retrying", file=sys.stderr, flush=True)
            store.lease = ""  # what a commit without an answer has locked goes with the lease
            memory.away = {}  # while nobody could know, no host was away
            time.sleep(1)


if __name__ == "__main__":
    main()
