"""The port to whatever keeps secrets: files of the host, Vault, any plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_SECRET_BYTES = 64 * 1024
"""The largest secret that a provider hands out: a variable of Linux holds 128 KiB at most."""


@dataclass(frozen=True, slots=True)
class SecretContext:
    """What a provider's factory is given: the name of this host, and what the host's policy says under
    ``secrets.providers`` for it. A factory raises InvalidValue for settings that can't be, and does no I/O but to
    take variables out of the agent's environment."""

    host: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A value and what tells it from others before and after it. ``version`` is shown and kept on disk: it must not
    be made from the value; ``""``: none is kept, so that nothing can be rotated."""

    value: str = field(repr=False)
    version: str = ""

    def __repr__(self) -> str:
        return f"Secret(version={self.version!r})"


class SecretProvider(Protocol):
    """Reads secrets for the tasks of one host. Called from several threads; every call ends within a deadline of its
    own, of 15 seconds at most."""

    def read(self, name: str, key: str) -> Secret:
        """The secret as it is now. ``name``: parts of ``A-Z a-z 0-9 _ . -`` separated by ``/``; ``key``: a field of
        it, ``""`` where it has only one.

        Raises NotFound where there is none of that name or field, Denied where the agent may not have it or it can't
        be handed out (unsafe modes, too large), Unavailable where that can't be told now. No message, and nothing that
        is logged, holds a value or a credential.
        """
        ...

    def problems(self) -> list[str]:
        """What keeps it from being used, for `sked doctor`, each with what to do about it; ``[]`` if nothing does."""
        ...

    def close(self) -> None:
        """End threads and connections. Idempotent."""
        ...
