// The two stores for scheduler.mjs: Consul's HTTP API and etcd's JSON gateway, with nothing but Node itself.
//
// Both speak of the same things. A commit is a list of arrays: ["check", key, revision; 0 for a key that is not there],
// ["fence", key]: bound to our lease, ["put", key, value], ["bind", key, value]: gone with our lease, ["delete", key].

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const PREFIX = (process.env.SKED_PREFIX ?? "").replace(/\/*$/, (end, at) => (at ? "/" : ""));

// What is read, and in which order: the markers before the tasks, so that a guard on them speaks of those tasks.
const PREFIXES = ["scheduling/", "state/tasks/", "config/", "hosts/", "status/services/", "rollouts/"];

const coded = (text) => Buffer.from(text).toString("base64");
const decoded = (text) => Buffer.from(text ?? "", "base64").toString();

// One server, with TLS and credentials by the variables that `consul` and `etcdctl` know.
class Server {
  headers = {};
  lease = "";

  constructor(address, secure, files) {
    this.url = `http${secure ? "s" : ""}://${address}/`;
    const [ca, cert, key] = files.map((name) => process.env[name] && readFileSync(process.env[name]));
    this.agent = secure ? new https.Agent({ ca, cert, key, keepAlive: true }) : new http.Agent({ keepAlive: true });
    this.request = secure ? https.request : http.request;
  }

  // Raises where there is no answer, or none that means something: that never means that nothing is there.
  call(method, path, body) {
    const options = { method, agent: this.agent, headers: this.headers, signal: AbortSignal.timeout(10_000) };
    return new Promise((resolve, reject) => {
      const asked = this.request(this.url + path, options, async (answer) => {
        try {
          const text = Buffer.concat(await answer.toArray()).toString();
          if (![200, 404, 409].includes(answer.statusCode)) throw new Error(`${path}: ${answer.statusCode} ${text}`);
          const found = answer.statusCode === 200 ? JSON.parse(text) : null;
          resolve({ status: answer.statusCode, index: answer.headers["x-consul-index"], found });
        } catch (error) {
          reject(error);
        }
      });
      asked.on("error", reject).end(body && JSON.stringify(body));
    });
  }
}

export class Consul extends Server {
  constructor(address, secure) {
    const asked = ["1", "t", "true"].includes((process.env.CONSUL_HTTP_SSL ?? "").toLowerCase());
    super(address, secure || asked, ["CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"]);
    this.headers = { "X-Consul-Token": process.env.CONSUL_HTTP_TOKEN ?? "" };
  }

  // All keys below PREFIXES: key -> { value, revision }.
  async read() {
    const found = new Map();
    for (const prefix of PREFIXES) {
      const answer = await this.call("GET", `v1/kv/${PREFIX}${prefix}?recurse&consistent`);
      if (answer.index === undefined) throw new Error("that was no answer of Consul");
      for (const one of answer.found ?? []) // none with 404: nothing is there
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
    return (await this.call("PUT", "v1/txn", verbs)).status === 200;
  }

  async takeLease() {
    const wanted = { Name: "outside", TTL: "15s", Behavior: "delete", LockDelay: "0s", Checks: [] };
    this.lease = (await this.call("PUT", "v1/session/create", wanted)).found.ID;
  }

  // Whether the lease lives on.
  async renew() {
    return (await this.call("PUT", `v1/session/renew/${this.lease}`)).status === 200;
  }

  // Ids of healthy tasks. Consul keeps their checks itself, below the name of the service.
  async healthy(cluster, service) {
    const { found } = await this.call("GET", `v1/health/service/${cluster}-${service}?passing`);
    return new Set(found.map((one) => one.Service.ID));
  }
}

export class Etcd extends Server {
  constructor(address, secure) {
    super(address, secure, ["ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"]);
  }

  async ask(path, body) {
    const { status, found } = await this.call("POST", `v3/${path}`, body);
    if (status !== 200) throw new Error(`${path}: ${status}`);
    return found;
  }

  // Of one revision; "0" follows "/".
  async ranges(prefixes) {
    const spans = prefixes.map((one) => ({ key: coded(PREFIX + one), range_end: coded(`${PREFIX}${one.slice(0, -1)}0`) }));
    const { responses } = await this.ask("kv/txn", { success: spans.map((one) => ({ request_range: one })) });
    const pairs = responses.flatMap((one) => one.response_range.kvs ?? []);
    const entry = (one) => ({ value: decoded(one.value), revision: one.mod_revision });
    return new Map(pairs.map((one) => [decoded(one.key).slice(PREFIX.length), entry(one)]));
  }

  read() {
    return this.ranges(PREFIXES);
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
    if (process.env.ETCDCTL_USER) {
      // Logs in anew with each lease: etcd forgets who was idle.
      const [, name, password] = /^([^:]*):?(.*)$/.exec(process.env.ETCDCTL_USER);
      this.headers = {};
      const known = { name, password: password || process.env.ETCDCTL_PASSWORD };
      this.headers = { Authorization: (await this.ask("auth/authenticate", known)).token };
    }
    this.lease = (await this.ask("lease/grant", { TTL: 15 })).ID;
  }

  async renew() {
    return Number((await this.ask("lease/keepalive", { ID: this.lease })).result.TTL ?? 0) > 0;
  }

  // Ids of healthy tasks: with etcd the agents' own probes stand in the store, below each host.
  async healthy() {
    const found = [...(await this.ranges(["health/"]))].filter(([, { value }]) => JSON.parse(value).healthy);
    return new Set(found.map(([key]) => key.split("/")[2]));
  }
}
