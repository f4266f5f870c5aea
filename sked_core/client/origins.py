"""Every setting with its value and where that is from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sked_core.client.settings import ConfigFile, PluginTable, Setting, config_files, masked, resolve
from sked_core.model.spec import plain
from sked_core.runtime.plugins.rules import Rule

DEFAULTS = {
    "host": "the machine's host name",
    "address": "the address of its default route",
    "state_dir": "a folder for this host and store in the user's state folder",
    "policy": "/etc/sked/policy.yml; without that file only unprivileged docker containers",
    "tags": "none",
    "allow_executors": "all that are installed",
    "allow_clusters": "all",
    "max_tasks": "no limit",
    "memory": "all of the machine",
    "cpu": "all of the machine",
    "disk": "all of the machine",
    "port_range": "20000-29999",
    "lost_after": "60s",
    "signing_key": "nothing is signed",
    "listen": "a socket in the state folder",
    "log_format": "text",
    "plugins.allow": "all that are installed",
    "plugins.deny": "none",
    "plugins.require": "none",
}
VARIABLES = (
    *("CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "CONSUL_HTTP_AUTH", "CONSUL_HTTP_SSL"),
    *("CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME", "CONSUL_NAMESPACE"),
    *("ETCDCTL_ENDPOINTS", "ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY", "ETCDCTL_USER", "ETCDCTL_PASSWORD"),
    "SKED_ETCD_USER_FILE",
    *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_SESSION_TOKEN", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    *("SKED_API_TOKEN", "SKED_API_TOKEN_FILE", "SKED_API_CACERT"),
)
"""What stores, engines and agents are reached by, besides settings: shown where it is set."""
SECRET = ("_TOKEN", "_PASSWORD", "_AUTH", "_USER", "_SECRET_ACCESS_KEY", "_ACCESS_KEY_ID")
"""How variables end whose values are never shown."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting. ``value``: fit to be shown, empty where nothing was said; ``default``: what counts then, in words;
    ``origin``: empty for a default."""

    name: str
    value: str
    default: str = ""
    origin: str = ""

    def json(self) -> dict[str, Any]:
        return asdict(self)


def origins(*, backend: str | None = None, prefix: str | None = None, config: str | None = None) -> list[Origin]:
    """Every setting of ConfigFile, and the VARIABLES that are set, given what the command line says.

    Raises InvalidManifest with every mistake of the files.
    """
    store = resolve(backend=backend, prefix=prefix, config=config)
    found = [_of("backend", store.backend), _of("prefix", store.prefix)]
    files = config_files(config)
    for name in ConfigFile.__struct_fields__:
        if name == "policy":
            found.append(Origin(name, masked(store.policy.value), DEFAULTS[name], store.policy.origin))
        elif name == "plugins":
            found += [_rule(f"plugins.{one}", getattr(store.plugins, one)) for one in PluginTable.__struct_fields__]
        elif name not in ("backend", "prefix"):
            said = next(((path, value) for path, file in files if (value := getattr(file, name)) is not None), None)
            value, origin = (_text(said[1]), plain(str(said[0]))) if said else ("", "")
            found.append(Origin(name, value, DEFAULTS.get(name, "not set"), origin))
    return [*found, *_variables()]


def _rule(name: str, rule: Rule | None) -> Origin:
    if rule is None:
        return Origin(name, "", DEFAULTS[name])
    return Origin(name, ", ".join(sorted(rule.packages)) or "none", DEFAULTS[name], plain(rule.origin))


def _of(name: str, setting: Setting) -> Origin:
    return Origin(name, masked(setting.value), "none", setting.origin)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return plain(", ".join(f"{name}={one}" for name, one in sorted(value.items())))
    return plain(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _variables() -> Iterator[Origin]:
    for name in VARIABLES:
        if value := os.environ.get(name):
            shown = "***" if name.endswith(SECRET) else masked(value)
            yield Origin(name, shown, origin="the environment")
