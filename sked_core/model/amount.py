"""Amounts as operators write them: ``4g`` of memory, ``1.5`` cores, ports ``20000-29999``."""

from __future__ import annotations

import re

from sked_core.errors import InvalidValue
from sked_core.model.spec import show

CPU_UNITS_PER_CORE = 1024
MAX_MB = 2**40
MAX_CORES = 2**20
FIRST_PORT, LAST_PORT = 1024, 65535
"""Below 1024 only root may listen, and well-known services do."""
FEWEST_PORTS = 10
"""Fewer are a mistake: ports rest before they are given again, and a roll-out needs those of old and new tasks."""
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([mgt]?)(?:i?b)?", re.IGNORECASE)
_CORES = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,6})?")
_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
_MB = {"": 1, "m": 1, "g": 1024, "t": 1024 * 1024}


def to_mb(text: str) -> int:
    """MB (1024 * 1024 bytes) of ``4g``, ``512m``, ``1.5t`` or ``4096``, rounded down; g is 1024 MB. Raises InvalidValue
    for anything else, and for less than 1 MB."""
    found = _SIZE.fullmatch(text)
    amount = int(float(found[1]) * _MB[found[2].lower()]) if found else 0
    if not 1 <= amount <= MAX_MB:
        raise InvalidValue(f'expected an amount such as "4g" or "512m", got {show(text)}')
    return amount


def to_cpu_units(text: str) -> int:
    """Cpu units (1024 = one core) of so many cores: ``2``, ``0.5``. Raises InvalidValue."""
    units = int(float(text) * CPU_UNITS_PER_CORE) if _CORES.fullmatch(text) else 0
    if not 1 <= units <= MAX_CORES * CPU_UNITS_PER_CORE:
        raise InvalidValue(f'expected a number of cores such as "2" or "0.5", got {show(text)}')
    return units


def to_port_range(text: str) -> tuple[int, int]:
    """First and last port of ``20000-29999``. Raises InvalidValue for what is no range within 1024 to 65535, or has
    fewer than FEWEST_PORTS."""
    found = _RANGE.fullmatch(text)
    if not found:
        raise InvalidValue(f'expected a range of ports such as "20000-29999", got {show(text)}')
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise InvalidValue(f'the first port comes after the last one: try "{last}-{first}" instead of {show(text)}')
    if first < FIRST_PORT or last > LAST_PORT:
        raise InvalidValue(f"expected ports from {FIRST_PORT} to {LAST_PORT}, got {show(text)}")
    if last - first + 1 < FEWEST_PORTS:
        raise InvalidValue(f"expected {FEWEST_PORTS} ports or more, got {last - first + 1} of them: {show(text)}")
    return first, last
