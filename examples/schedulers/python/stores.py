"""The two stores for scheduler.py: Consul's HTTP API and etcd's JSON gateway, with the standard library alone.

A commit is a list of ("check", key, revision; 0 for a key that is not there), ("fence", key): bound to our lease,
("put", key, value), ("bind", key, value): gone with our lease, and ("delete", key, or a prefix that ends in "/").
Certificates, tokens and users come from the variables that `consul` and `etcdctl` know.
"""

import base64
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from os import environ

PREFIX = f"{environ.get('SKED_PREFIX', '').rstrip('/')}/".lstrip("/")
# In this order: the markers before the tasks, so that a guard on them speaks of those tasks.
READ = ("meta/", "scheduling/", "state/tasks/", "config/", "hosts/", "status/services/")


class Http:
    def __init__(self, address, secure, ca, cert, key):
        self.url, self.headers = f"http{'s' if secure else ''}://{address}/", {}
        self.tls = ssl.create_default_context(cafile=environ.get(ca))
        if environ.get(cert):
            self.tls.load_cert_chain(environ[cert], environ.get(key))

    def call(self, method, path, body=None):
        """The answer; None where Consul refuses a commit or has nothing there. Raises for what says neither."""
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.url + path, data, self.headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.tls) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 409 or (error.code == 404 and "X-Consul-Index" in error.headers):
                return None
            raise OSError(f"{path}: {error.code} {error.read()[:200]!r}") from None


class Consul(Http):
    def __init__(self, address, secure):
        secure = secure or environ.get("CONSUL_HTTP_SSL", "").lower() in ("1", "true")
        super().__init__(address, secure, "CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY")
        self.headers = {"X-Consul-Token": environ.get("CONSUL_HTTP_TOKEN", "")}
        wanted = {"Name": "outside", "TTL": "15s", "Behavior": "delete", "LockDelay": "0s", "Checks": []}
        self.lease = self.call("PUT", "v1/session/create", wanted)["ID"]

    def renew(self):
        self.call("PUT", f"v1/session/renew/{self.lease}")

    def read(self):
        """{key: (value, revision)} of all that is below READ."""
        found = {}
        for prefix in READ:
            for one in self.call("GET", f"v1/kv/{PREFIX}{prefix}?recurse&consistent") or ():
                found[one["Key"].removeprefix(PREFIX)] = decoded(one["Value"]), one["ModifyIndex"]
        return found

    def commit(self, ops):
        def verb(key, kind, value=None):
            return {
                "check": {"Verb": "check-index", "Index": value} if value else {"Verb": "check-not-exists"},
                "fence": {"Verb": "check-session", "Session": self.lease},
                "put": {"Verb": "set", "Value": coded(value)},
                "bind": {"Verb": "lock", "Value": coded(value), "Session": self.lease},
                "delete": {"Verb": "delete-tree" if key.endswith("/") else "delete"},
            }[kind]

        txn = [{"KV": {"Key": PREFIX + key} | verb(key, kind, *more)} for kind, key, *more in ops]
        return self.call("PUT", "v1/txn", txn) is not None

    def healthy(self, cluster, service):
        """Consul keeps the checks of tasks itself, below the name of the service."""
        name = urllib.parse.quote(f"{cluster}-{service}", safe="")
        return {one["Service"]["ID"] for one in self.call("GET", f"v1/health/service/{name}?passing")}


class Etcd(Http):
    def __init__(self, address, secure):
        names = ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY")
        super().__init__(address, secure or any(map(environ.get, names)), *names)
        if user := environ.get("ETCDCTL_USER"):
            name, _, password = user.partition(":")
            known = {"name": name, "password": password or environ["ETCDCTL_PASSWORD"]}
            self.headers = {"Authorization": self.call("POST", "v3/auth/authenticate", known)["token"]}
        self.lease = self.call("POST", "v3/lease/grant", {"TTL": 15})["ID"]

    def renew(self):
        self.call("POST", "v3/lease/keepalive", {"ID": self.lease})["result"]["TTL"]  # none once the lease is gone

    def read(self, prefixes=READ):
        txn, found = {"success": [{"request_range": span(prefix)} for prefix in prefixes]}, {}  # all of one revision
        for answer in self.call("POST", "v3/kv/txn", txn)["responses"]:
            for one in answer["response_range"].get("kvs", ()):
                found[decoded(one["key"]).removeprefix(PREFIX)] = decoded(one.get("value")), one["mod_revision"]
        return found

    def commit(self, ops):
        txn = {"compare": [], "success": []}
        for kind, key, *more in ops:
            at = span(key)
            if kind == "check":
                txn["compare"].append(at | {"target": "MOD", "mod_revision": more[0]})
            elif kind == "fence":
                txn["compare"].append(at | {"target": "LEASE", "lease": self.lease})
            elif kind == "delete":
                txn["success"].append({"request_delete_range": at})
            else:
                more = {"value": coded(more[0]), "lease": self.lease if kind == "bind" else 0}
                txn["success"].append({"request_put": at | more})
        return self.call("POST", "v3/kv/txn", txn).get("succeeded", False)

    def healthy(self, cluster, service):
        """With etcd the agents' own probes stand in the store, below each host."""
        return {key.split("/")[2] for key, (value, _) in self.read(["health/"]).items() if json.loads(value)["healthy"]}


def span(key):
    """One key, or all that is below a prefix: "0" follows "/"."""
    return {"key": coded(PREFIX + key)} | ({"range_end": coded(f"{PREFIX}{key[:-1]}0")} if key.endswith("/") else {})


def coded(text):
    return base64.b64encode(str(text).encode()).decode()


def decoded(text):
    return base64.b64decode(text or "").decode()
