#!/usr/bin/env python3
"""A scheduler for Sked that shares nothing with it but the store: Python's standard library, and no line of Sked.

    SKED_BACKEND=consul://127.0.0.1:8500 ./scheduler.py NAME        (or etcd://127.0.0.1:2379)

places every service that says `scheduler: NAME`. Run as many of it as you like, and kill any of them at any time.
docs/outside-schedulers.md says why each write looks as it does. LOST_AFTER: seconds without a living agent after which
a host's tasks are replaced; SKED_PREFIX: of all keys.
"""

import itertools
import json
import os
import random
import re
import sys
import time

from stores import Consul, Etcd

NAME, LOST_AFTER = sys.argv[1], float(os.environ.get("LOST_AFTER", "60"))
BATCH = 16  # changes in one commit, of 3 operations each: Consul takes 64 in a transaction, etcd 128
AWAY, REJECTED = {}, {}  # since when hosts are away; when who rejected what. Nothing depends on it, and it may be lost


class World:
    """What stands in the store at one moment. Raises for what can't be read, and then nothing is done."""

    def __init__(self, items):
        self.items, now = items, time.monotonic()
        self.tasks, self.services = self.below("state/tasks/"), self.below("config/services/")
        self.clusters, self.hosts = self.below("config/clusters/"), self.below("config/hosts/")
        self.alive, self.marks = self.below("hosts/live/"), self.below("hosts/marks/")
        used = {one["host"] for one in self.tasks.values()}
        away = {host: AWAY.get(host, now) for host in used - self.alive.keys()}
        AWAY.clear()
        if len(away) <= max(2, len(used) * 0.3):  # else rather the way to them is broken, and they run on
            AWAY.update(away)
        self.lost = {host for host, since in AWAY.items() if now - since >= LOST_AFTER}
        for id, one in self.tasks.items():
            if one.get("rejected"):
                seen = REJECTED.setdefault((one["host"], *version(one["task_definition"])), {})
                seen.setdefault(self.unchanged(f"state/tasks/{id}"), now)

    def below(self, prefix):
        """By name, without those that can't be names: they might say something to a URL."""
        names = [key.removeprefix(prefix) for key in self.items if key.startswith(prefix)]
        return {name: self.one(prefix + name) for name in names if re.fullmatch("[A-Za-z0-9._-]+", name)}

    def one(self, key):
        return json.loads(self.items[key][0]) if key in self.items else None

    def unchanged(self, key):
        """The guard that it is still as it was read."""
        return "check", key, self.items[key][1] if key in self.items else 0


def version(definition):
    return definition["name"], definition["version"]


def needs(definition):
    """What one task takes: what its definition says, or the sum over the containers."""
    keys = {"memory": "memory", "cpu_units": "cpu_units", "disk": "disk_use"}
    total = {what: sum(one.get(key) or 0 for one in definition.get("containers", ())) for what, key in keys.items()}
    return {what: definition.get(what) or total[what] for what in keys}


def may_use(cluster, host):
    return cluster.get("hosts") is None or host in cluster["hosts"]


def ports(host, there, definition):
    """Those that one more task may be given; 0 where it needs none."""
    first, last = host["port_range"]
    asked = {*range(first, last + 1)} if definition.get("provide_port") else {definition.get("port", 0)}
    return [*asked - ({*host["ports"], *(one.get("port") for one in there)} - {0})]


def refusals(world, host, there, cluster, definition):
    """Why a host takes no more; empty if it does. `there`: the tasks that take something of it."""
    name, rejected = host["name"], REJECTED.get((host["name"], *version(definition)))
    if not may_use(cluster, name):
        yield f"not among the hosts of cluster {cluster['name']}"
    if name not in world.alive:
        yield "its agent is not running"
    if name in world.marks:
        yield world.marks[name]["state"]
    if rejected and time.monotonic() < max(rejected.values()) + min(300, 2.5 * 2 ** len(rejected)):
        yield "rejected one lately"
    for executor in {one["type"] for one in definition.get("containers", ())} - {*host["executors"]}:
        yield f"no executor {executor}"
    for what, wanted in needs(definition).items():
        if wanted > (free := host[what] - sum(needs(one["task_definition"])[what] for one in there)):
            yield f"{what}: free {free} < {wanted}"
    if not ports(host, there, definition):
        yield "no port is free"


def issue(world, name, cluster, definition, tasks, spread):
    """Add one more task to `tasks`, where there are fewest of `spread`. Its id, or what each host has against it."""
    active = [one for one in tasks.values() if not one.get("rejected")]
    there = {host: [one for one in active if one["host"] == host] for host in world.hosts}
    found = {key: [*refusals(world, host, there[key], cluster, definition)] for key, host in world.hosts.items()}
    free = [host for host, why in found.items() if not why]
    if not free:
        return None, found
    used = [tasks[id]["host"] for id in spread]
    host = min(free, key=lambda it: (used.count(it), it))
    start = f"{cluster['name']}-{name}-{definition['version']}-"
    number = next(it for it in itertools.count() if f"{start}{it}" not in tasks | world.tasks)
    port = random.choice(ports(world.hosts[host], there[host], definition))  # one that was just left had better rest
    task = {"cluster": cluster, "task_definition": definition, "service": name, "instance": number, "port": port}
    tasks[f"{start}{number}"] = task | {"host": host, "scheduled": True, "rejected": False, "reject_reason": ""}
    return f"{start}{number}", {}


def plan(world, name, where, healthy, tasks):
    """Bring `tasks`, all that there are, nearer to what a service wants in one cluster. Returns its status, and whether
    all is of the wanted version and healthy."""
    service, cluster = world.services.get(name), world.clusters.get(where)
    wanted = service and cluster and name in cluster["services"]
    desired, least, most = (service["desired"], service["min"], service["max"]) if wanted else (0, 0, 0)
    key = wanted and f"config/task_definitions/{service['task_name']}/{service['task_version']}"
    definition = world.one(key)
    own = [id for id, one in tasks.items() if (one["service"], one["cluster"]["name"]) == (name, where)]
    said = {"desired": desired, "issued": len(own), "waiting": 0, "blocked": "", "hosts": {}}
    if wanted and (not definition or service.get("placement")):
        said["blocked"] = f"{NAME} knows no placement rules" if definition else f"there is no {key}"
        return said, False

    marks = {id: world.marks.get(tasks[id]["host"], {}) for id in own}
    may_stay = {id for id in own if wanted and may_use(cluster, tasks[id]["host"])}
    may_stay -= {id for id in own if marks[id].get("state") == "draining"}

    # A task is a hole, which runs no more; or is being stopped; or is good; or is old, and has to be replaced.
    moved = [one["task"] for one in (world.one(f"scheduling/moves/{name}") or {"moves": ()})["moves"]]
    holes = [id for id in own if tasks[id].get("rejected") or tasks[id]["host"] in world.lost]
    stopping = [id for id in own if not tasks[id].get("scheduled", True) and id not in holes]
    running = [id for id in own if id not in holes + stopping]
    kept = [id for id in running if id in may_stay and id not in moved]
    good = [id for id in kept if version(tasks[id]["task_definition"]) == version(definition)]
    old = [id for id in running if id not in good]

    # Issue what is missing, each in the stead of a hole, but never more than `max` at once.
    new, fit = [], BATCH - min(len(holes), BATCH // 2)
    for _ in range(min(desired - len(good), most - len(running + stopping), fit)):
        id, refused = issue(world, name, cluster, definition, tasks, good + new)
        if not id:
            said |= {"waiting": desired - len(good + new), "hosts": dict([*refused.items()][:100])}
            break
        new.append(id)
    holes.sort(key=lambda it: bool(tasks[it].get("rejected")))  # rather those that may yet run go first
    for id in holes if len(good + new) >= desired else holes[: len(new)]:
        del tasks[id]

    # Withdraw what is too much, and what is old once what replaces it is healthy or, where there is no room for that,
    # as far as `min` allows. While nothing can be placed elsewhere, nothing leaves its host for that.
    waits_for = [id for id in good + new if id not in healthy]
    leaving = sorted(good, key=lambda it: (it not in healthy, tasks[it]["instance"]))[desired:]
    leaving += [id for id in old if not wanted or marks[id].get("force")]
    may = [id for id in old if id not in leaving and not waits_for and (id in may_stay or not said["waiting"])]
    spare = max(0, len([id for id in running if id in healthy and id not in leaving]) - least)
    may = [id for id in may if id not in healthy] + [id for id in may if id in healthy][:spare]
    leaving += may[: max(len(running) - len(leaving) - desired, 0 if stopping + leaving else 1)]
    for id in leaving:
        tasks[id] = tasks[id] | {"scheduled": False}  # its agent stops it, and removes the keys
    if old and not leaving + stopping:
        said["blocked"] = f"waiting for {waits_for[0]} to become healthy" if waits_for else "min and max leave no room"
    said["issued"] = len(running + new) - len(leaving)
    return said, not old + leaving + waits_for and len(good) == desired


def work(world, name, healthy_in):
    """The operations that bring a service on, as many as fit into one commit; empty if there is nothing to do."""
    said, under_way, asked = f"status/services/{name}", f"scheduling/rollouts/{name}", f"scheduling/moves/{name}"
    guards = [world.unchanged(f"config/services/{name}"), world.unchanged(f"scheduling/changed/{name}")]
    ops, tasks = [], dict(world.tasks)
    clusters = {one["cluster"]["name"] for one in tasks.values() if one["service"] == name}
    if name in world.services:
        clusters |= {key for key, one in world.clusters.items() if name in one["services"]}
    elif not clusters:  # deleted, and the last task gone: nothing is left to say
        return guards + [("delete", key) for key in (said, under_way, asked, f"rollouts/{name}/")]
    planned = {one: plan(world, name, one, healthy_in(one, name), tasks) for one in sorted(clusters)}
    changed = [id for id in world.tasks | tasks if tasks.get(id) is not world.tasks.get(id)]
    for id in changed[:BATCH]:
        one = tasks.get(id)
        both = f"state/tasks/{id}", f"state/hosts/{(one or world.tasks[id])['host']}/{id}"
        guards.append(world.unchanged(both[0]))
        ops += [("put", key, json.dumps(one)) if one else ("delete", key) for key in both]
    if changed:
        ops.append(("put", f"scheduling/changed/{name}", NAME))  # Sked's schedulers count what our tasks take
    status = {"scheduler": NAME, "clusters": {one: told for one, (told, _) in planned.items()}, "decisions": 0}
    if world.one(said) != status:
        ops.append(("put", said, json.dumps(status)))
    if (rollout := world.one(under_way)) and all(done for _, done in planned.values()):
        rollout |= {"result": "succeeded", "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        history = f"rollouts/{name}/"
        ops += [("delete", under_way), ("put", f"{history}{rollout['number']}", json.dumps(rollout))]
        ops.append(("delete", f"{history}{rollout['number'] - 20}"))
    if moves := world.one(asked):
        left = [one for one in moves["moves"] if one["task"] in world.tasks]
        if left != moves["moves"]:
            ops.append(("put", asked, json.dumps(moves | {"moves": left})) if left else ("delete", asked))
    return ops and guards + ops


def evaluate(store, name, world):
    """Do what there is to do for one service, under its lock; whether anything was done."""
    lock = f"locks/services/{name}"
    if not work(world, name, store.healthy) or not store.commit([("check", lock, 0), ("bind", lock, NAME)]):
        return False
    ops = work(World(store.read()), name, store.healthy)  # as it is now that no other scheduler changes it
    done = store.commit([("fence", lock), *ops, ("delete", lock)])
    if not done:  # an agent, or who declares, was faster: the next round sees
        store.commit([("fence", lock), ("delete", lock)])
    return done


def serve(store):
    """Look at every service that is ours, declared no more or not, again and again."""
    me = f"scheduling/schedulers/{NAME}-{store.lease}"  # for `sked status` to know that somebody is there
    store.commit([("bind", me, json.dumps({"schedulers": [NAME]}))])
    while True:
        store.renew()
        world = World(store.read())
        known = world.below("status/services/") | world.services
        ours = [name for name, one in known.items() if one.get("scheduler") == NAME and "meta/store_uid" in world.items]
        if True not in [evaluate(store, name, world) for name in ours]:
            time.sleep(1)


while True:
    kind, _, address = os.environ["SKED_BACKEND"].partition("://")
    try:
        serve({"consul": Consul, "etcd": Etcd}[kind.partition("+")[0]](address, kind.endswith("+https")))
    except Exception as error:  # no answer, no lease, a record that can't be read: what runs goes on meanwhile
        print(f"{type(error).__name__}: {error}; retrying", file=sys.stderr, flush=True)
        AWAY.clear()  # while nobody could know, no host was away
        time.sleep(2)  # what a commit without an answer has locked goes with the former lease
