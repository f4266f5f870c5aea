"""The check of one package: rules first, then the kit of each thing that it offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

from sked_core.errors import NotFound
from sked_core.runtime.plugins.loading import found
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.plugins.rules import PluginRules, Rule, normal
from sked_core.testing.check import packaging, trial
from sked_core.testing.check.findings import Finding, Report, Verdict

Tell = Callable[[Finding], None]


def check(name: str, *, tell: Tell = lambda _: None) -> Report:
    """Find out all about the package ``name`` (a distribution, or a plugin as `sked plugins` lists it). ``tell`` is
    called with each finding as it is made: the kits of a store may take minutes. Of the package's code only
    its import runs in this process. Raises NotFound."""
    package = _package(name)
    dist = distribution(package)
    findings: list[Finding] = []
    for finding in _all(package):
        findings.append(finding)
        tell(finding)
    return Report(dist.metadata["Name"], dist.version, tuple(findings))


def _all(package: str) -> Iterator[Finding]:
    points = trial.points_of(package)
    alone = PluginRules(allow=Rule.of([package], "this check"))
    rows = [row for row in Plugins.load(alone).rows() if normal(row.package) == normal(package)]
    yield from packaging.look(distribution(package), points, rows)
    if not points:
        return
    tried = set()
    for finding in trial.tried(package):
        tried.add(finding.part)
        yield finding
    why = "the kits could not be run" if trial.NO_KIT in tried else "sked_samples offers no sample of it"
    for part in dict.fromkeys(part for row in rows for part in row.provides):
        if part not in tried:
            yield Finding(part, "its kit passes", Verdict.NOT_TRIED, why)


def _package(name: str) -> str:
    """The distribution that is meant. Raises NotFound."""
    points = {point: str(point.dist.name) for point in found() if point.dist}
    for point, package in points.items():
        if point.name == name:
            return package
    try:
        return str(distribution(name).metadata["Name"])
    except (PackageNotFoundError, ValueError):
        known = sorted(set(points.values())) or ["none"]
    for module, packages in packages_distributions().items():
        if module == name:
            return packages[0]
    raise NotFound(f'no package "{name[:80]}" is installed here', hint=f"with plugins: {', '.join(known)}")
