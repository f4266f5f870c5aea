"""The logs of a task as a stream: all its containers at once, over restarts, for as long as somebody reads.

Each container is read by a thread of its own, which waits while the reader is slow: nothing piles up.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sked_core.errors import SkedError
from sked_core.interfaces.executor import LogLine, LogQuery, LogSource, Stop
from sked_core.runtime.agent.task_access import Place, TaskAccess
from sked_core.serving.problems import Refused

HELD_LINES = 256
LOOK_SECONDS = 0.25
"""Between two looks whether a container that has ended was started again."""
BEAT_SECONDS = 10.0
"""Without a line for so long, something is sent that is none: both sides see whether the other is there."""
MAX_READERS = 256
_readers = threading.BoundedSemaphore(MAX_READERS)


@dataclass(frozen=True, slots=True)
class Said:
    """A line of one container."""

    container: str
    line: LogLine


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read. ``after``: cursors by container, instead of the last ``lines``."""

    lines: int = -1
    follow: bool = False
    previous: bool = False
    after: Mapping[str, str] | None = None


def places(access: TaskAccess, task_id: str, container: str = "") -> list[Place]:
    """Where the task's logs are, of one container where it is named. Raises Refused (404, 501)."""
    found = access.find(task_id)
    found = found if any(place.handle for place in found) else access.kept(task_id) or found
    if not found:
        raise Refused(404, f"no task {task_id} here", hint=f"what is kept of it: sked why {task_id}")
    if container:
        known = ", ".join(place.container for place in found)
        found = [place for place in found if place.container == container]
        if not found:
            raise Refused(404, f"{task_id} has no container {container}", hint=f"it has: {known}")
    for place in found:
        if place.executor is not None and not isinstance(place.executor, LogSource):
            raise Refused(501, f"the executor {place.type} of container {place.container} can't show logs")
    return found


async def read(access: TaskAccess, task_id: str, found: Sequence[Place], wanted: Wanted) -> AsyncIterator[list[Said]]:
    """What the containers ``found`` say, as many lines at a time as are there; none where nothing is said for a while.
    Ends with the last line, or, where it follows, once the task is gone."""
    if not _readers.acquire(blocking=False):
        raise Refused(429, f"{MAX_READERS} readers of logs are here already", hint="try again later")
    loop, stop, more = asyncio.get_running_loop(), Stop(), asyncio.Event()
    held: queue.Queue[Said | SkedError | None] = queue.Queue(HELD_LINES)

    def put(what: Said | SkedError | None) -> None:
        while not stop.is_set():
            try:
                held.put(what, timeout=1.0)
            except queue.Full:
                continue
            try:
                loop.call_soon_threadsafe(more.set)
            except RuntimeError:  # the server has ended
                stop.set()
            return

    def run(place: Place) -> None:
        try:
            for line in _lines(access, task_id, place, wanted, stop):
                put(Said(place.container, line))
        except SkedError as error:
            put(error)
        except Exception as error:  # noqa: BLE001  who reads must not take it for the end
            put(SkedError(f"{place.container}: {type(error).__name__}: {error}"))
        else:
            put(None)

    left = len(found)
    try:
        for place in found:
            threading.Thread(target=run, args=(place,), name=f"logs of {task_id}", daemon=True).start()
        while left:
            more.clear()
            some: list[Said] = []
            failure = None
            while not held.empty() and failure is None:
                what = held.get_nowait()
                failure = what if isinstance(what, SkedError) else None
                left -= what is None
                some += [what] if isinstance(what, Said) else []
            if some:
                yield some
            if failure is not None:
                raise failure
            try:
                async with asyncio.timeout(BEAT_SECONDS if left else 0):
                    await more.wait()
            except TimeoutError:
                if left:
                    yield []
    finally:
        stop.set()
        _readers.release()


def _lines(access: TaskAccess, task_id: str, place: Place, wanted: Wanted, stop: Stop) -> Iterator[LogLine]:
    after, lines, last = (wanted.after or {}).get(place.container, ""), wanted.lines, ""
    while not stop.is_set():
        if isinstance(place.executor, LogSource) and place.handle is not None and place.handle.ref != last:
            query = LogQuery(lines=lines, after=after, follow=wanted.follow, previous=wanted.previous)
            for line in place.executor.logs(place.handle, query, stop):
                after = line.cursor or after
                yield replace(line, text=access.mask(task_id, line.text))
            last, lines = place.handle.ref, -1
        if not wanted.follow or wanted.previous or stop.wait(LOOK_SECONDS):
            return
        now = [one for one in access.find(task_id) if one.container == place.container]
        if not now:
            return
        place = now[0]
