"""How what was asked for can end, as a number: the exit codes of commands, which the API turns into its own."""

from __future__ import annotations

from sked_core.errors import (
    Conflict,
    Denied,
    InvalidConfig,
    InvalidManifest,
    InvalidValue,
    NotFound,
    SkedError,
    Unavailable,
)

FAILED = 1
USAGE = 2
INVALID = 3
NOT_FOUND = 4
CONFLICT = 5
UNREACHABLE = 6
DENIED = 7
UNPLACED = 8
TIMED_OUT = 9
PENDING = 10
INTERRUPTED = 130

_CODES: tuple[tuple[type[SkedError], int], ...] = (
    (InvalidManifest, INVALID),
    (InvalidConfig, INVALID),
    (InvalidValue, USAGE),
    (NotFound, NOT_FOUND),
    (Conflict, CONFLICT),
    (Unavailable, UNREACHABLE),
    (Denied, DENIED),
)


class Ended(SkedError):
    """It ends with a code of its own, and says why."""

    def __init__(self, message: str, *, code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


def code_of(error: SkedError) -> int:
    """The exit code that goes with ``error``."""
    if isinstance(error, Ended):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def hints_of(error: SkedError) -> list[str]:
    """What to try next, in lines."""
    return [*getattr(error, "__notes__", ()), *error.hint.splitlines()]
