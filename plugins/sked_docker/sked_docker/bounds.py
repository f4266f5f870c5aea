"""How much a container may have: memory, cores, processes, logs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sked_core.plugin import Denial
from sked_docker.cases import Case, over, words
from sked_docker.values import size

MOST_PIDS = 4_194_304
_MB = 1024 * 1024
_OWN_DRIVERS = ("json-file", "local", "none")
_OWN_LOG_OPTIONS = ("max-size", "max-file", "compress", "mode")


def memory(case: Case, value: Any) -> Iterator[Denial]:
    most, asked = case.limits.max_memory, -(-value // _MB)
    if most and (asked > most or not asked):
        yield over("max_memory", f"{asked or 'unlimited'} MB of memory, {most} at most", _fitting(asked))


def _fitting(asked: int) -> int:
    """A ceiling for that much: none, where no ceiling can be so high."""
    return asked if asked <= 2**31 else 0


def cores(case: Case, host: Mapping[str, Any]) -> Iterator[Denial]:
    """Both ways to ask for a share of the cores come down to so many of them."""
    most = case.limits.max_cpu_units
    asked = -(-host.get("NanoCpus", 0) * 1024 // 10**9)
    if host.get("CpuQuota", 0) > 0:
        asked = max(asked, -(-host["CpuQuota"] * 1024 // (host.get("CpuPeriod") or 100_000)))
    if most and (asked > most or not asked):
        yield over("max_cpu_units", f"{asked or 'unlimited'} cpu units, {most} at most", _fitting(asked))


def pids(case: Case, value: Any) -> Iterator[Denial]:
    most = case.limits.pids
    if most < MOST_PIDS and (value <= 0 or value > most):
        asked = "unlimited" if value <= 0 else value
        yield over("pids", f"{asked} processes, {most} at most", min(value, MOST_PIDS) if value > 0 else MOST_PIDS)


def logging(case: Case, value: Any) -> Iterator[Denial]:
    driver, options = value["Type"], value["Config"]
    yield from words("log_drivers", "log driver", free=("json-file", "none"))(case, driver)
    yield from words("log_opts", "log option", free=_OWN_LOG_OPTIONS if driver in _OWN_DRIVERS else ())(
        case, list(options)
    )
    if driver in ("json-file", "local"):
        yield from log_limits(case, options)


def log_limits(case: Case, options: Mapping[str, str]) -> Iterator[Denial]:
    """How much is kept. What is no number means no bound to the engine, or is refused by it; that takes the largest
    bound which the policy can have."""
    for option, gate, largest in (("max-size", "log_size", 1_048_576), ("max-file", "log_files", 100)):
        try:
            number = size(options[option]) if gate == "log_size" else int(options[option])
        except (KeyError, ValueError):
            number = 0
        asked = min(-(-number // _MB) if gate == "log_size" else number, largest)
        if not asked <= 0 and asked <= getattr(case.limits, gate):
            continue
        if getattr(case.limits, gate) < largest:
            yield over(gate, f"log option {option}={options.get(option, '')[:30]}", asked if asked > 0 else largest)
