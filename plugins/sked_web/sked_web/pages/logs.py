"""What tasks write, as a page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from sked_web.pages.site import Ask


@dataclass(frozen=True, slots=True)
class Log:
    """The last lines of a task; ``follow``: where they and what comes are read from; ``trouble``: why there is
    nothing."""

    text: str = ""
    follow: str = ""
    trouble: str = ""


def log_of(ask: Ask, task: str) -> Log:
    """The last lines that the task wrote."""
    return Log(trouble="its agent offers no logs here")
