"""A compose file, read and with its variables filled in, turned into the lists of a manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sked_compose import checks, ports, shape, volumes
from sked_compose.deploy import RESTARTS, Deploy
from sked_compose.findings import Findings
from sked_core.plugin import Document

INCLUDED = (
    "`docker compose config` resolves it: import what that prints, by `docker compose config | sked compose import -`"
)
MAX_SERVICES = 1000
_ADDRESS = re.compile(r"(?:^|(?<=[/@,=\s]))([A-Za-z0-9._-]{1,63})(?=:[0-9]|[/,\s]|$)")
_ALL_CAPS_SECRET = re.compile(r"PASS|SECRET|TOKEN|CREDENTIAL|(^|_)KEY$")


@dataclass(frozen=True, slots=True)
class Options:
    """``cluster``: its name, else the project's. ``folder``: that paths begin from. ``profiles``: those of the services
    to take beside those without any. ``provide_ports``: have hosts pick the numbers of the tasks' own ports."""

    project: str = ""
    cluster: str = ""
    folder: str = "/"
    version: int = 1
    profiles: frozenset[str] = frozenset()
    provide_ports: bool = False


EnvFile = Callable[[str, bool, str], Mapping[str, str]]
"""The variables of a file by its name, whether it has to be there, and where in the compose file it is named."""


class Conversion:
    """One file. ``variables``: what names without a value in ``environment`` are taken from."""

    def __init__(self, document: Document, options: Options, variables: Mapping[str, str], env_file: EnvFile) -> None:
        self.findings = Findings(document)
        self._data = self.findings.sound(document.data, shape.FILE, "")
        self._options, self._variables, self._env_file = options, variables, env_file
        given = (options.project, str(self._data.get("name", "")), PurePosixPath(options.folder).name)
        self._project = next(filter(None, map(sked_name, given)), "default")
        self._services: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, list[dict[str, Any]]]:
        """``clusters``, ``services`` and ``task_definitions``."""
        if "include" in self._data:
            self.findings.refuse("include", INCLUDED)
        volumes.declared(self._data.get("volumes", {}), self.findings)
        for name in ("networks", "configs", "models"):
            if self._data.get(name):
                self.findings.lose(name, shape.LEFT[name][0])
        self._choose()
        self._notice_those_that_end()
        made = [self._service(name, said) for name, said in self._services.items()]
        names = [service["name"] for service, _ in made]
        for name in sorted(name for name, count in Counter(names).items() if count > 1):
            self.findings.refuse("services", f'several services would be called "{name}"')
        if not made and not self.findings.wrong:
            self.findings.refuse("services", "there is no service")
        cluster = sked_name(self._options.cluster) or self._project
        return {
            "clusters": [{"name": cluster, "services": names}],
            "services": [service for service, _ in made],
            "task_definitions": [definition for _, definition in made],
        }

    def _choose(self) -> None:
        services = self._data.get("services", {})
        if len(services) > MAX_SERVICES:
            self.findings.refuse("services", f"more than {MAX_SERVICES}")
            return
        for name, value in services.items():
            path = f"services.{name[:80]}"
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", name) or not sked_name(name):
                self.findings.refuse(path, "expected 1 to 63 of a-z A-Z 0-9 . _ -")
                continue
            said = self.findings.sound(value, shape.SERVICE, path)
            profiles = said.get("profiles", [])
            if profiles and not self._options.profiles.intersection(profiles):
                which = ", ".join(map(str, profiles))
                self.findings.lose(path, f"it is of the profile {which}: import it by --profile")
                continue
            self._services[name] = said

    def _notice_those_that_end(self) -> None:
        """What others wait for to be through, such as a migration, would be started over and over."""
        for said in self._services.values():
            needs = said.get("depends_on", {})
            for name, how in needs.items() if isinstance(needs, dict) else ():
                done = isinstance(how, dict) and how.get("condition") == "service_completed_successfully"
                if done and name in self._services and "restart" not in self._services[name]:
                    self.findings.lose(f"services.{name}", f"it is to run once: {RESTARTS}", "changed")

    def _service(self, name: str, said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        path, findings = f"services.{name}", self.findings
        if "extends" in said:
            findings.refuse(f"{path}.extends", INCLUDED)
        for field, (why, _) in shape.LEFT.items():
            if said.get(field) not in (None, False, [], {}) and not (field == "pull_policy" and "miss" in said[field]):
                findings.lose(f"{path}.{field}", why)
        executor: dict[str, Any] = {"image": said.get("image") or f"{self._project}-{name}"}
        if not said.get("image") and "build" not in said:
            findings.refuse(path, "there is neither image nor build")
        for field, ours in (("command", "cmd"), ("entrypoint", "entry"), ("working_dir", "work_dir")):
            if said.get(field):
                executor[ours] = said[field]
            elif field in said:
                findings.lose(f"{path}.{field}", "the image's own can't be taken away; give another")
        shared = self._ports(said, path)
        if shared.own is not None:
            executor["container_port"] = shared.own.target
        if shared.fixed:
            executor["ports"] = shared.fixed
        environment = self._environment(said, name, path)
        if environment:
            executor["env"] = environment
        found = volumes.Volumes(self._data.get("volumes", {}), self._project, self._options.folder, findings)
        found.read(said.get("volumes", []), f"{path}.volumes")
        deploy = Deploy(said, path, shared.binds, findings)
        if found.volumes:
            executor["volumes"] = found.volumes
        if flags := [*self._flags(said, path), *found.flags, *deploy.flags]:
            executor["flags"] = flags
        container: dict[str, Any] = {"name": sked_name(name), "type": "docker", "executor": executor}
        definition: dict[str, Any] = {"name": sked_name(name), "version": self._options.version, **deploy.definition}
        if shared.own is not None:
            definition |= {"provide_port": True} if shared.provided else {"port": shared.own.host}
        if "healthcheck" in said:
            check, grace = checks.convert(said["healthcheck"], shared, f"{path}.healthcheck", findings)
            if check is not None:
                container["checks"] = [check]
            if grace:
                definition["grace_period"] = f"{grace:g}s"
        service = {"name": sked_name(name), "task_name": sked_name(name), "task_version": self._options.version}
        return service | deploy.service, definition | {"containers": [container]}

    def _ports(self, said: dict[str, Any], path: str) -> ports.Ports:
        found = ports.read(said.get("ports", []), f"{path}.ports", self.findings)
        if found and said.get("network_mode") in ("host", "none"):
            self.findings.lose(f"{path}.ports", "with this network_mode nothing is published")
            found = []
        if said.get("expose") and not found:
            self.findings.note(
                f"{path}.expose", "no port of the host leads there, so other tasks don't either: give it ports"
            )
        return ports.share(found, self._options.provide_ports, self.findings)

    def _flags(self, said: dict[str, Any], path: str) -> list[str]:
        flags = []
        for field, (option, _) in shape.FLAGS.items():
            value = said.get(field)
            if value in (None, False, ""):
                continue
            if field in ("ipc", "pid") and str(value).startswith(("service:", "container:")):
                self.findings.lose(f"{path}.{field}", "put both into one task definition, as two containers")
            elif value is True:
                flags.append(f"--{option}")
            elif isinstance(value, dict):
                between = ":" if field == "extra_hosts" else "="
                flags += [f"--{option}={key}{between}{_text(one)}" for key, one in value.items()]
            else:
                flags += [f"--{option}={_text(one)}" for one in (value if isinstance(value, list) else [value])]
        if said.get("init") is False:
            flags.append("--init=false")
        mode = str(said.get("network_mode", ""))
        if mode.startswith(("service:", "container:")):
            self.findings.lose(f"{path}.network_mode", "put both into one task definition, as two containers")
        elif mode:
            flags.append(f"--network={mode}")
        if "stop_grace_period" in said:
            why = "a task that is to stop has ten seconds; shutdown_delay has it run on before that"
            self.findings.lose(f"{path}.stop_grace_period", why)
        for name, limit in said.get("ulimits", {}).items():
            both = limit if isinstance(limit, dict) else {"soft": limit, "hard": limit}
            flags.append(f"--ulimit={name}={both.get('soft', '')}:{both.get('hard', both.get('soft', ''))}")
        logging = self.findings.sound(said.get("logging"), shape.LOGGING, f"{path}.logging")
        if "driver" in logging:
            flags.append(f"--log-driver={logging['driver']}")
        flags += [f"--log-opt={key}={_text(one)}" for key, one in logging.get("options", {}).items()]
        if isinstance(said.get("gpus"), str):
            flags.append(f"--gpus={said['gpus']}")
        elif said.get("gpus"):
            self.findings.lose(f"{path}.gpus", "write the option --gpus into flags")
        return flags

    def _environment(self, said: dict[str, Any], name: str, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        files = said.get("env_file", [])
        for index, one in enumerate(files if isinstance(files, list) else [files]):
            at = f"{path}.env_file[{index}]" if isinstance(files, list) else f"{path}.env_file"
            entry = one if isinstance(one, dict) else {"path": one}
            needed = entry.get("required", True) not in (False, "false")
            if entry.get("format") not in (None, "raw") or not isinstance(entry.get("path"), str):
                self.findings.refuse(at, "expected the path of a file with lines of NAME=value")
            else:
                found |= self._env_file(entry["path"], needed, at)
        own = said.get("environment", {})
        for key, value in _pairs(own):
            at = f"{path}.environment.{key}" if isinstance(own, dict) else f"{path}.environment"
            if value is not None:
                found[key] = _text(value)
            elif key in self._variables:
                found[key] = self._variables[key]
            else:
                self.findings.lose(at, f"{key} has no value, and nobody has set it")
        for key in [key for key in found if key == "PROVIDED_PORT" or key.startswith("SKED_")]:
            del found[key]
            self.findings.lose(f"{path}.environment.{key}", "Sked sets it itself")
        self._secrets(said, found, path)
        self._look_at(found, name, path)
        return found

    def _secrets(self, said: dict[str, Any], environment: dict[str, Any], path: str) -> None:
        """Files of secrets that a variable leads to become that variable: most images take NAME for NAME_FILE."""
        for index, item in enumerate(said.get("secrets", [])):
            at = f"{path}.secrets[{index}]"
            source, target = (item.get("source"), item.get("target")) if isinstance(item, dict) else (item, None)
            if not isinstance(source, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", source):
                self.findings.refuse(at, "expected the name of a secret")
                continue
            file = str(target or source)
            file = file if file.startswith("/") else f"/run/secrets/{file}"
            ref = {"secret": f"{self._project}/{source}"}
            known = [key for key, value in environment.items() if value == file and key.endswith("_FILE")]
            for key in known:
                del environment[key]
                environment[key.removesuffix("_FILE")] = ref
                why = f"{key.removesuffix('_FILE')} holds the secret {ref['secret']}, which hosts have to know"
                self.findings.lose(at, f"in place of {key}, {why} (docs/secrets.md)", "changed")
            if not known:
                self.findings.lose(
                    at, f"Sked hands out secrets as variables: env: {{NAME: {{secret: {ref['secret']}}}}}"
                )

    def _look_at(self, environment: dict[str, Any], name: str, path: str) -> None:
        """Say of variables what whoever applies the manifests should know."""
        for key, value in environment.items():
            at = f"{path}.environment.{key}"
            if not isinstance(value, str):
                continue
            if value and _ALL_CAPS_SECRET.search(key.upper()) and not key.endswith("_FILE"):
                self.findings.note(at, "will stand in the store in clear; {secret: NAME} does not (docs/secrets.md)")
            others = (one for one in _ADDRESS.findall(value) if one != name and one in self._services)
            if named := next(others, None):
                why = f'it may be the address of the service "{named}", a name that only compose\'s network knows'
                self.findings.note(at, why)


def _pairs(environment: list[str] | dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Names with values; None where a list has the name alone."""
    if isinstance(environment, dict):
        return environment.items()
    return [(name, value if mark else None) for name, mark, value in (item.partition("=") for item in environment)]


def sked_name(text: str) -> str:
    """``text`` by the rule for names: 1 to 63 of a-z 0-9 -, no hyphen first or last; empty if nothing is left."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower())[:63].strip("-")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
