"""Looking for the commonest faults of an installation, each with what puts it right."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from sked_core.client.doctor import cluster, installation, machine, stores
from sked_core.client.doctor.exam import Check, Exam, Fault, Result

SECONDS = 5.0
"""All checks together take no longer: what hangs is left behind."""
CHECKS: tuple[Check, ...] = (*installation.CHECKS, *stores.CHECKS, *cluster.CHECKS, *machine.CHECKS)

__all__ = ["CHECKS", "Check", "Exam", "Fault", "Result", "examine"]


def examine(exam: Exam, checks: Sequence[Check] = CHECKS, *, seconds: float = SECONDS) -> list[Result]:
    """What each check finds, in order. Each runs in a thread of its own, and none longer than ``seconds``."""
    found: dict[str, list[Result]] = {}
    threads = [
        threading.Thread(target=lambda one=one: found.update({one.name: list(_results(one, exam))}), daemon=True)
        for one in checks
    ]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [result for one in checks for result in found.get(one.name) or [_overdue(one, exam, seconds)]]


def _results(check: Check, exam: Exam) -> Iterator[Result]:
    sound, said = True, ""
    try:
        for fault in check.look(exam):
            if isinstance(fault, str):
                said = fault
                continue
            sound = False
            yield Result(check.name, "fault", fault.what, fault.remedy)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        yield Result(check.name, "unknown", str(error) or type(error).__name__)
        return
    if sound:
        yield Result(check.name, "ok", said)


def _overdue(check: Check, exam: Exam, seconds: float) -> Result:
    if check.overdue is None:
        return Result(check.name, "unknown", f"no answer within {seconds:g} s")
    fault = check.overdue(exam)
    return Result(check.name, "fault", f"{fault.what} within {seconds:g} s", fault.remedy)
