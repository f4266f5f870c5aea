"""The provider ``environment``: variables that the agent was started with."""

from __future__ import annotations

import os
import re
import threading

import msgspec

from sked_core.errors import Denied, InvalidValue, NotFound
from sked_core.interfaces.secrets import MAX_SECRET_BYTES, Secret, SecretContext
from sked_core.model.spec import check_spec

DEFAULT_PREFIX = "SKED_SECRET_"
_PREFIX = re.compile(r"[A-Z][A-Z0-9_]*_\Z")
# No two names give one variable: no capitals, no _, no hyphens side by side.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)*\Z")
_taken: dict[str, str] = {}
_taking = threading.Lock()


class VariableSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``prefix``: how the names of the variables begin; it ends with ``_``."""

    prefix: str = DEFAULT_PREFIX


class SecretVariables:
    """A secret ``shop/db-password`` is the variable ``SKED_SECRET_SHOP__DB_PASSWORD``.

    All variables of the prefix are taken out of the environment when the first provider is made, so that no process
    that the agent starts inherits one. Root, and the agent's user, still see them in /proc/PID/environ of the agent.
    """

    def __init__(self, context: SecretContext) -> None:
        if problems := check_spec(context.settings, VariableSettings, "secrets.providers.environment"):
            raise InvalidValue("; ".join(map(str, problems)))
        self._prefix = msgspec.convert(context.settings, VariableSettings).prefix
        if not _PREFIX.match(self._prefix) or "SKED_".startswith(self._prefix):
            expected = "expected A-Z 0-9 _ with _ at the end, and not SKED_ alone"
            raise InvalidValue(f"secrets.providers.environment.prefix: {expected}, got {self._prefix!r:.60}")
        with _taking:
            for name in [name for name in os.environ if name.startswith(self._prefix)]:
                _taken[name] = os.environ.pop(name)

    def read(self, name: str, key: str) -> Secret:
        if key:
            raise NotFound("a variable has no keys: leave key out")
        if not _NAME.match(name):
            raise NotFound(f"no variable stands for {name}: a-z 0-9, single hyphens and / only")
        variable = self._prefix + name.replace("/", "__").replace("-", "_").upper()
        value = _taken.get(variable)
        if value is None:
            raise NotFound(f"the agent was started without {variable}")
        if len(value.encode("utf-8", "surrogateescape")) > MAX_SECRET_BYTES:
            raise Denied(f"{variable} is larger than {MAX_SECRET_BYTES} bytes")
        if not value.isprintable() and any("\udc80" <= one <= "\udcff" for one in value):
            raise Denied(f"{variable} is no UTF-8 text")
        return Secret(value)

    def problems(self) -> list[str]:
        return []

    def close(self) -> None:
        """The variables stay taken: another agent of this process may need them."""
