// The two stores for scheduler.mjs: Consul's HTTP API and etcd's JSON gateway, with nothing but Node itself.
//
// A commit is a list of ["check", key, revision; 0 for a key that is not there], ["fence", key]: bound to our lease,
// ["put", key, value], ["bind", key, value]: gone with our lease, and ["delete", key, or a prefix that ends in "/"].
// Certificates, tokens and users come from the variables that `consul` and `etcdctl` know.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const { env } = process;
const PREFIX = (env.SKED_PREFIX ?? "").replace(/\/*$/, (_, at) => (at ? "/" : ""));
// In this order: the markers before the tasks, so that a guard on them speaks of those tasks.
const READ = ["meta/", "scheduling/", "state/tasks/", "config/", "hosts/", "status/services/"];

const coded = (text) => Buffer.from(text).toString("base64");
const decoded = (text) => Buffer.from(text ?? "", "base64").toString();

class Server {
  constructor(address, secure) {
    const [ca, cert, key] = this.constructor.files.map((name) => env[name] && readFileSync(env[name]));
    this.web = secure ? https : http;
    this.url = `http${secure ? "s" : ""}://${address}/`;
    this.options = { agent: new this.web.Agent({ ca, cert, key, keepAlive: true }), headers: {} };
  }

  // What was answered; null where Consul refuses a commit or has nothing there. Raises for what says neither.
  async call(method, path, body) {
    const options = { ...this.options, method, signal: AbortSignal.timeout(10_000) };
    const asked = this.web.request(this.url + path, options).end(body && JSON.stringify(body));
    asked.on("error", () => {}); // those that come late; `once` tells of the others
    const [answer] = await once(asked, "response");
    const [status, text] = [answer.statusCode, Buffer.concat(await answer.toArray()).toString()];
    if (status === 200) return JSON.parse(text);
    if (status === 409 || (status === 404 && "x-consul-index" in answer.headers)) return null;
    throw new Error(`${path}: ${status} ${text.slice(0, 200)}`);
  }
}

class Consul extends Server {
  static files = ["CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"];
  static tls = ["1", "true"].includes(env.CONSUL_HTTP_SSL?.toLowerCase());

  async open() {
    this.options.headers = { "X-Consul-Token": env.CONSUL_HTTP_TOKEN ?? "" };
    const wanted = { Name: "outside", TTL: "15s", Behavior: "delete", LockDelay: "0s", Checks: [] };
    this.lease = (await this.call("PUT", "v1/session/create", wanted)).ID;
  }

  renew() {
    return this.call("PUT", `v1/session/renew/${this.lease}`);
  }

  // All that is below READ: key -> { value, revision }.
  async read() {
    const found = new Map();
    for (const prefix of READ)
      for (const one of (await this.call("GET", `v1/kv/${PREFIX}${prefix}?recurse&consistent`)) ?? [])
        found.set(one.Key.slice(PREFIX.length), { value: decoded(one.Value), revision: one.ModifyIndex });
    return found;
  }

  // All of it or nothing; whether it was done.
  async commit(ops) {
    const verbs = {
      check: (_, at) => (at ? { Verb: "check-index", Index: at } : { Verb: "check-not-exists" }),
      fence: () => ({ Verb: "check-session", Session: this.lease }),
      put: (_, value) => ({ Verb: "set", Value: coded(value) }),
      bind: (_, value) => ({ Verb: "lock", Value: coded(value), Session: this.lease }),
      delete: (key) => ({ Verb: key.endsWith("/") ? "delete-tree" : "delete" }),
    };
    const txn = ops.map(([kind, key, more]) => ({ KV: { Key: PREFIX + key, ...verbs[kind](key, more) } }));
    return (await this.call("PUT", "v1/txn", txn)) !== null;
  }

  // Ids of healthy tasks. Consul keeps their checks itself, below the name of the service.
  async healthy(cluster, service) {
    const name = encodeURIComponent(`${cluster}-${service}`);
    return new Set((await this.call("GET", `v1/health/service/${name}?passing`)).map((one) => one.Service.ID));
  }
}

// One key, or all that is below a prefix: "0" follows "/".
const span = (key) => ({
  key: coded(PREFIX + key),
  ...(key.endsWith("/") && { range_end: coded(`${PREFIX}${key.slice(0, -1)}0`) }),
});

class Etcd extends Server {
  static files = ["ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"];
  static tls = Boolean(env.ETCDCTL_CACERT || env.ETCDCTL_CERT);

  ask(path, body) {
    return this.call("POST", `v3/${path}`, body);
  }

  async open() {
    if (env.ETCDCTL_USER) {
      const [name, ...more] = env.ETCDCTL_USER.split(":");
      const known = { name, password: more.join(":") || env.ETCDCTL_PASSWORD };
      this.options.headers = { Authorization: (await this.ask("auth/authenticate", known)).token };
    }
    this.lease = (await this.ask("lease/grant", { TTL: 15 })).ID;
  }

  async renew() {
    const { result } = await this.ask("lease/keepalive", { ID: this.lease });
    if (!result.TTL) throw new Error("the lease is gone");
  }

  async read(prefixes = READ) {
    const asked = { success: prefixes.map((prefix) => ({ request_range: span(prefix) })) }; // all of one revision
    const found = (await this.ask("kv/txn", asked)).responses.flatMap((one) => one.response_range.kvs ?? []);
    const entry = (one) => ({ value: decoded(one.value), revision: one.mod_revision });
    return new Map(found.map((one) => [decoded(one.key).slice(PREFIX.length), entry(one)]));
  }

  async commit(ops) {
    const verbs = {
      check: (at, revision) => ({ compare: { ...at, target: "MOD", mod_revision: `${revision}` } }),
      fence: (at) => ({ compare: { ...at, target: "LEASE", lease: this.lease } }),
      put: (at, value) => ({ success: { request_put: { ...at, value: coded(value) } } }),
      bind: (at, value) => ({ success: { request_put: { ...at, value: coded(value), lease: this.lease } } }),
      delete: (at) => ({ success: { request_delete_range: at } }),
    };
    const made = ops.map(([kind, key, more]) => verbs[kind](span(key), more));
    const [compare, success] = ["compare", "success"].map((it) => made.flatMap((one) => one[it] ?? []));
    return (await this.ask("kv/txn", { compare, success })).succeeded ?? false;
  }

  // With etcd the agents' own probes stand in the store, below each host.
  async healthy() {
    const found = [...(await this.read(["health/"]))].filter(([, { value }]) => JSON.parse(value).healthy);
    return new Set(found.map(([key]) => key.split("/")[2]));
  }
}

// To "consul://host:port" or "etcd+https://host:port", with a lease of our own.
export async function connect(url) {
  const [, kind, tls, address] = /^(consul|etcd)(\+https)?:\/\/(.*)$/.exec(url);
  const Store = { consul: Consul, etcd: Etcd }[kind];
  const store = new Store(address, tls || Store.tls);
  await store.open();
  return store;
}
