"""A provider of secrets that is a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sked_bridge.pool import Pool, Refusal, Short, T
from sked_bridge.programs import Program
from sked_core.plugin import (
    MAX_SECRET_BYTES,
    Denied,
    NotFound,
    PluginError,
    Secret,
    SecretContext,
    SkedError,
    Unavailable,
)

SECONDS = 12.0
"""Less than the 15 that a provider has, all in all."""
_KINDS: Mapping[str, type[SkedError]] = {"not_found": NotFound, "denied": Denied}


class _Secret(msgspec.Struct):
    value: str
    version: Short = ""


class _Problems(msgspec.Struct):
    problems: list[Short]


class BridgedSecrets:
    """Reads secrets by asking the program."""

    def __init__(self, program: Program, context: SecretContext) -> None:
        self._pool = Pool(program, {"host": context.host, "settings": context.settings})

    def read(self, name: str, key: str) -> Secret:
        found = self._ask("read", {"name": name, "key": key}, _Secret)
        if len(found.value.encode(errors="replace")) > MAX_SECRET_BYTES:
            raise Denied(f"secret {name} is larger than the {MAX_SECRET_BYTES} bytes that one may have")
        return Secret(found.value, found.version)

    def problems(self) -> list[str]:
        try:
            if "problems" not in self._pool.hello().methods:
                return []
            return self._ask("problems", {}, _Problems).problems
        except (SkedError, PluginError) as error:
            return [str(error)]

    def close(self) -> None:
        self._pool.close()

    def _ask(self, method: str, params: Mapping[str, Any], kind: type[T]) -> T:
        try:
            return self._pool.ask(method, params, kind, SECONDS)
        except Refusal as refusal:
            raise _KINDS.get(refusal.kind, Unavailable)(str(refusal), hint=refusal.hint) from None
        except PluginError as error:
            raise Unavailable(str(error), hint=error.hint) from None
