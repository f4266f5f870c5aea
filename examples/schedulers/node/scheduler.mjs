#!/usr/bin/env node
// A scheduler for Sked that shares nothing with it but the store: Node without any package, and no line of Sked.
//
//     SKED_BACKEND=consul://127.0.0.1:8500 ./scheduler.mjs NAME        (or etcd://127.0.0.1:2379)
//
// places every service that says `scheduler: NAME`. Run as many of it as you like, and kill any of them at any time.
// docs/outside-schedulers.md says why each write looks as it does. LOST_AFTER: seconds without a living agent after
// which a host's tasks are replaced; SKED_PREFIX: of all keys.

import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "./stores.mjs";

const [NAME, LOST_AFTER] = [process.argv[2], Number(process.env.LOST_AFTER ?? 60)];
const BATCH = 16; // changes in one commit, of 3 operations each: Consul takes 64 in a transaction, etcd 128
const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);
const seconds = () => performance.now() / 1000;
const version = ({ name, version }) => `${name} ${version}`;
const mayUse = (cluster, host) => !cluster.hosts || cluster.hosts.includes(host);

// Since when hosts are away; when who rejected what. Nothing depends on it, and it may be lost.
const [away, rejected] = [new Map(), new Map()];

// What stands in the store at one moment. Raises for what can't be read, and then nothing is done.
class World {
  constructor(items) {
    this.items = items;
    this.tasks = this.below("state/tasks/");
    this.services = this.below("config/services/");
    this.clusters = this.below("config/clusters/");
    this.hosts = this.below("config/hosts/");
    this.marks = this.below("hosts/marks/");
    this.alive = this.below("hosts/live/");
    const now = seconds();
    const used = [...new Set([...this.tasks.values()].map((one) => one.host))];
    const gone = used.filter((host) => !this.alive.has(host)).map((host) => [host, away.get(host) ?? now]);
    away.clear();
    if (gone.length <= Math.max(2, used.length * 0.3)) for (const one of gone) away.set(...one);
    // else rather the way to them is broken, and they run on
    this.lost = new Set([...away].filter(([, since]) => now - since >= LOST_AFTER).map(([host]) => host));
    for (const [id, one] of [...this.tasks].filter(([, one]) => one.rejected)) {
      const what = `${one.host} ${version(one.task_definition)}`;
      if (!rejected.has(what)) rejected.set(what, new Map());
      const [seen, at] = [rejected.get(what), `${this.unchanged(`state/tasks/${id}`)}`];
      if (!seen.has(at)) seen.set(at, now);
    }
  }

  // By name, without those that can't be names: they might say something to a URL.
  below(prefix) {
    const names = [...this.items.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
    const fit = names.filter((name) => /^[A-Za-z0-9._-]+$/.test(name));
    return new Map(fit.map((name) => [name, this.one(prefix + name)]));
  }

  one(key) {
    return this.items.has(key) ? JSON.parse(this.items.get(key).value) : undefined;
  }

  // The guard that it is still as it was read.
  unchanged(key) {
    return ["check", key, this.items.get(key)?.revision ?? 0];
  }
}

// What one task takes: what its definition says, or the sum over the containers.
function needs({ memory, cpu_units, containers = [] }) {
  const total = (what) => sum(containers.map((one) => one[what] ?? 0));
  return { memory: memory || total("memory"), cpu_units: cpu_units || total("cpu_units"), disk: total("disk_use") };
}

// Those that one more task may be given; 0 where it needs none.
function ports(host, there, { provide_port, port = 0 }) {
  const [first, last] = provide_port ? host.port_range : [port, port];
  const taken = new Set([...host.ports, ...there.map((one) => one.port)].filter(Boolean));
  return Array.from({ length: last - first + 1 }, (_, it) => first + it).filter((it) => !taken.has(it));
}

// Why a host takes no more; empty if it does. `there`: the tasks that take something of it.
function refusals(world, host, there, cluster, definition) {
  const found = [];
  if (!mayUse(cluster, host.name)) found.push(`not among the hosts of cluster ${cluster.name}`);
  if (!world.alive.has(host.name)) found.push("its agent is not running");
  if (world.marks.has(host.name)) found.push(world.marks.get(host.name).state);
  const seen = [...(rejected.get(`${host.name} ${version(definition)}`)?.values() ?? [])];
  if (seconds() < Math.max(...seen) + Math.min(300, 2.5 * 2 ** seen.length)) found.push("rejected one lately");
  for (const { type } of definition.containers ?? [])
    if (!host.executors.includes(type)) found.push(`no executor ${type}`);
  for (const [what, wanted] of Object.entries(needs(definition))) {
    const free = host[what] - sum(there.map((one) => needs(one.task_definition)[what]));
    if (wanted > free) found.push(`${what}: free ${free} < ${wanted}`);
  }
  if (!ports(host, there, definition).length) found.push("no port is free");
  return found;
}

// Add one more task to `tasks`, where there are fewest of `spread`. Its id, or what each host has against it.
function issue(world, name, cluster, definition, tasks, spread) {
  const there = (host) => [...tasks.values()].filter((one) => one.host === host && !one.rejected);
  const found = [...world.hosts].map(([key, host]) => [key, refusals(world, host, there(key), cluster, definition)]);
  const count = (host) => spread.filter((id) => tasks.get(id).host === host).length;
  const free = found.filter(([, why]) => !why.length).map(([key]) => key);
  if (!free.length) return { refused: Object.fromEntries(found.slice(0, 100)) };
  const host = free.sort().reduce((best, one) => (count(one) < count(best) ? one : best));
  const start = `${cluster.name}-${name}-${definition.version}-`;
  let instance = 0;
  while (tasks.has(start + instance) || world.tasks.has(start + instance)) instance++;
  const choice = ports(world.hosts.get(host), there(host), definition);
  const port = choice[randomInt(choice.length)]; // one that was just left had better rest
  const task = { cluster, task_definition: definition, service: name, instance, port, host };
  tasks.set(start + instance, { ...task, scheduled: true, rejected: false, reject_reason: "" });
  return { id: start + instance };
}

// Bring `tasks`, all that there are, nearer to what a service wants in one cluster. Returns its status, and whether all
// is of the wanted version and healthy.
function plan(world, name, where, healthy, tasks) {
  const [service, cluster] = [world.services.get(name), world.clusters.get(where)];
  const wanted = service && cluster?.services.includes(name);
  const { desired, min, max } = wanted ? service : { desired: 0, min: 0, max: 0 };
  const key = wanted && `config/task_definitions/${service.task_name}/${service.task_version}`;
  const definition = world.one(key);
  const own = [...tasks.keys()].filter((id) => tasks.get(id).service === name && tasks.get(id).cluster.name === where);
  const said = { desired, issued: own.length, waiting: 0, blocked: "", hosts: {} };
  if (wanted && (!definition || service.placement)) {
    said.blocked = definition ? `${NAME} knows no placement rules` : `there is no ${key}`;
    return [said, false];
  }
  const isHealthy = (id) => healthy.has(id);
  const mark = (id) => world.marks.get(tasks.get(id).host) ?? {};
  const mayStay = (id) => wanted && mayUse(cluster, tasks.get(id).host) && mark(id).state !== "draining";

  // A task is a hole, which runs no more; or is being stopped; or is good; or is old, and has to be replaced.
  const moved = (world.one(`scheduling/moves/${name}`)?.moves ?? []).map((one) => one.task);
  const holes = own.filter((id) => tasks.get(id).rejected || world.lost.has(tasks.get(id).host));
  const stopping = own.filter((id) => tasks.get(id).scheduled === false && !holes.includes(id));
  const running = own.filter((id) => !holes.includes(id) && !stopping.includes(id));
  const kept = running.filter((id) => mayStay(id) && !moved.includes(id));
  const good = kept.filter((id) => version(tasks.get(id).task_definition) === version(definition));
  const old = running.filter((id) => !good.includes(id));

  // Issue what is missing, each in the stead of a hole, but never more than `max` at once.
  const issued = [];
  const room = Math.min(max - running.length - stopping.length, BATCH - Math.min(holes.length, BATCH / 2));
  while (good.length + issued.length < desired && issued.length < room) {
    const { id, refused } = issue(world, name, cluster, definition, tasks, [...good, ...issued]);
    if (refused) {
      Object.assign(said, { waiting: desired - good.length - issued.length, hosts: refused });
      break;
    }
    issued.push(id);
  }
  const [rejects, others] = [true, false].map((it) => holes.filter((id) => Boolean(tasks.get(id).rejected) === it));
  const gone = [...others, ...rejects].slice(0, good.length + issued.length < desired ? issued.length : undefined);
  for (const id of gone) tasks.delete(id); // rather those that may yet run

  // Withdraw what is too much, and what is old once what replaces it is healthy or, where there is no room for that, as
  // far as `min` allows. While nothing can be placed elsewhere, nothing leaves its host for that.
  const waitsFor = [...good, ...issued].filter((id) => !isHealthy(id));
  const order = (id) => tasks.get(id).instance + (isHealthy(id) ? 0 : 1e9);
  const leaving = [...good].sort((a, b) => order(a) - order(b)).slice(desired);
  leaving.push(...old.filter((id) => !wanted || mark(id).force));
  const may = old.filter((id) => !leaving.includes(id) && !waitsFor.length && (mayStay(id) || !said.waiting));
  const spare = running.filter((id) => isHealthy(id) && !leaving.includes(id)).length - min;
  const replaced = [...may.filter((id) => !isHealthy(id)), ...may.filter(isHealthy).slice(0, Math.max(0, spare))];
  const surplus = running.length - leaving.length - desired;
  leaving.push(...replaced.slice(0, Math.max(surplus, stopping.length + leaving.length ? 0 : 1)));
  for (const id of leaving) tasks.set(id, { ...tasks.get(id), scheduled: false }); // its agent stops it, then they go
  if (old.length && !leaving.length && !stopping.length)
    said.blocked = waitsFor.length ? `waiting for ${waitsFor[0]} to become healthy` : "min and max leave no room";
  said.issued = running.length + issued.length - leaving.length;
  return [said, !old.length && !leaving.length && !waitsFor.length && good.length === desired];
}

// The operations that bring a service on, as many as fit into one commit; empty if there is nothing to do.
async function work(world, name, store) {
  const [said, underWay] = [`status/services/${name}`, `scheduling/rollouts/${name}`];
  const asked = `scheduling/moves/${name}`;
  const guards = [world.unchanged(`config/services/${name}`), world.unchanged(`scheduling/changed/${name}`)];
  const [ops, tasks] = [[], new Map(world.tasks)];
  const listing = world.services.has(name) ? [...world.clusters].filter(([, one]) => one.services.includes(name)) : [];
  const placedIn = [...tasks.values()].filter((one) => one.service === name).map((one) => one.cluster.name);
  const clusters = [...new Set([...listing.map(([key]) => key), ...placedIn])].sort();
  if (!world.services.has(name) && !clusters.length)
    // Deleted, and the last task gone: nothing is left to say.
    return [...guards, ...[said, underWay, asked, `rollouts/${name}/`].map((key) => ["delete", key])];
  const [status, done] = [{ scheduler: NAME, clusters: {}, decisions: 0 }, []];
  for (const one of clusters)
    [status.clusters[one], done[done.length]] = plan(world, name, one, await store.healthy(one, name), tasks);
  const changed = [...new Map([...world.tasks, ...tasks]).keys()].filter((id) => tasks.get(id) !== world.tasks.get(id));
  for (const id of changed.slice(0, BATCH)) {
    const one = tasks.get(id);
    guards.push(world.unchanged(`state/tasks/${id}`));
    for (const key of [`state/tasks/${id}`, `state/hosts/${(one ?? world.tasks.get(id)).host}/${id}`])
      ops.push(one ? ["put", key, JSON.stringify(one)] : ["delete", key]);
  }
  if (changed.length) ops.push(["put", `scheduling/changed/${name}`, NAME]); // for Sked's to count what our tasks take
  if (world.items.get(said)?.value !== JSON.stringify(status)) ops.push(["put", said, JSON.stringify(status)]);
  const rollout = world.one(underWay);
  if (rollout && done.every(Boolean)) {
    const ended = { ...rollout, result: "succeeded", ended: `${new Date().toISOString().slice(0, 19)}Z` };
    ops.push(["delete", underWay], ["put", `rollouts/${name}/${rollout.number}`, JSON.stringify(ended)]);
    ops.push(["delete", `rollouts/${name}/${rollout.number - 20}`]);
  }
  const moves = world.one(asked);
  const left = moves?.moves.filter((one) => world.tasks.has(one.task)) ?? [];
  if (moves && left.length < moves.moves.length)
    ops.push(left.length ? ["put", asked, JSON.stringify({ ...moves, moves: left })] : ["delete", asked]);
  return ops.length ? [...guards, ...ops] : [];
}

// Do what there is to do for one service, under its lock; whether anything was done.
async function evaluate(store, name, world) {
  const lock = `locks/services/${name}`;
  if (!(await work(world, name, store)).length) return false;
  if (!(await store.commit([["check", lock, 0], ["bind", lock, NAME]]))) return false;
  const ops = await work(new World(await store.read()), name, store); // as it is now that no other scheduler changes it
  const done = await store.commit([["fence", lock], ...ops, ["delete", lock]]);
  if (!done) await store.commit([["fence", lock], ["delete", lock]]); // an agent, or who declares, was faster
  return done;
}

// Look at every service that is ours, declared no more or not, again and again.
async function serve(store) {
  const me = `scheduling/schedulers/${NAME}-${store.lease}`; // for `sked status` to know that somebody is there
  await store.commit([["bind", me, JSON.stringify({ schedulers: [NAME] })]]);
  for (;;) {
    await store.renew();
    const world = new World(await store.read());
    let done = false;
    for (const [name, { scheduler }] of new Map([...world.below("status/services/"), ...world.services]))
      if (scheduler === NAME && world.items.has("meta/store_uid")) done = (await evaluate(store, name, world)) || done;
    if (!done) await sleep(1000);
  }
}

for (;;) {
  try {
    await serve(await connect(process.env.SKED_BACKEND));
  } catch (error) {
    // No answer, no lease, a record that can't be read: what runs goes on meanwhile.
    console.error(`${error}; retrying`);
    away.clear(); // while nobody could know, no host was away
    await sleep(2000); // what a commit without an answer has locked goes with the former lease
  }
}
