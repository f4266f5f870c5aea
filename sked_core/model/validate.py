"""All of an apply as one: every problem of every file, with its place, or the resolved objects.

Fields are checked by ``check_spec``, single objects by ``rules``; here stands what needs several: names that are
declared twice, references, task ids that would collide, and what is stored already.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from sked_core.errors import InvalidManifest, Problem
from sked_core.model import keys, secret_refs
from sked_core.model.codec import MAX_OBJECT_BYTES
from sked_core.model.manifest import Manifest, StoredConfig
from sked_core.model.placeable import unplaceable
from sked_core.model.placement_rules import circle_of, named_services, placement_problems
from sked_core.model.resolve import differences, normalise, resolve_service, same
from sked_core.model.rules import SpecChecker, cluster_problems, definition_problems, service_problems
from sked_core.model.spec import UNKNOWN_FIELD, check_spec, did_you_mean, plain, show, unknown_field
from sked_core.model.types import NAME_PATTERN, Cluster, Service, TaskDefinition
from sked_core.model.yaml_source import Document, Source

LISTS = ("clusters", "services", "task_definitions")
_ALIASES = {"tasks": "task_definitions"}
MAX_SUGGESTIONS = 20
"""Problems after which missing names are no longer compared with all others."""
_NAME = re.compile(NAME_PATTERN)
MAX_DECLARED_BYTES = MAX_OBJECT_BYTES // 2 - 4096
"""Largest cluster or task definition: a task holds one of each, and has to fit into one key as well."""


@dataclass(slots=True)
class _Item:
    """One object of a document: what it says, where, and (for a service) with its counts filled in."""

    document: Document
    path: str
    value: Mapping[str, Any]
    resolved: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The text of a field, empty if it is missing or no text."""
        value = self.value.get(name)
        return value if isinstance(value, str) else ""

    def version(self, name: str) -> int | None:
        value = self.value.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    @property
    def place(self) -> str:
        line, column = self.document.place(f"{self.path}.name")
        return f"{self.document.file}:{line}:{column}"


def validate(
    sources: Sequence[Source],
    *,
    stored: StoredConfig | None,
    executors: Mapping[str, SpecChecker],
    schedulers: Collection[str],
) -> Manifest:
    """The objects that ``sources`` declare, resolved. Raises InvalidManifest with all problems, warnings included,
    in the order of the files.

    ``stored``: what was applied before; None when no store was asked, and then what is not in the files counts as
    unknown (a warning), not as missing. ``executors`` and ``schedulers``: those that are installed, by name.
    """
    return _Validation(sources, stored, executors, schedulers).run()


class _Validation:
    def __init__(
        self,
        sources: Sequence[Source],
        stored: StoredConfig | None,
        executors: Mapping[str, SpecChecker],
        schedulers: Collection[str],
    ) -> None:
        self._sources = sources
        self._asked = stored is not None
        self._stored = stored or StoredConfig()
        self._executors = executors
        self._schedulers = schedulers
        self._items: dict[str, list[_Item]] = {name: [] for name in LISTS}
        self._problems: list[Problem] = []
        self._complete = not any(source.problems for source in sources)

    def run(self) -> Manifest:
        for source in self._sources:
            self._problems += source.problems
            for document in source.documents:
                self._sort_into_lists(document)
        if not self._problems and not any(self._items.values()):
            files = ", ".join(source.file for source in self._sources)
            self._problems.append(Problem("", f"nothing to apply: no {' or '.join(LISTS)}", files))
        for item in self._items["clusters"]:
            self._check_object(item, Cluster, cluster_problems(item.value))
            self._check_dropped(item)
        for item in self._items["services"]:
            self._check_service(item)
        for item in self._items["task_definitions"]:
            self._check_object(item, TaskDefinition, definition_problems(item.value, self._executors))
        for name in LISTS:
            self._check_declared_once(name)
        if self._complete:  # else what could not be read may well hold what is missed
            self._check_references()
        self._check_colliding_ids()
        if self._has_errors():
            raise InvalidManifest(self._sorted())
        definitions = tuple(self._definitions())
        clusters = tuple(msgspec.convert(item.value, Cluster) for item in self._items["clusters"])
        for item, cluster in zip(self._items["clusters"], clusters, strict=True):
            self._check_size(item, cluster)
        if self._has_errors():
            raise InvalidManifest(self._sorted())
        services = tuple(msgspec.convert(item.resolved, Service) for item in self._items["services"])
        for item, service in zip(self._items["services"], services, strict=True):
            self._check_placeable(item, service, clusters, definitions)
        return Manifest(
            clusters=clusters,
            services=services,
            task_definitions=definitions,
            warnings=self._sorted(),
        )

    def _sort_into_lists(self, document: Document) -> None:
        for name, value in document.data.items():
            kind = _ALIASES.get(name, name)
            if kind not in LISTS:
                self._add(document, Problem(plain(name[:80]), unknown_field(name, LISTS)))
                self._complete = False
            elif isinstance(value, list):
                for index, item in enumerate(value):
                    path = f"{name}[{index}]"
                    if isinstance(item, Mapping):
                        self._items[kind].append(_Item(document, path, item))
                    else:
                        self._add(document, Problem(path, f"expected a mapping, got {show(item)}"))
            elif value is not None:
                self._add(document, Problem(name, f"expected a list, got {show(value)}"))

    def _check_object(self, item: _Item, kind: type[msgspec.Struct], more: Iterator[Problem]) -> None:
        for problem in (*check_spec(item.value, kind), *more):
            self._report(item, problem)

    def _check_dropped(self, item: _Item) -> None:
        stored = self._stored.clusters.get(item.text("name"))
        kept = {name for _, name in _names(item.value.get("services"))}
        dropped = sorted(set(stored.services) - kept) if stored else []
        if dropped:
            message = f"no longer lists {', '.join(dropped)}: tasks of it in this cluster will be stopped"
            self._report(item, Problem("services", message, warning=True))

    def _check_service(self, item: _Item) -> None:
        stored = self._stored.services.get(item.text("name"))
        item.resolved, problems = resolve_service(item.value, stored)
        placement = placement_problems(item.resolved, counted="desired" in item.value)
        self._check_object(item, Service, iter((*problems, *service_problems(item.resolved), *placement)))
        low, high = item.resolved.get("min"), item.resolved.get("max")
        if low and low == high and not problems:
            message = f"min and max are both {low}: no room to replace a task, a version change will be blocked"
            self._report(item, Problem("max", message, warning=True))
        scheduler = item.text("scheduler")
        if scheduler and scheduler not in self._schedulers:
            known = ", ".join(sorted(self._schedulers))
            near = did_you_mean(scheduler, self._schedulers)
            message = f"no scheduler {show(scheduler)} is installed here{near or f'; installed are: {known}'}"
            message += "; its tasks wait until a process runs that places by it"
            self._report(item, Problem("scheduler", message, warning=True))

    def _check_declared_once(self, kind: str) -> None:
        seen: dict[tuple[str, int | None], _Item] = {}
        for item in self._items[kind]:
            name, version = item.text("name"), item.version("version") if kind == "task_definitions" else None
            first = seen.setdefault((name, version), item)
            if first is not item and name:
                said = show(name) if version is None else f"{show(name)} version {version}"
                self._report(item, Problem("name", f"{said} is declared already at {first.place}"))

    def _check_references(self) -> None:
        services = {item.text("name") for item in self._items["services"]} | self._stored.services.keys()
        versions: dict[str, set[int | None]] = {}
        for item in self._items["task_definitions"]:
            versions.setdefault(item.text("name"), set()).add(item.version("version"))
        for name, version in self._stored.task_definitions:
            versions.setdefault(name, set()).add(version)
        if self._names_are_sound("services"):
            for item in self._items["clusters"]:
                for index, name in _names(item.value.get("services")):
                    if name not in services:
                        self._missing(item, f"services[{index}]", f"no service {show(name)}", name, services)
            for item in self._items["services"]:
                for path, name in named_services(item.value.get("placement")):
                    if _is_name(name) and name not in services:
                        self._missing(item, path, f"no service {show(name)}", name, services)
            self._check_circles()
        if self._names_are_sound("task_definitions"):
            for item in self._items["services"]:
                name, wanted = item.text("task_name"), item.version("task_version")
                if _is_name(name) and name not in versions:
                    self._missing(item, "task_name", f"no task definition {name}", name, versions)
                elif _is_name(name) and wanted is not None and wanted not in versions[name]:
                    there = ", ".join(str(version) for version in sorted(v for v in versions[name] if v is not None))
                    self._missing(item, "task_version", f"no version {wanted} of {name}; there is {there}")
        self._check_listed()

    def _check_circles(self) -> None:
        near = {
            service.name: [one.service for one in service.placement_rules.near]
            for service in self._stored.services.values()
        }
        for item in self._items["services"]:
            placement = item.value.get("placement")
            near[item.text("name")] = [name for path, name in named_services(placement) if ".near[" in path]
        for item in self._items["services"]:
            circle = circle_of(item.text("name"), near)
            if len(circle) > 2:  # one that names itself has been told so already
                message = f"a circle, of which none can be the first to run: {' near '.join(circle)}"
                self._report(item, Problem("placement.near", message))

    def _check_placeable(
        self, item: _Item, service: Service, clusters: Iterable[Cluster], definitions: Iterable[TaskDefinition]
    ) -> None:
        known = {(one.name, one.version): one for one in definitions}
        wanted = (service.task_name, service.task_version)
        definition = known.get(wanted) or self._stored.task_definitions.get(wanted)
        within = {**self._stored.clusters, **{one.name: one for one in clusters}}
        for cluster in within.values() if definition else ():
            names = self._stored.hosts if cluster.hosts is None else cluster.hosts
            hosts = [self._stored.hosts[name] for name in sorted(names) if name in self._stored.hosts]
            if hosts and definition and service.name in cluster.services:
                for problem in unplaceable(service, definition, hosts, fixed_port=self._fixed_port(definition)):
                    self._report(item, problem)

    def _fixed_port(self, definition: TaskDefinition) -> bool:
        """Whether a task takes host ports that are the same for each."""
        taken = (
            self._executors[container.type].ports(secret_refs.held(container.executor), 0)
            for container in definition.containers
            if container.type in self._executors
        )
        return bool(definition.port and not definition.provide_port) or any(taken)

    def _check_listed(self) -> None:
        clusters = {item.text("name"): item.value.get("services") for item in self._items["clusters"]}
        listed = {name for value in clusters.values() for _, name in _names(value)}
        listed |= {name for c in self._stored.clusters.values() if c.name not in clusters for name in c.services}
        for service in self._items["services"]:
            name = service.text("name")
            if self._asked and _is_name(name) and name not in listed:
                message = "is listed by no cluster: nothing of it will run"
                self._report(service, Problem("name", f"{show(name)} {message}", warning=True))

    def _missing(self, item: _Item, path: str, message: str, name: str = "", known: Iterable[str] = ()) -> None:
        # Looking for the nearest of many names takes long; who misses a hundred of them has made another mistake.
        advice = did_you_mean(name, known) if len(self._problems) < MAX_SUGGESTIONS else ""
        asked = "" if self._asked else " in these files (no store was asked)"
        self._report(item, Problem(path, message + asked + advice, warning=not self._asked))

    def _names_are_sound(self, kind: str) -> bool:
        """Whether every object of a kind has a usable name: a missing one could be the one that is misspelt."""
        return all(
            _is_name(item.text("name")) and (kind != "task_definitions" or item.version("version") is not None)
            for item in self._items[kind]
        )

    def _check_colliding_ids(self) -> None:
        owners: dict[str, tuple[str, str]] = {}
        declared = {item.text("name") for item in self._items["clusters"]}
        for name, cluster in self._stored.clusters.items():
            if name not in declared:
                for service in cluster.services:
                    owners.setdefault(f"{name}-{service}", (name, service))
        for item in self._items["clusters"]:
            cluster_name = item.text("name")
            for index, service in _names(item.value.get("services")):
                joined, pair = f"{cluster_name}-{service}", (cluster_name, service)
                other = owners.setdefault(joined, pair)
                if other != pair and _is_name(cluster_name):
                    message = (
                        f"two (cluster, service) pairs with one task id: ({other[0]}, {other[1]}) and"
                        f" ({pair[0]}, {pair[1]}) would both be {joined}-<version>-<instance>; rename one of them"
                    )
                    self._report(item, Problem(f"services[{index}]", message))

    def _definitions(self) -> Iterator[TaskDefinition]:
        for item in self._items["task_definitions"]:
            definition = normalise(msgspec.convert(item.value, TaskDefinition))
            self._check_size(item, definition)
            name, version = definition.name, definition.version
            stored = self._stored.task_definitions.get((name, version))
            broken = self._stored.broken.get(keys.task_definition(name, version))
            newest = max((v for known, v in self._stored.task_definitions if known == name), default=version)
            advice = f"task definitions are immutable: raise the version to {max(newest, version) + 1}"
            if broken is not None:
                message = f"version {version} of {name} is stored already and can't be read ({plain(broken)}); {advice}"
                self._report(item, Problem("version", message))
            elif stored is not None and not same(normalise(stored), definition):
                changes = plain(differences(normalise(stored), definition))
                message = f"version {version} of {name} is applied already with other content ({changes}); {advice}"
                self._report(item, Problem("version", message))
            yield definition

    def _check_size(self, item: _Item, value: msgspec.Struct) -> None:
        size = len(msgspec.json.encode(value))
        if size > MAX_DECLARED_BYTES:
            message = f"{size} bytes as JSON, more than the {MAX_DECLARED_BYTES} that fit into the store"
            self._report(item, Problem("", message))

    def _report(self, item: _Item, problem: Problem) -> None:
        inner = problem.path
        path = item.path + (inner if inner.startswith("[") or not inner else f".{inner}")
        self._add(item.document, replace(problem, path=path))

    def _add(self, document: Document, problem: Problem) -> None:
        bare = problem.path.partition(" (")[0]
        line, column = document.place(bare, key=problem.message.startswith(UNKNOWN_FIELD))
        self._problems.append(replace(problem, file=document.file, line=line, column=column))

    def _has_errors(self) -> bool:
        return not all(problem.warning for problem in self._problems)

    def _sorted(self) -> tuple[Problem, ...]:
        files = {source.file: index for index, source in enumerate(self._sources)}
        unique = dict.fromkeys(self._problems)
        return tuple(sorted(unique, key=lambda p: (files.get(p.file, -1), p.line, p.column)))


def _names(value: object) -> Iterator[tuple[int, str]]:
    """The texts in ``value`` that can be names, with their index; others have a problem of their own already."""
    if isinstance(value, list):
        yield from ((index, name) for index, name in enumerate(value) if isinstance(name, str) and _is_name(name))


def _is_name(name: str) -> bool:
    return _NAME.match(name) is not None
