"""Health checks: compose runs a command in the container, Sked asks the task's port from outside."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any
from urllib.parse import urlsplit

from sked_compose.findings import Findings
from sked_compose.ports import Ports
from sked_compose.shape import HEALTHCHECK
from sked_core.plugin import InvalidValue, to_seconds

_HERE = ("localhost", "127.0.0.1", "0.0.0.0", "::1")  # noqa: S104  what commands in containers ask
_SHELL = re.compile(r"[|&;<>`]|\$\(")
_OR_FAIL = re.compile(r"\|\|\s*(exit\s+\d+|false)\s*$")
_OTHER_REQUEST = re.compile(r"-[HXdubF]|--(header|request|data|user|cookie|form|post|body|method|upload)")
"""Options of curl and wget by which they ask something that a check does not."""
_ADDRESS = "127.0.0.1:$PROVIDED_PORT"
_DEFAULTS = {"interval": 30.0, "timeout": 30.0, "start_period": 0.0}
_SHORTEST = 1.0


def convert(value: dict[str, Any], ports: Ports, path: str, findings: Findings) -> tuple[dict[str, str] | None, float]:
    """The check that stands for a ``healthcheck``, and the seconds that a task may be unhealthy after its start (0:
    not said)."""
    said = {name: one for name, one in findings.sound(value, HEALTHCHECK, path).items() if one != ""}
    test = said.get("test", [])
    if said.get("disable") or test in ([], ["NONE"], ""):
        return None, 0.0
    check = _check(test, ports, f"{path}.test", findings)
    if check is None:
        return None, 0.0
    seconds = {name: _seconds(said.get(name), f"{path}.{name}", findings) for name in _DEFAULTS}
    for name in ("interval", "timeout"):
        found = seconds[name]
        if found is not None and name == "interval" and found < _SHORTEST:
            findings.lose(f"{path}.{name}", "a check comes once a second at most", "changed")
            found = _SHORTEST
        if found is not None:
            check[name] = f"{found:g}s"
    retries = str(said.get("retries", 3))
    if not retries.isdecimal() or len(retries) > 6:
        findings.refuse(f"{path}.retries", "expected a whole number")
        return check, 0.0
    if "retries" in said:
        findings.lose(f"{path}.retries", "they count until it is first healthy; later one failed check is enough",
                      "changed")  # fmt: skip
    if "start_interval" in said:
        findings.lose(f"{path}.start_interval", "checks come at one interval")
    if seconds["start_period"] is None and "retries" not in said:
        return check, 0.0
    interval = seconds["interval"] or _DEFAULTS["interval"]
    return check, math.ceil((seconds["start_period"] or 0.0) + int(retries) * interval)


def _seconds(text: str | None, path: str, findings: Findings) -> float | None:
    if text is None:
        return None
    try:
        return to_seconds(text)
    except InvalidValue as error:
        findings.refuse(path, str(error))
        return None


def _check(test: str | list[str], ports: Ports, path: str, findings: Findings) -> dict[str, str] | None:
    if isinstance(test, list) and test[0] not in ("CMD", "CMD-SHELL"):
        findings.refuse(path, "expected CMD, CMD-SHELL or NONE first")
        return None
    if ports.own is None:
        why = "it runs in the container, and Sked asks a port of the task, of which there is none to ask"
        findings.lose(path, why)
        return None
    asked = _asked(_words(test))
    if asked is not None and asked[0] == ports.own.target:
        if asked[1] is not None and _takes_any_status(_words(test)):
            findings.lose(path, "curl without -f passes whatever the status is, a check on 2xx only", "changed")
        return {"tcp": _ADDRESS} if asked[1] is None else {"http": f"http://{_ADDRESS}{asked[1]}"}
    why = f"Sked runs nothing in a container to check it, but sees whether port {ports.own.target} takes connections"
    findings.lose(path, why, "changed")
    return {"tcp": _ADDRESS}


def _words(test: str | list[str]) -> list[str]:
    """The words of one plain command; none where it needs a shell."""
    if isinstance(test, list) and test[0] == "CMD":
        return test[1:]
    text = _OR_FAIL.sub("", test if isinstance(test, str) else " ".join(test[1:]))
    if _SHELL.search(text):
        return []
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _takes_any_status(words: list[str]) -> bool:
    fails = any(word.startswith("--fail") or re.match(r"-[a-zA-Z]*f", word) for word in words[1:])
    return words[0].rpartition("/")[2] == "curl" and not fails


def _asked(words: list[str]) -> tuple[int, str | None] | None:
    """What port a known command asks, with the path if it speaks HTTP."""
    program, rest = words[0].rpartition("/")[2] if words else "", words[1:]
    if program in ("curl", "wget"):
        urls = [word for word in rest if re.match(r"https?://|localhost|127\.0\.0\.1", word)]
        if len(urls) != 1 or any(map(_OTHER_REQUEST.match, rest)):
            return None
        try:
            parts = urlsplit(urls[0] if "://" in urls[0] else f"http://{urls[0]}")
            port = parts.port or 80
        except ValueError:
            return None
        if parts.scheme != "http" or parts.hostname not in _HERE:
            return None
        return port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if program in ("nc", "ncat") and any(word.startswith("-") and "z" in word for word in rest):
        plain = [word for word in rest if not word.startswith("-")]
        if len(plain) == 2 and plain[0] in _HERE and plain[1].isdecimal() and len(plain[1]) < 6:
            return int(plain[1]), None
    return None
