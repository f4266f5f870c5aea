"""The error tree. Each class means a different next move; there is no other reason for a class.

::

    SkedError
    ├── Conflict           somebody wrote first: read again, plan again
    ├── Unavailable        the store (or an engine) does not answer: back off, keep tasks running
    ├── LeaseLost          the lease is gone or can't be proven: stop acting now
    ├── StoreChanged       the store is not the one known before: freeze until a person decides
    ├── InvalidManifest    carries a list of problems with places: the user edits
    ├── InvalidValue       a name, key, URL or option that can't be: the user corrects it
    │   └── InvalidConfig  one in a file of the host, such as its policy: its operator edits that
    ├── NotFound           nothing has that name: the user picks another
    ├── Denied             the store or an engine refuses this caller: the operator gives a permission
    ├── Rejected           this host won't run the task: it is placed elsewhere
    ├── ExecutorError      a start or stop failed: retried with back-off unless ``permanent``
    └── PluginError        a plugin is broken, missing or claims a taken name: the operator repairs it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SkedError(Exception):
    """Base of everything that Sked raises on purpose.

    ``hint`` is what to try next, one line each; it is printed below the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Conflict(SkedError):
    """A guarded commit was refused because a Check or Fence did not hold. Nothing was written."""


class Unavailable(SkedError):
    """The store or an engine could not be reached, or did not answer within the deadline.

    After a failed commit the outcome is unknown: read again before acting.
    """


class LeaseLost(SkedError):
    """The lease has expired, was revoked, or can no longer be proven to be alive."""


class StoreChanged(SkedError):
    """The store's identity is missing or another one than before (wiped or mistaken), or its data is older.

    ``stranger`` is false in the last case: it is the store known before, set back.
    """

    def __init__(self, message: str, *, stranger: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stranger = stranger


class InvalidValue(SkedError):
    """A single value (name, key, URL, option) is not acceptable."""


class InvalidConfig(InvalidValue):
    """A file of the host, such as its policy, can't be what it says, or can't be believed."""


class NotFound(SkedError):
    """No object of that kind and name exists."""


class Denied(SkedError):
    """A token or a permission lacks."""


class Rejected(SkedError):
    """This host will not run the task; the text is the ``reject_reason`` that users read."""


class ExecutorError(SkedError):
    """A container could not be started or stopped.

    ``permanent``: trying again on this host can't help (the task is rejected at once).
    """

    def __init__(self, message: str, *, permanent: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.permanent = permanent


class PluginError(SkedError):
    """A plugin is missing, broken, or in conflict with another one."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a manifest or an executor's spec.

    ``path`` is relative to what was validated (``desired``, ``volumes[0]``), ``message`` one line.
    ``line`` and ``column`` count from 1; 0 means that the place is not known. ``file`` may be empty.
    """

    path: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else (f"{self.file}: " if self.file else "")
        kind = "warning: " if self.warning else ""
        return f"{place}{kind}{self.path}: {self.message}" if self.path else f"{place}{kind}{self.message}"


class InvalidManifest(SkedError):
    """One or more files can't be applied; nothing was written."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
