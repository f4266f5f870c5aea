"""The two stores for scheduler.py: Consul's HTTP API and etcd's JSON gateway, with the standard library alone.

Both speak of the same things. A commit is a list of tuples: ("check", key, revision; 0 for a key that is not there),
("fence", key): bound to our lease, ("put", key, value), ("bind", key, value): gone with our lease, ("delete", key).
"""

import base64
import json
import os
import urllib.error
import urllib.request

PREFIX = os.environ.get("SKED_PREFIX", "")
LEASE_TTL = int(os.environ.get("LEASE_TTL", "15"))
PREFIXES = ("scheduling/", "state/tasks/", "config/", "hosts/", "status/services/", "health/")
"""What is read, and in which order: the markers before the tasks, so that a guard on them speaks of those tasks."""


def call(method, url, body=None, timeout=10.0):
    """Status, headers and text. Raises OSError where there is no answer: that never means that nothing is there."""
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        if error.code in (404, 409):
            return error.code, error.headers, error.read().decode()
        raise OSError(f"{url}: {error.code} {error.read()[:200]!r}") from None


def coded(text):
    return base64.b64encode(text.encode()).decode()


def decoded(text):
    return base64.b64decode(text or "").decode()


class Consul:
    def __init__(self, address):
        self.url, self.lease = f"http://{address}/v1/", ""

    def read(self):
        """{key: (value, revision)} below PREFIXES."""
        found = {}
        for prefix in PREFIXES:
            status, headers, text = call("GET", f"{self.url}kv/{PREFIX}{prefix}?recurse&consistent")
            if "X-Consul-Index" not in headers:
                raise OSError("that was no answer of Consul")
            for one in json.loads(text) if status == 200 else ():
                found[one["Key"].removeprefix(PREFIX)] = decoded(one["Value"]), one["ModifyIndex"]
        return found

    def commit(self, ops):
        """All of it or nothing; whether it was done."""
        made = {
            "check": lambda key, at: {"Verb": "check-index", "Index": at} if at else {"Verb": "check-not-exists"},
            "fence": lambda key: {"Verb": "check-session", "Session": self.lease},
            "put": lambda key, value: {"Verb": "set", "Value": coded(value)},
            "bind": lambda key, value: {"Verb": "lock", "Value": coded(value), "Session": self.lease},
            "delete": lambda key: {"Verb": "delete"},
        }
        verbs = [{"KV": {"Key": PREFIX + key, **made[kind](key, *more)}} for kind, key, *more in ops]
        return call("PUT", f"{self.url}txn", verbs)[0] == 200

    def take_lease(self):
        wanted = {
            "Name": "an outside scheduler",
            "TTL": f"{max(10, LEASE_TTL)}s",
            "Behavior": "delete",
            "LockDelay": "0s",
            "Checks": [],
        }
        self.lease = json.loads(call("PUT", f"{self.url}session/create", wanted)[2])["ID"]

    def renew(self):
        """Whether the lease lives on."""
        return call("PUT", f"{self.url}session/renew/{self.lease}")[0] == 200

    def wait(self, since, seconds):
        """Block until something changes after `since`; returns what to give next time."""
        query = f"kv/{PREFIX}?keys&separator=/&index={since}&wait={seconds}s"
        return int(call("GET", self.url + query, timeout=seconds + 10)[1]["X-Consul-Index"])

    def healthy(self, world, cluster, service):
        """Ids of healthy tasks. Consul keeps their checks itself, below the name of the service."""
        found = json.loads(call("GET", f"{self.url}health/service/{cluster}-{service}?passing")[2])
        return {one["Service"]["ID"] for one in found}


class Etcd:
    def __init__(self, address):
        self.url, self.lease = f"http://{address}/v3/", 0

    def ask(self, path, body):
        status, _, text = call("POST", self.url + path, body)
        if status != 200:
            raise OSError(f"{path}: {status} {text[:200]}")
        return json.loads(text.splitlines()[0])

    def read(self):
        ends = {prefix: PREFIX + prefix[:-1] + "0" for prefix in PREFIXES}  # "0" follows "/"
        ranges = [{"request_range": {"key": coded(PREFIX + one), "range_end": coded(end)}} for one, end in ends.items()]
        answers = self.ask("kv/txn", {"success": ranges})["responses"]
        pairs = [one for answer in answers for one in answer["response_range"].get("kvs", ())]
        return {
            decoded(one["key"]).removeprefix(PREFIX): (decoded(one.get("value")), int(one["mod_revision"]))
            for one in pairs
        }

    def commit(self, ops):
        made = {
            "check": lambda at: {"target": "MOD", "mod_revision": str(at)},  # 0 for a key that is not there
            "fence": lambda: {"target": "LEASE", "lease": self.lease},
            "put": lambda value: ("request_put", {"value": coded(value)}),
            "bind": lambda value: ("request_put", {"value": coded(value), "lease": self.lease}),
            "delete": lambda: ("request_delete_range", {}),
        }
        compare, success = [], []
        for kind, key, *more in ops:
            one, key = made[kind](*more), {"key": coded(PREFIX + key)}
            if kind in ("check", "fence"):
                compare.append(key | one)
            else:
                success.append({one[0]: key | one[1]})
        return self.ask("kv/txn", {"compare": compare, "success": success}).get("succeeded", False)

    def take_lease(self):
        self.lease = self.ask("lease/grant", {"TTL": LEASE_TTL})["ID"]

    def renew(self):
        return int(self.ask("lease/keepalive", {"ID": self.lease})["result"].get("TTL", 0)) > 0

    def wait(self, since, seconds):
        span = {"key": coded(PREFIX or "\0"), "range_end": coded(PREFIX[:-1] + "0" if PREFIX else "\0")}
        if not since:
            return int(self.ask("kv/range", {**span, "limit": 1})["header"]["revision"])
        body = json.dumps({"create_request": {**span, "start_revision": str(since + 1)}}).encode()
        try:
            with urllib.request.urlopen(self.url + "watch", body, timeout=seconds) as lines:
                lines.readline()  # says that the watch has begun
                return int(json.loads(lines.readline())["result"]["header"]["revision"])
        except TimeoutError:
            return since

    def healthy(self, world, cluster, service):
        """Ids of healthy tasks: with etcd the agents' own probes stand in the store."""
        return {key.split("/")[2] for key, one in world.below("health/") if one["healthy"]}
