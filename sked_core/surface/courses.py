"""Where tasks would go, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sked_core.client.looking.foresight import summary
from sked_core.client.looking.listing import verdicts
from sked_core.logic.projection import Course
from sked_core.logic.world import Pair
from sked_core.model.spec import plain
from sked_core.surface.render import table

MAX_VERDICTS = 20
"""How many lines say why a service's tasks find no host; all reasons are in the JSON."""


def course_lines(courses: Mapping[Pair, Course]) -> Iterator[str]:
    """A table of what starts, moves and ends, then a line for each pair, and why what waits does."""
    rows = [row for course in courses.values() for row in _rows(course)]
    if rows:
        yield from table(("task", "replaces", "from", "to", "why"), rows).splitlines()
        yield ""
    for (cluster, service), course in courses.items():
        yield plain(f"{cluster}/{service}: {summary(course)}")
        if course.waiting:
            said = verdicts(course.refusals)
            yield from (plain(f"  {line}") for line in said[:MAX_VERDICTS])
            if len(said) > MAX_VERDICTS:
                yield f"  and {len(said) - MAX_VERDICTS} more such reasons: -o json has them all"
        if course.blocked:
            yield plain(f"  {course.blocked}")


def _rows(course: Course) -> Iterator[tuple[str, str, str, str, str]]:
    for task in course.new:
        yield task.id, "", "", task.host, "new"
    for move in course.moves:
        before = "" if move.before.id == move.after.id else move.before.id
        yield move.after.id, before, move.before.host, move.after.host, move.why
    for task, why in course.gone:
        yield task.id, "", task.host, "", why
