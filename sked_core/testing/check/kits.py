"""From what a package offers to the classes of tests that try it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from sked_core.runtime.plugins.hooks import hooks_of
from sked_core.runtime.plugins.loading import HOOKS
from sked_core.testing.needed import lacking
from sked_core.testing.samples import (
    ExecutorSample,
    HealthSample,
    PackageSample,
    Sample,
    SchedulerSample,
    SecretSample,
    StoreSample,
)

CONTRACTS = {
    ExecutorSample: ("executor", "type", "sked_core.testing.executors", "ExecutorContract"),
    SchedulerSample: ("scheduler", "name", "sked_core.testing.scheduler_contract", "SchedulerContract"),
    StoreSample: ("storage", "scheme", "sked_core.testing.stores", "StoreContract"),
    HealthSample: ("health", "scheme", "sked_core.testing.health_contract", "HealthContract"),
    SecretSample: ("secrets", "name", "sked_core.testing.secret_contract", "SecretContract"),
    PackageSample: ("package", "plugin", "sked_core.testing.package_contract", "PackageContract"),
}
"""By the type of a sample: its kind, which field names it, and where its contract is."""


def part_of(sample: Sample) -> str:
    """What a sample is of, as ``sked plugins`` lists it: ``executor page``."""
    kind, field, _, _ = CONTRACTS[type(sample)]
    return f"{kind} {getattr(sample, field)}"


def samples_of(points: Iterable[EntryPoint], doing: Callable[[str], object] = lambda _: None) -> dict[str, Sample]:
    """The samples that a package's plugins offer, by what they are of; schedulers, events and commands without one.
    ``doing`` is told what of a plugin runs next. Raises whatever the plugins raise, and TypeError for what is no
    sample."""
    found: dict[str, Sample] = {}
    for point in points:
        doing(f"import of {point.value}")
        hooks, _ = hooks_of(point.load())  # what is wrong with them is told of the packaging
        if hooks.sked_event.get_hookimpls() or hooks.sked_commands.get_hookimpls():
            package = PackageSample(plugin=point.value)
            found[part_of(package)] = package
        doing(f"sked_schedulers of {point.name}")
        for offered in hooks.sked_schedulers():
            samples = [SchedulerSample(name=name, make=make) for name, make in offered.items()]
            found |= {part_of(sample): sample for sample in samples}
        doing(f"sked_samples of {point.name}")
        for offered in hooks.sked_samples():
            for sample in offered:
                if type(sample) not in CONTRACTS:
                    raise TypeError(f"sked_samples gave {sample!r:.80}, which is no sample")
                found[part_of(sample)] = sample
    return found


def twins_of(points: Iterable[EntryPoint], samples: Mapping[str, Sample]) -> dict[str, str]:
    """What has no sample, but the very factory of something that has one, as the schemes of one store often do: which
    that is."""
    found: dict[str, str] = {}
    for point in points:
        hooks, _ = hooks_of(point.load())
        for kind, hook in HOOKS.items():
            for offered in getattr(hooks, hook)():
                tried = {id(make): f"{kind} {name}" for name, make in offered.items() if f"{kind} {name}" in samples}
                parts = {f"{kind} {name}": tried.get(id(make), "") for name, make in offered.items()}
                found |= {part: other for part, other in parts.items() if other and part not in samples}
    return found


def classes_of(samples: Mapping[str, Sample], twins: Mapping[str, str] | None = None) -> dict[str, type[Any]]:
    """A class of tests for each sample, for pytest to collect; for one that can't be tried here, and for ``twins``, a
    class that says so."""
    found = {}
    unmet = {part: lacking(sample) for part, sample in samples.items()}
    for part, sample in samples.items():
        _, _, module, contract = CONTRACTS[type(sample)]
        kit = getattr(import_module(module), contract)
        if isinstance(sample, PackageSample):
            kit = import_module(module).contract_of(sample)  # a hook that a package does not have is none to be tried
        name = "Test " + part
        why = unmet[part]
        found[name] = _one(name, "its kit passes", why) if why else type(name, (kit,), {"sample": sample})
    for part, other in (twins or {}).items():
        found["Test " + part] = _one("Test " + part, f"what makes it is what makes {other}", unmet[other])
    return found


def _one(name: str, what: str, why: str) -> type[Any]:
    """A class with one test, which passes unless there is a reason not to know."""

    def test(self: object) -> None:
        if why:
            pytest.skip(why)

    return type(name, (), {"test_" + what.replace(" ", "_"): test})
