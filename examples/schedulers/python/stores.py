"""The two stores for scheduler.py: Consul's HTTP API and etcd's JSON gateway, with the standard library alone.

Both speak of the same things. A commit is a list of tuples: ("check", key, revision; 0 for a key that is not there),
("fence", key): bound to our lease, ("put", key, value), ("bind", key, value): gone with our lease, ("delete", key).
Tokens, users and certificates come from the variables that `consul` and `etcdctl` know.
"""

import base64
import json
import os
import ssl
import urllib.error
import urllib.request

ENV = os.environ.get
PREFIX = f"{ENV('SKED_PREFIX', '').rstrip('/')}/".lstrip("/")
PREFIXES = ("scheduling/", "state/tasks/", "config/", "hosts/", "status/services/", "rollouts/")
"""What is read, and in which order: the markers before the tasks, so that a guard on them speaks of those tasks."""


class Http:
    """One server. `tool`: what its variables for certificates begin with."""

    def __init__(self, address, secure, tool, names):
        ca, cert, key = (ENV(f"{tool}_{name}") for name in names)
        self.url, self.headers, self.lease = f"http{'s' * secure}://{address}/", {}, ""
        self.tls = ssl.create_default_context(cafile=ca) if secure else None
        if secure and cert:
            self.tls.load_cert_chain(cert, key)

    def call(self, method, path, body=None):
        """Status, headers and JSON. Raises OSError where there is no answer: that never means that nothing is there."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, self.headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.tls) as answer:
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code in (404, 409):
                return error.code, error.headers, None
            raise OSError(f"{self.url}{path}: {error.code} {error.read()[:200]!r}") from None


class Consul(Http):
    def __init__(self, address, secure):
        secure = secure or ENV("CONSUL_HTTP_SSL", "").lower() in ("1", "t", "true")
        super().__init__(address, secure, "CONSUL", ("CACERT", "CLIENT_CERT", "CLIENT_KEY"))
        self.headers = {"X-Consul-Token": ENV("CONSUL_HTTP_TOKEN", "")}

    def read(self):
        """{key: (value, revision)} below PREFIXES."""
        found = {}
        for prefix in PREFIXES:
            _, headers, entries = self.call("GET", f"v1/kv/{PREFIX}{prefix}?recurse&consistent")
            if "X-Consul-Index" not in headers:
                raise OSError("that was no answer of Consul")
            for one in entries or ():  # none with 404: nothing is there
                found[one["Key"].removeprefix(PREFIX)] = decoded(one["Value"]), one["ModifyIndex"]
        return found

    def commit(self, ops):
        """All of it or nothing; whether it was done."""
        made = {
            "check": lambda at: {"Verb": "check-index", "Index": at} if at else {"Verb": "check-not-exists"},
            "fence": lambda: {"Verb": "check-session", "Session": self.lease},
            "put": lambda value: {"Verb": "set", "Value": coded(value)},
            "bind": lambda value: {"Verb": "lock", "Value": coded(value), "Session": self.lease},
            "delete": lambda: {"Verb": "delete"},
        }
        verbs = [{"KV": {"Key": PREFIX + key, **made[kind](*more)}} for kind, key, *more in ops]
        return self.call("PUT", "v1/txn", verbs)[0] == 200

    def take_lease(self):
        wanted = {"Name": "an outside scheduler", "TTL": "15s", "Behavior": "delete", "LockDelay": "0s", "Checks": []}
        self.lease = self.call("PUT", "v1/session/create", wanted)[2]["ID"]

    def renew(self):
        """Whether the lease lives on."""
        return self.call("PUT", f"v1/session/renew/{self.lease}")[0] == 200

    def healthy(self, cluster, service):
        """Ids of healthy tasks. Consul keeps their checks itself, below the name of the service."""
        return {one["Service"]["ID"] for one in self.call("GET", f"v1/health/service/{cluster}-{service}?passing")[2]}


class Etcd(Http):
    def __init__(self, address, secure):
        super().__init__(address, secure, "ETCDCTL", ("CACERT", "CERT", "KEY"))

    def ask(self, path, **body):
        status, _, found = self.call("POST", f"v3/{path}", body)
        if status != 200:
            raise OSError(f"{path}: {status}")
        return found

    def ranges(self, *prefixes):
        """Of one revision: {key: (value, revision)}. "0" follows "/"."""
        spans = [{"key": coded(PREFIX + one), "range_end": coded(PREFIX + one[:-1] + "0")} for one in prefixes]
        answers = self.ask("kv/txn", success=[{"request_range": one} for one in spans])["responses"]
        found = [one for answer in answers for one in answer["response_range"].get("kvs", ())]
        pairs = ((decoded(one["key"]).removeprefix(PREFIX), one) for one in found)
        return {key: (decoded(one.get("value")), one["mod_revision"]) for key, one in pairs}

    def read(self):
        return self.ranges(*PREFIXES)

    def commit(self, ops):
        compare, success = [], []
        for kind, name, *more in ops:
            key = {"key": coded(PREFIX + name)}
            if kind == "check":
                compare.append(key | {"target": "MOD", "mod_revision": more[0]})  # 0 for a key that is not there
            elif kind == "fence":
                compare.append(key | {"target": "LEASE", "lease": self.lease})
            elif kind == "delete":
                success.append({"request_delete_range": key})
            else:
                lease = {"lease": self.lease} if kind == "bind" else {}
                success.append({"request_put": key | {"value": coded(more[0])} | lease})
        return self.ask("kv/txn", compare=compare, success=success).get("succeeded", False)

    def take_lease(self):
        if user := ENV("ETCDCTL_USER"):  # logs in anew with each lease: etcd forgets who was idle
            name, _, password = user.partition(":")
            self.headers = {}
            token = self.ask("auth/authenticate", name=name, password=password or ENV("ETCDCTL_PASSWORD"))["token"]
            self.headers = {"Authorization": token}
        self.lease = self.ask("lease/grant", TTL=15)["ID"]

    def renew(self):
        return int(self.ask("lease/keepalive", ID=self.lease)["result"].get("TTL", 0)) > 0

    def healthy(self, cluster, service):
        """With etcd the agents' own probes stand in the store, below each host."""
        return {key.split("/")[2] for key, (value, _) in self.ranges("health/").items() if json.loads(value)["healthy"]}


def coded(text):
    return base64.b64encode(text.encode()).decode()


def decoded(text):
    return base64.b64decode(text or "").decode()
