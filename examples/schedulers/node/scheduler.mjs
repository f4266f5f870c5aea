#!/usr/bin/env node
// A scheduler for Sked that shares nothing with it but the store: Node without any package, and no line of Sked.
//
//     SKED_BACKEND=consul://127.0.0.1:8500 ./scheduler.mjs NAME        (or etcd://127.0.0.1:2379)
//
// places every service that says `scheduler: NAME`. Run as many of it as you like, and kill any of them at any time.
// docs/outside-schedulers.md says why each write looks as it does. LOST_AFTER: seconds without a living agent after
// which a host's tasks are replaced; SKED_PREFIX: of all keys.

import { randomBytes, randomInt } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { Consul, Etcd } from "./stores.mjs";

const NAME = process.argv[2];
const LOST_AFTER = Number(process.env.LOST_AFTER ?? 60);
// What can be a name: what has another one Sked does not know either, and it might say something in a URL.
const FITS = /^[A-Za-z0-9._-]+$/;
const BATCH = 14; // changes in one commit, of up to 4 operations each: Consul takes 64 in a transaction, etcd 128
const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);

// What stands in the store at one moment. Raises for what can't be read, and then nothing is done: unreadable is not
// absent.
class World {
  constructor(items, memory) {
    this.items = items;
    this.tasks = this.named("state/tasks/");
    this.services = this.named("config/services/");
    this.clusters = this.named("config/clusters/");
    this.hosts = this.named("config/hosts/");
    this.marks = this.named("hosts/marks/");
    this.alive = new Set(this.named("hosts/live/").keys());
    [this.lost, this.avoided] = memory.look(this);
  }

  below(prefix) {
    const found = [...this.items].filter(([key]) => key.startsWith(prefix));
    return found.map(([key, { value }]) => [key, JSON.parse(value)]);
  }

  named(prefix) {
    const found = this.below(prefix).map(([key, one]) => [key.slice(prefix.length), one]);
    return new Map(found.filter(([name]) => FITS.test(name)));
  }

  one(key) {
    return this.items.has(key) ? JSON.parse(this.items.get(key).value) : undefined;
  }

  // The guard that it is still as we know it.
  unchanged(key) {
    return ["check", key, this.items.get(key)?.revision ?? 0];
  }

  // What `sked restart` asks for of those tasks that are still there.
  moves(name) {
    return (this.one(`scheduling/moves/${name}`)?.moves ?? []).filter((one) => this.tasks.has(one.task));
  }

  // Services that we place, and those that are declared no more whose status says that we did.
  mine() {
    const placed = [...this.named("status/services/")].filter(([name]) => !this.services.has(name));
    return [...this.services, ...placed].filter(([, one]) => one.scheduler === NAME).map(([name]) => name);
  }
}

// Since when hosts have been away, and who rejected what. It dies with the process, and nothing depends on it.
class Memory {
  away = new Map();
  noted = new Set();
  rejections = new Map();

  // The hosts that are lost, and what is not tried again yet, with the reason.
  look(world) {
    const now = performance.now() / 1000;
    const used = [...new Set([...world.tasks.values()].map((one) => one.host))];
    const absent = used.filter((host) => !world.alive.has(host));
    // Where so many are away rather the way to them is broken: doubling their tasks would make it worse.
    const believed = world.alive.size && absent.length <= Math.max(2, used.length * 0.3) ? absent : [];
    this.away = new Map(believed.map((host) => [host, this.away.get(host) ?? now]));
    const rejected = [...world.tasks].filter(([, task]) => task.rejected);
    for (const [id, task] of rejected) {
      if (this.noted.has(`${world.unchanged(`state/tasks/${id}`)}`)) continue;
      const what = `${task.host} ${task.service} ${task.task_definition.version}`;
      const count = (this.rejections.get(what)?.count ?? 0) + 1;
      const until = now + Math.min(300, 5 * 2 ** (count - 1));
      this.rejections.set(what, { count, until, why: task.reject_reason });
    }
    this.noted = new Set(rejected.map(([id]) => `${world.unchanged(`state/tasks/${id}`)}`));
    const lost = [...this.away].filter(([, since]) => now - since >= LOST_AFTER).map(([host]) => host);
    return [new Set(lost), new Map([...this.rejections].filter(([, one]) => one.until > now))];
  }
}

// What one task takes: what its definition says, or the sum over the containers.
function needs(definition) {
  const total = (what) => sum((definition.containers ?? []).map((one) => one[what] || 0));
  return {
    memory: definition.memory || total("memory"),
    cpu_units: definition.cpu_units || total("cpu_units"),
    disk: total("disk_use"),
  };
}

// One that nobody has, from anywhere in the host's range: one that was just left had better rest. undefined: there is
// none.
function freePort(there, host) {
  const [first, last] = host.port_range ?? [20000, 29999];
  const taken = new Set([...(host.ports ?? []), ...there.map((one) => one.port)]);
  const size = last - first + 1;
  for (let number = 0, start = randomInt(size); number < size; number++) {
    const port = first + ((start + number) % size);
    if (!taken.has(port)) return port;
  }
}

// Why `host` takes no more task; empty if it does. `tasks`: all that are there, those about to be included.
function refusals(world, tasks, host, service, cluster, definition) {
  const there = [...tasks.values()].filter((one) => one.host === host.name && !one.rejected);
  const avoided = world.avoided.get(`${host.name} ${service} ${definition.version}`);
  const lacking = (definition.containers ?? []).map((one) => one.type).filter((type) => !host.executors?.includes(type));
  const found = [];
  if (cluster.hosts && !cluster.hosts.includes(host.name)) found.push(`not among the hosts of cluster ${cluster.name}`);
  if (!world.alive.has(host.name)) found.push("its agent is not running");
  if (world.marks.has(host.name)) found.push(world.marks.get(host.name).state);
  if (avoided) found.push(`rejected one: ${avoided.why}`);
  if (lacking.length) found.push(`no executor ${[...new Set(lacking)].join(", ")}`);
  for (const [what, wanted] of Object.entries(needs(definition))) {
    const free = (host[what] ?? 0) - sum(there.map((one) => needs(one.task_definition)[what]));
    if (wanted > free) found.push(`${what}: free ${free} < ${wanted}`);
  }
  if (definition.provide_port && freePort(there, host) === undefined) found.push("no port is free");
  const port = definition.port;
  if (port && [...(host.ports ?? []), ...there.map((one) => one.port)].includes(port)) found.push(`port ${port} is taken`);
  return found;
}

// For one service: task id -> the task as it is to be, or null; the status of each cluster; and whether all tasks are of
// the wanted version and healthy.
async function plan(world, name, healthyIn) {
  const service = world.services.get(name);
  const [tasks, changes, status] = [new Map(world.tasks), new Map(), {}];
  const listing = [...world.clusters].filter(([, one]) => service && one.services?.includes(name)).map(([key]) => key);
  const placedIn = [...tasks.values()].filter((one) => one.service === name).map((one) => one.cluster.name);
  let rolledOut = true;

  const change = (id, task) => {
    changes.set(id, task);
    if (task) tasks.set(id, task);
    else tasks.delete(id);
  };

  for (const clusterName of [...new Set([...listing, ...placedIn])].sort()) {
    const own = [...tasks]
      .filter(([, one]) => one.service === name && one.cluster.name === clusterName)
      .sort(([, a], [, b]) => a.instance - b.instance)
      .map(([id]) => id);
    const [cluster, wanted] = [world.clusters.get(clusterName), listing.includes(clusterName)];
    const { desired, min, max } = wanted ? service : { desired: 0, min: 0, max: 0 };
    const said = (status[clusterName] = { desired, waiting: 0, blocked: "", hosts: {} });
    const key = wanted ? `config/task_definitions/${service.task_name}/${service.task_version}` : "";
    const definition = world.one(key);
    if (wanted && (!definition || service.placement)) {
      said.blocked = definition ? `${NAME} knows no placement rules` : `there is no ${key}`;
      rolledOut = false;
      continue;
    }
    const mayStay = (host) =>
      cluster && world.marks.get(host)?.state !== "draining" && (!cluster.hosts || cluster.hosts.includes(host));
    const same = ({ task_definition: one }) =>
      definition && one.name === definition.name && one.version === definition.version;
    const healthy = await healthyIn(clusterName);
    const unhealthyFirst = (a, b) => healthy.has(a) - healthy.has(b);

    const at = (id) => tasks.get(id);
    const moved = world.moves(name).map((one) => one.task);
    const stopping = own.filter((id) => at(id).scheduled === false);
    const holes = own.filter((id) => at(id).scheduled !== false && (at(id).rejected || world.lost.has(at(id).host)));
    holes.sort((a, b) => Boolean(at(a).rejected) - Boolean(at(b).rejected)); // rather those that may yet run go first
    const running = own.filter((id) => !stopping.includes(id) && !holes.includes(id));
    const good = running.filter((id) => !moved.includes(id) && same(at(id)) && mayStay(at(id).host));
    const old = running.filter((id) => !good.includes(id));

    // What is issued as `scheduled` false is stopped by its agent, which then removes the keys.
    const leaving = [...good].sort((a, b) => unhealthyFirst(b, a)).slice(desired);
    for (const id of stopping) if (world.lost.has(at(id).host)) change(id, null); // nobody is left there to confirm it

    // Issue what is missing, but never more than `max` at once.
    const room = max - good.length - old.length - stopping.length;
    for (let left = Math.min(desired - good.length, room, BATCH); left > 0; left--) {
      const found = [...world.hosts].map(([key, one]) => [key, refusals(world, tasks, one, name, cluster, definition)]);
      const there = good.map((id) => at(id).host); // spread those that are to stay
      const count = (host) => there.filter((one) => one === host).length;
      const free = found.filter(([, why]) => !why.length).map(([key]) => key);
      if (!free.length) {
        Object.assign(said, { waiting: desired - good.length, hosts: Object.fromEntries(found.slice(0, 100)) });
        break;
      }
      free.sort((a, b) => count(a) - count(b) || (a < b ? -1 : 1));
      const host = world.hosts.get(free[0]);
      if (holes.length) change(holes.shift(), null);
      let instance = 0;
      while (tasks.has(`${clusterName}-${name}-${definition.version}-${instance}`)) instance++;
      const id = `${clusterName}-${name}-${definition.version}-${instance}`;
      const onHost = [...tasks.values()].filter((one) => one.host === host.name);
      const port = definition.provide_port ? freePort(onHost, host) : (definition.port ?? 0);
      const issued = { cluster, task_definition: definition, service: name, instance, port, host: host.name };
      change(id, { ...issued, scheduled: true, rejected: false, reject_reason: "" });
      good.push(id);
    }
    if (good.length >= desired) for (const id of holes) change(id, null);

    // Replace what is of another version, or has to leave its host, once what takes its place is healthy.
    const waitsFor = good.filter((id) => !healthy.has(id));
    let surplus = good.length + old.length - desired;
    if (surplus <= 0 && !stopping.length) surplus = 1; // no room for a replacement: make some, as far as `min` allows
    let spare = [...good, ...old].filter((id) => healthy.has(id)).length - min;
    for (const id of [...old].sort(unhealthyFirst)) {
      if (world.marks.get(at(id).host)?.force || !wanted) leaving.push(id);
      else if (said.waiting && !mayStay(at(id).host)) continue; // nothing can be placed where it leaves: it stays
      else if (!waitsFor.length && surplus > 0 && (spare > 0 || !healthy.has(id))) {
        leaving.push(id);
        surplus--;
        if (healthy.has(id)) spare--;
      }
    }
    for (const id of leaving) change(id, { ...at(id), scheduled: false });
    if (old.length && !leaving.length && !stopping.length)
      said.blocked = waitsFor.length ? `waiting for ${waitsFor[0]} to become healthy` : "min and max leave no room";
    rolledOut &&= !old.length && !waitsFor.length && good.length === desired;
  }
  return { changes, status, rolledOut };
}

// The operations that bring the service on, as many as fit into one commit; empty if there is nothing to do.
async function work(world, name, healthyIn) {
  const { changes, status, rolledOut } = await plan(world, name, healthyIn);
  const [after, ops] = [new Map(world.tasks), []];
  for (const [id, task] of [...changes].slice(0, BATCH)) {
    const before = world.tasks.get(id);
    ops.push(world.unchanged(`state/tasks/${id}`));
    if (before && before.host !== task?.host) ops.push(["delete", `state/hosts/${before.host}/${id}`]);
    if (task) {
      const value = JSON.stringify(task); // both keys, with the same bytes
      ops.push(["put", `state/tasks/${id}`, value], ["put", `state/hosts/${task.host}/${id}`, value]);
      after.set(id, task);
    } else {
      ops.push(["delete", `state/tasks/${id}`]);
      after.delete(id);
    }
  }
  if (changes.size) ops.push(["put", `scheduling/changed/${name}`, NAME]); // for Sked's to count what our tasks take
  const [key, underWay, asked] = [`status/services/${name}`, `scheduling/rollouts/${name}`, `scheduling/moves/${name}`];
  if (!world.services.has(name) && !Object.keys(status).length) {
    // Deleted, and the last task gone: nothing is left to say.
    const ended = [...world.items.keys()].filter((one) => one.startsWith(`rollouts/${name}/`));
    return [["check", `config/services/${name}`, 0], ...[key, underWay, asked, ...ended].map((one) => ["delete", one])];
  }
  for (const [cluster, said] of Object.entries(status)) {
    const runs = [...after.values()].filter((one) => one.scheduled !== false && !one.rejected && one.service === name);
    said.issued = runs.filter((one) => one.cluster.name === cluster).length;
  }
  const said = JSON.stringify({ scheduler: NAME, clusters: status, decisions: 0 });
  if (world.items.get(key)?.value !== said) ops.push(["put", key, said]);
  const rollout = world.one(underWay);
  if (rollout && rolledOut) {
    const ended = `${new Date().toISOString().slice(0, 19)}Z`;
    const value = JSON.stringify({ ...rollout, result: "succeeded", ended });
    ops.push(["delete", underWay], ["put", `rollouts/${name}/${rollout.number}`, value]);
    ops.push(["delete", `rollouts/${name}/${rollout.number - 20}`]);
  }
  const [moves, left] = [world.one(asked), world.moves(name)];
  if (moves && left.length < moves.moves.length)
    ops.push(left.length ? ["put", asked, JSON.stringify({ ...moves, moves: left })] : ["delete", asked]);
  const guards = [`config/services/${name}`, `scheduling/changed/${name}`].map((one) => world.unchanged(one));
  return ops.length ? [...guards, ...ops] : [];
}

// Do what there is to do for one service, under its lock; whether anything was done.
async function evaluate(store, memory, name, world) {
  const todo = (now) => work(now, name, (cluster) => store.healthy(cluster, name));
  const lock = `locks/services/${name}`;
  if (!(await todo(world)).length || !(await store.commit([["check", lock, 0], ["bind", lock, NAME]]))) return false;
  const ops = await todo(new World(await store.read(), memory)); // as it is now that no other scheduler changes it
  if (ops.length && (await store.commit([["fence", lock], ...ops, ["delete", lock]]))) return true;
  await store.commit([["fence", lock], ["delete", lock]]); // an agent was faster: the next round sees
  return false;
}

// Look at every service that is ours; whether anything was done.
async function goRound(store, memory) {
  if (!store.lease || !(await store.renew())) {
    await store.takeLease();
    const me = `scheduling/schedulers/${NAME}-${hostname()}-${randomBytes(4).toString("hex")}`;
    await store.commit([["bind", me, JSON.stringify({ schedulers: [NAME] })]]); // for `sked status` to know
  }
  const world = new World(await store.read(), memory);
  let done = false;
  for (const name of world.mine()) done = (await evaluate(store, memory, name, world)) || done;
  return done;
}

const [kind, address] = process.env.SKED_BACKEND.split("://");
const store = new { consul: Consul, etcd: Etcd }[kind.split("+")[0]](address, kind.endsWith("+https"));
const memory = new Memory();
for (;;) {
  try {
    if (!(await goRound(store, memory))) await sleep(1000);
  } catch (error) {
    // The store is away, or a record can't be read: what runs goes on meanwhile.
    console.error(`${error}; retrying`);
    store.lease = ""; // what a commit without an answer has locked goes with the lease
    memory.away = new Map(); // while nobody could know, no host was away
    await sleep(1000);
  }
}
