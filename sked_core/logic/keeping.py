"""Which endings of a host are kept, and in which of its slots. Pure.

Slots come in two groups, so that neither takes away the other's evidence: ends that nobody wanted have most of them,
and stops that somebody wanted the rest. Within a group the oldest gives way.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from sked_core.model import codec
from sked_core.model.endings import Ending
from sked_core.model.keys import KEPT_ENDINGS

FOR_STOPS = 8
"""How many of a host's slots are for stops that somebody wanted."""
MOST_OF_ONE_TASK = 4
"""How many of the others one task may have: a crash loop whose words change each time must not take them all."""
MAX_BYTES = 8 * 1024
"""How large one ending may be."""
MAX_TEXT = 1000
"""Characters of a reason and of a check's output that are kept."""


def place(slots: Mapping[int, Ending], ending: Ending) -> tuple[int, Ending]:
    """The slot that ``ending`` is to have beside those in ``slots``, and what is to stand there: the same end of the
    same task again is counted in the slot that it has. An ending that stands there already is left as it is."""
    stop = ending.cause == "stopped"
    group = range(KEPT_ENDINGS - FOR_STOPS, KEPT_ENDINGS) if stop else range(KEPT_ENDINGS - FOR_STOPS)
    taken = {slot: one for slot, one in slots.items() if slot in group}
    own = {slot: one for slot, one in taken.items() if one.task == ending.task}
    for slot, one in own.items():
        if _same(one, ending):
            return slot, _counted(one, ending)
    if len(own) >= MOST_OF_ONE_TASK:
        return _oldest(own), ending
    free = next((slot for slot in group if slot not in taken), None)
    return _oldest(taken) if free is None else free, ending


def _oldest(slots: Mapping[int, Ending]) -> int:
    return min(slots, key=lambda slot: (slots[slot].ended, slot))


def _same(one: Ending, other: Ending) -> bool:
    return (one.cause, one.reason, one.exits, one.task_name) == (
        other.cause,
        other.reason,
        other.exits,
        other.task_name,
    )


def _counted(one: Ending, again: Ending) -> Ending:
    if (again.ended, again.attempts, again.started) == (one.ended, one.attempts, one.started):
        return one  # it was written by a commit whose answer got lost
    return bounded(replace(again, times=one.times + again.times, first=one.first or one.ended))


def bounded(ending: Ending) -> Ending:
    """``ending`` within MAX_BYTES: of a log that is too long the last lines are kept."""
    ending = replace(ending, reason=ending.reason[:MAX_TEXT], output=ending.output[:MAX_TEXT])
    size = len(codec.encode(replace(ending, log=[])))
    if size > MAX_BYTES:  # hundreds of containers, or texts that take many bytes
        ending = replace(ending, exits={}, reason=ending.reason[:100], output="", log=[])
        size = len(codec.encode(ending))
    kept: list[str] = []
    for line in reversed(ending.log):
        size += len(codec.encode(line)) + 1
        if size > MAX_BYTES:
            break
        kept.append(line)
    return replace(ending, log=kept[::-1])
