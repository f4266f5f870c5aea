"""The logs of a task, or of all tasks of a service, wherever they run: read at once, or followed while tasks come and
go.

Each task is read by a thread of its own, which goes on behind the last line that it saw when its agent was away.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPException
from operator import itemgetter
from typing import Any, NamedTuple

from sked_core.client import reading
from sked_core.client.afar.agents import AgentAway, agent_of, asked
from sked_core.client.looking.evidence import endings, previous
from sked_core.client.naming import one_of
from sked_core.client.notices import notice
from sked_core.client.session import Session
from sked_core.errors import ExecutorError, NotFound, SkedError, Unavailable
from sked_core.interfaces.store import Entry, Store, entry_at
from sked_core.model import keys
from sked_core.model.endings import Ending
from sked_core.model.spec import did_you_mean, one_line, plain
from sked_core.model.types import Task
from sked_core.model.wording import natural
from sked_core.runtime.state import decode_task

NDJSON = "application/x-ndjson"
HELD_LINES = 1000
HELD_BYTES, LINE_BYTES = 64 * 1024 * 1024, 500
"""How much is held to put it in order, and what a line takes besides its text."""
LOOK_SECONDS = 2.0
"""Between two looks at the store while nothing is known to have changed, and the least between any two: half of it."""
MOST_TASKS = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a container of a task wrote. ``stream`` and ``at`` as in interfaces.executor.LogLine; ``cursor`` is
    the agent's own."""

    task: str
    host: str
    container: str
    stream: str
    at: str
    text: str
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which lines: the last ``lines`` at most of each container (-1: all), of ``container`` alone where it is named, of
    the run before where ``previous``; with ``follow`` on and on."""

    lines: int = -1
    container: str = ""
    follow: bool = False
    previous: bool = False


class Target(NamedTuple):
    """Whose logs: tasks as they are now; ``service`` empty: the one task alone."""

    tasks: list[Task]
    service: str


def target(store: Store, name: str, *, part: bool = False) -> Target:
    """The task or the service of that name, or with ``part`` the only one that begins with it; a task that is gone
    counts while something is kept of it. Raises NotFound with the nearest names, Unavailable."""
    found = [item.value for item in reading.tasks(store)]
    one = [task for task in found if task.id == name]
    if one:
        return Target(one, "")
    services = {item.value.name for item in reading.services(store)} | {task.service for task in found}
    if name in services:
        return Target([task for task in found if task.service == name], name)
    if endings(store, task=name):
        return Target([], "")
    if part:
        whole = one_of("task or service", name, [*services, *(task.id for task in found)])
        return Target([task for task in found if whole in (task.id, task.service)], whole if whole in services else "")
    near = did_you_mean(name, [*services, *(task.id for task in found)])
    raise NotFound(
        f"no task or service {name}{near}", hint="`sked tasks` lists the tasks, `sked services` the services"
    )


def line_json(line: Line) -> dict[str, Any]:
    """The fields of one line of ``-o jsonl``."""
    fields = asdict(line)
    del fields["cursor"]
    return fields


@dataclass(slots=True)
class _Reader:
    task: Task
    cursors: dict[str, str] = field(default_factory=dict)
    over: bool = False
    failure: SkedError | None = None


def logs(sked: Session, name: str, wish: Wish, stop: threading.Event) -> Iterator[Line]:
    """Lines of the task or service ``name``, those of each container in order; without ``follow`` see ``in_order``.
    With it until ``stop`` is set or the task is gone; a service is followed for as long as somebody reads. What could
    not be had is noticed.

    Raises NotFound, AgentAway and Denied where nothing at all could be had, Unavailable for the store.
    """
    aim = target(sked.store, name, part=True)
    if not aim.tasks and not (aim.service and wish.follow):
        yield from _kept(sked, name, wish, aim)
        return
    lines = _as_they_come(sked, aim, wish, stop)
    many = len(aim.tasks) > 1 or len(aim.tasks[0].task_definition.containers) > 1
    yield from in_order(lines) if many and not wish.follow else lines


def in_order(lines: Iterator[Line], *, most_bytes: int = HELD_BYTES) -> Iterator[Line]:
    """Lines of several containers by time where that is known of all of them, else one after another in natural order;
    those of one container as they come. Beyond some ``most_bytes`` in memory the rest is in no order, which is noticed.
    """
    whose: dict[tuple[str, str], list[Line]] = {}
    held = 0
    for line in lines:
        whose.setdefault((line.task, line.container), []).append(line)
        held += len(line.text) + LINE_BYTES
        if held > most_bytes:
            notice("there is so much that it is not all in order: fewer lines with -n, or one task")
            break
    parts = [whose[one] for one in sorted(whose, key=lambda one: (natural(one[0]), natural(one[1])))]
    timed: list[tuple[str, Line]] = []
    for part in parts:
        at = ""
        for line in part:
            at = max(at, line.at.removesuffix("Z"))  # a fraction may be left out, and clocks be set back
            timed.append((at, line))
    if all(line.at or line.stream == "note" for _, line in timed):
        timed.sort(key=itemgetter(0))
    yield from (line for _, line in timed)
    yield from lines


def _as_they_come(sked: Session, aim: Target, wish: Wish, stop: threading.Event) -> Iterator[Line]:
    held: queue.Queue[Line | _Reader] = queue.Queue(HELD_LINES)
    over = threading.Event()
    readers: dict[tuple[str, str], _Reader] = {}
    failures: list[SkedError] = []
    told = 0

    def begin(tasks: list[Task], wish: Wish) -> None:
        for task in tasks:
            key = (task.id, task.host)
            if key not in readers and len([one for one in readers.values() if not one.over]) < MOST_TASKS:
                readers[key] = reader = _Reader(task)
                _thread(_run, sked, reader, wish, held, over, aim.service)

    try:
        begin(aim.tasks, wish)
        if len(readers) < len(aim.tasks):
            notice(f"only {MOST_TASKS} of {len(aim.tasks)} tasks are read at once")
        watching = _Watch(sked, aim.service, over) if wish.follow and aim.service else None
        while not stop.is_set():
            try:
                what = held.get(timeout=0.1)
            except queue.Empty:
                if watching and (now := watching.look()) is not None:
                    for key in [key for key, one in readers.items() if one.over]:
                        del readers[key]  # should it come back, it is a new one
                    begin(now, Wish(container=wish.container, follow=True))
                continue
            if isinstance(what, Line):
                told += 1
                yield what
                continue
            if what.failure is not None:
                failures.append(what.failure)
            if not watching and all(one.over for one in readers.values()) and held.empty():
                break
        if failures and told == 0 and len(failures) == len(readers):
            raise failures[0]
        for failure in failures:
            _tell(failure)
    finally:
        over.set()


class _Watch:
    """Looks at the store for tasks of a service, no more often than need be."""

    def __init__(self, sked: Session, service: str, over: threading.Event) -> None:
        self._store, self._service, self._over = sked.store, service, over
        self._found: queue.SimpleQueue[list[Task]] = queue.SimpleQueue()
        _thread(self._run)

    def look(self) -> list[Task] | None:
        """The tasks as they are now, where they were read since the last time."""
        now = None
        while not self._found.empty():
            now = self._found.get()
        return now

    def _run(self) -> None:
        said = ""
        while not self._over.is_set():
            try:
                snapshot = self._store.read(keys.TASKS)
                self._found.put([task for task in _decoded(snapshot.entries) if task.service == self._service])
                said = ""
                self._over.wait(LOOK_SECONDS / 2)
                self._store.wait(keys.TASKS, snapshot.revision, LOOK_SECONDS * 10)
            except Unavailable as error:
                if not self._over.is_set() and str(error) != said:
                    said = str(error)
                    notice(f"sked: {plain(said)}; tasks that come are not seen meanwhile")
                self._over.wait(LOOK_SECONDS)


def _decoded(entries: Mapping[str, Entry]) -> Iterator[Task]:
    for key, entry in entries.items():
        with suppress(SkedError):
            yield decode_task(key, entry).task


def _thread(run: Callable[..., None], *args: object) -> None:
    """Begin a thread whose notices go where those of the caller go."""
    threading.Thread(target=copy_context().run, args=(run, *args), daemon=True).start()


def _run(
    sked: Session, reader: _Reader, wish: Wish, held: queue.Queue[Line | _Reader], over: threading.Event, service: str
) -> None:
    def put(what: Line | _Reader) -> None:
        while not over.is_set():
            try:
                held.put(what, timeout=0.5)
            except queue.Full:
                continue
            return

    try:
        for line in _previous(sked, reader, wish) if wish.previous else _lines(sked, reader, wish, over, service):
            put(line)
    except SkedError as error:
        reader.failure = error
    except Exception as error:  # noqa: BLE001  the others are read all the same
        reader.failure = SkedError(f"{reader.task.id}: {type(error).__name__}: {error}")
    reader.over = True
    put(reader)


def _lines(sked: Session, reader: _Reader, wish: Wish, over: threading.Event, service: str) -> Iterator[Line]:
    """What one task says; while it is followed and there, its agent is asked again where that was away."""
    task, pause, away = reader.task, FIRST_PAUSE, ""
    while not over.is_set():
        try:
            for line in _asked(sked, task.id, task.host, wish, reader.cursors):
                if away:
                    notice(f"sked: the agent of {task.host} answers again")
                    away, pause = "", FIRST_PAUSE
                if line is not None:
                    reader.cursors[line.container] = line.cursor or reader.cursors.get(line.container, "")
                    yield line
            return
        except (AgentAway, NotFound) as error:
            begun = bool(reader.cursors or service)
            if not wish.follow or not begun or not _is_there(sked, task):
                if wish.follow and begun:
                    return
                raise
            if isinstance(error, AgentAway) and not away:
                away = str(error)
                notice(f"sked: {plain(away)}; trying again")
            over.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _is_there(sked: Session, task: Task) -> bool:
    """Whether the task is still issued to its host, as far as can be told."""
    try:
        return entry_at(sked.store, keys.host_task(task.host, task.id)) is not None
    except Unavailable:
        return True


def _asked(sked: Session, task: str, host: str, wish: Wish, cursors: Mapping[str, str]) -> Iterator[Line | None]:
    """One answer of an agent, and None where it says that there is nothing. Raises AgentAway where it is cut off."""
    query = [("lines", "all" if wish.lines < 0 else str(wish.lines))]
    query += [(name, "1") for name in ("follow", "previous") if getattr(wish, name)]
    query += [("container", wish.container)] if wish.container else []
    query += [("after", f"{container}={cursor}") for container, cursor in cursors.items()]
    agent = agent_of(sked.store, host)
    with asked(agent, f"/v1/tasks/{task}/logs", query, accept=NDJSON) as answer:
        try:
            while raw := answer.readline():
                said = json.loads(raw)
                if "error" in said:
                    raise ExecutorError(f"{task} on {host}: {said['error']}", hint=said.get("hint", ""))
                if said.get("end"):
                    return
                yield _line(task, host, said) if "text" in said else None
        except (OSError, ValueError, HTTPException) as error:
            raise AgentAway(f"the agent of {host} at {agent.url} was lost ({error})") from error
        raise AgentAway(f"the agent of {host} at {agent.url} ended")


def _line(task: str, host: str, said: Mapping[str, Any]) -> Line:
    text = {name: str(said.get(name, "")) for name in ("container", "stream", "at", "text", "cursor")}
    return Line(task=task, host=host, **text)


def _previous(sked: Session, reader: _Reader, wish: Wish) -> Iterator[Line]:
    """What the run before said: all that its agent has kept, else the last lines that stand in the store."""
    task = reader.task
    told = 0
    try:
        for line in _asked(sked, task.id, task.host, wish, {}):
            if line is not None:
                told += 1
                yield line
    except SkedError as error:
        if told:
            raise
        failure: SkedError | None = error
    else:
        failure = None
    if not told:
        yield from _of_store(sked, task.id, wish, previous(sked.store, task.id), failure)


def _kept(sked: Session, name: str, wish: Wish, aim: Target) -> Iterator[Line]:
    """What is left of a task that is gone: on its host, else in the store."""
    if aim.service:
        notice(f"no task of {name} is there; `sked services` says why")
        return
    ending = previous(sked.store, name)
    told, failure = 0, None
    try:
        for line in _asked(sked, name, ending.host, replace(wish, follow=False, previous=False), {}) if ending else ():
            if line is not None:
                told += 1
                yield line
    except SkedError as error:
        if told:
            raise
        failure = error
    if not told:
        yield from _of_store(sked, name, wish, ending, failure)


def _of_store(sked: Session, task: str, wish: Wish, ending: Ending | None, failure: SkedError | None) -> Iterator[Line]:
    if ending is None:
        if failure is not None and not isinstance(failure, NotFound):
            raise failure
        raise NotFound(f"no run of {task} has ended that anything is kept of")
    why = plain(one_line(ending.reason) or ending.cause)
    notice(
        f"sked: {plain(task)} ended at {ending.ended} on {ending.host} ({why}); "
        f"these are its last lines ({plain(f'sked why {task}')} tells more)"
    )
    lines = ending.log if wish.lines < 0 else ending.log[max(0, len(ending.log) - wish.lines) :]
    yield from (Line(task, ending.host, "", "", "", text) for text in lines)


def _tell(failure: SkedError) -> None:
    for line in (f"sked: {failure}", *(f"  {hint}" for hint in failure.hint.splitlines())):
        notice(plain(line))
