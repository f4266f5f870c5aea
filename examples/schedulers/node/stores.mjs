// The two stores for scheduler.mjs: Consul's HTTP API and etcd's JSON gateway, with nothing but Node itself.
//
// Both speak of the same things. A commit is a list of arrays: ["check", key, revision; 0 for a key that is not there],
// ["fence", key]: bound to our lease, ["put", key, value], ["bind", key, value]: gone with our lease, ["delete", key].

const PREFIX = process.env.SKED_PREFIX ?? "";
const LEASE_TTL = Number(process.env.LEASE_TTL ?? 15);

// What is read, and in which order: the markers before the tasks, so that a guard on them speaks of those tasks.
const PREFIXES = ["scheduling/", "state/tasks/", "config/", "hosts/", "status/services/", "health/"];

const coded = (text) => Buffer.from(text).toString("base64");
const decoded = (text) => Buffer.from(text ?? "", "base64").toString();

// Raises where there is no answer, or none that means something: that never means that nothing is there.
async function call(method, url, body, seconds = 10) {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const answer = await fetch(url, { method, body: sent, signal: AbortSignal.timeout(seconds * 1000) });
  const text = await answer.text();
  if (![200, 404, 409].includes(answer.status)) throw new Error(`${url}: ${answer.status} ${text.slice(0, 200)}`);
  return { status: answer.status, index: answer.headers.get("X-Consul-Index"), text };
}

export class Consul {
  constructor(address) {
    this.url = `http://${address}/v1/`;
    this.lease = "";
  }

  // All keys below PREFIXES: key -> { value, revision }.
  async read() {
    const found = new Map();
    for (const prefix of PREFIXES) {
      const { status, index, text } = await call("GET", `${this.url}kv/${PREFIX}${prefix}?recurse&consistent`);
      if (index === null) throw new Error("that was no answer of Consul");
      for (const one of status === 200 ? JSON.parse(text) : [])
        found.set(one.Key.slice(PREFIX.length), { value: decoded(one.Value), revision: one.ModifyIndex });
    }
    return found;
  }

  // All of it or nothing; whether it was done.
  async commit(ops) {
    const made = {
      check: (at) => (at ? { Verb: "check-index", Index: at } : { Verb: "check-not-exists" }),
      fence: () => ({ Verb: "check-session", Session: this.lease }),
      put: (value) => ({ Verb: "set", Value: coded(value) }),
      bind: (value) => ({ Verb: "lock", Value: coded(value), Session: this.lease }),
      delete: () => ({ Verb: "delete" }),
    };
    const verbs = ops.map(([kind, key, more]) => ({ KV: { Key: PREFIX + key, ...made[kind](more) } }));
    return (await call("PUT", `${this.url}txn`, verbs)).status === 200;
  }

  async takeLease() {
    const wanted = { Name: "outside", TTL: `${Math.max(10, LEASE_TTL)}s`, Behavior: "delete", LockDelay: "0s", Checks: [] };
    this.lease = JSON.parse((await call("PUT", `${this.url}session/create`, wanted)).text).ID;
  }

  // Whether the lease lives on.
  async renew() {
    return (await call("PUT", `${this.url}session/renew/${this.lease}`)).status === 200;
  }

  // Returns once something has changed after `since`, or after so many seconds; gives what to say next time.
  async wait(since, seconds) {
    const query = `kv/${PREFIX}?keys&separator=/&index=${since}&wait=${seconds}s`;
    return Number((await call("GET", this.url + query, undefined, seconds + 10)).index);
  }

  // Ids of healthy tasks. Consul keeps their checks itself, below the name of the service.
  async healthy(world, cluster, service) {
    const found = JSON.parse((await call("GET", `${this.url}health/service/${cluster}-${service}?passing`)).text);
    return new Set(found.map((one) => one.Service.ID));
  }
}

export class Etcd {
  constructor(address) {
    this.url = `http://${address}/v3/`;
    this.lease = "";
  }

  async ask(path, body) {
    const { status, text } = await call("POST", this.url + path, body);
    if (status !== 200) throw new Error(`${path}: ${status} ${text.slice(0, 200)}`);
    return JSON.parse(text.split("\n")[0]);
  }

  async read() {
    const after = (prefix) => `${prefix.slice(0, -1)}0`; // "0" follows "/"
    const success = PREFIXES.map((one) => PREFIX + one).map((prefix) => ({
      request_range: { key: coded(prefix), range_end: coded(after(prefix)) },
    }));
    const { responses } = await this.ask("kv/txn", { success });
    const pairs = responses.flatMap((one) => one.response_range.kvs ?? []);
    return new Map(
      pairs.map((one) => [
        decoded(one.key).slice(PREFIX.length),
        { value: decoded(one.value), revision: Number(one.mod_revision) },
      ]),
    );
  }

  async commit(ops) {
    const compare = [];
    const success = [];
    for (const [kind, name, more] of ops) {
      const key = coded(PREFIX + name);
      if (kind === "check") compare.push({ key, target: "MOD", mod_revision: `${more}` }); // 0: not there
      else if (kind === "fence") compare.push({ key, target: "LEASE", lease: this.lease });
      else if (kind === "delete") success.push({ request_delete_range: { key } });
      else success.push({ request_put: { key, value: coded(more), lease: kind === "bind" ? this.lease : "0" } });
    }
    return (await this.ask("kv/txn", { compare, success })).succeeded ?? false;
  }

  async takeLease() {
    this.lease = (await this.ask("lease/grant", { TTL: LEASE_TTL })).ID;
  }

  async renew() {
    return Number((await this.ask("lease/keepalive", { ID: this.lease })).result.TTL ?? 0) > 0;
  }

  async wait(since, seconds) {
    const span = PREFIX
      ? { key: coded(PREFIX), range_end: coded(`${PREFIX.slice(0, -1)}0`) }
      : { key: coded("\0"), range_end: coded("\0") };
    if (!since) return Number((await this.ask("kv/range", { ...span, limit: 1 })).header.revision);
    const body = JSON.stringify({ create_request: { ...span, start_revision: `${since + 1}` } });
    const ends = AbortSignal.timeout(seconds * 1000);
    try {
      const { body: stream } = await fetch(`${this.url}watch`, { method: "POST", body, signal: ends });
      let text = "";
      for await (const part of stream) {
        text += Buffer.from(part).toString();
        const lines = text.split("\n"); // the first one says that the watch has begun
        if (lines.length > 2) return Number(JSON.parse(lines[1]).result.header.revision);
      }
      return since;
    } catch (error) {
      if (ends.aborted) return since;
      throw error;
    }
  }

  // Ids of healthy tasks: with etcd the agents' own probes stand in the store.
  async healthy(world) {
    return new Set(world.below("health/").flatMap(([key, one]) => (one.healthy ? [key.split("/")[2]] : [])));
  }
}
