"""What tasks write, as a page shows it: the last lines, then more as they come."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sked_core.client.afar.logs import Line, Wish, logs
from sked_core.client.notices import noticed
from sked_core.client.outcomes import hints_of
from sked_core.client.session import Session
from sked_core.errors import SkedError
from sked_web.pages.shown import finalize
from sked_web.pages.site import HEADERS, Ask, Site

LAST_LINES, LAST_OF_MANY = 200, 20
"""What is shown at first, of one task and of each of a service's."""
PATIENCE_SECONDS = 1.5
"""An agent that takes longer does not hold up the page."""
MOST_FOLLOWED = 50
"""Logs that are followed at once; each takes a thread."""
HELD_LINES = 1000
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Log:
    """The last lines of a task or a service; ``follow``: where they and what comes are read from."""

    text: str
    follow: str


class _Reading:
    """Lines that a thread reads until it is told to stop."""

    def __init__(self, sked: Session, name: str, wish: Wish, *, many: bool) -> None:
        self._sked, self._name, self._wish, self._many = sked, name, wish, many
        self._held: queue.Queue[str] = queue.Queue(HELD_LINES)
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with noticed(self._note):
            try:
                for line in logs(self._sked, self._name, self._wish, self._stop):
                    self._put(self._shown(line))
            except SkedError as error:
                for said in (str(error), *hints_of(error)):
                    self._note(said)

    def _note(self, text: str) -> None:
        self._put(f"— {text}\n")

    def _put(self, text: str) -> None:
        while not self._stop.is_set():
            try:
                self._held.put(str(finalize(text)), timeout=0.5)
            except queue.Full:
                continue
            return

    def _shown(self, line: Line) -> str:
        return f"{line.task}  {line.text}\n" if self._many else f"{line.text}\n"

    def taken(self) -> str:
        """What has come since it was asked last."""
        found = []
        try:
            while True:
                found.append(self._held.get_nowait())
        except queue.Empty:
            return "".join(found)

    @property
    def over(self) -> bool:
        return not self.thread.is_alive() and self._held.empty()

    def stop(self) -> None:
        self._stop.set()


def log_of(ask: Ask, name: str) -> Log:
    """The last lines that the task or service wrote, or why they can't be had."""
    many = name in ask.sight.services and name not in ask.sight.tasks
    reading = _Reading(ask.sked, name, Wish(lines=LAST_OF_MANY if many else LAST_LINES), many=many)
    deadline, text = monotonic() + PATIENCE_SECONDS, ""
    while not reading.over and monotonic() < deadline:
        reading.thread.join(LOOK_SECONDS)
        text += reading.taken()
    reading.stop()
    return Log(text + reading.taken(), f"/logs/{name}")


class Follower:
    """Serves logs as plain text that does not end as long as its task is there."""

    def __init__(self, site: Site) -> None:
        self._site, self._open = site, 0

    async def follow(self, request: Request) -> Response:
        name = request.path_params["name"]
        headers = {**HEADERS, "x-accel-buffering": "no"}
        if self._open >= MOST_FOLLOWED:
            text = f"— {MOST_FOLLOWED} logs are followed already: close some pages\n"
            return Response(text, headers=headers, media_type="text/plain")
        ask = Ask(self._site, request, self._site.visitor(request))
        many = name in ask.sight.services and name not in ask.sight.tasks
        wish = Wish(lines=LAST_OF_MANY if many else LAST_LINES, follow=True)
        return StreamingResponse(self._lines(ask, name, wish, many), headers=headers, media_type="text/plain")

    async def _lines(self, ask: Ask, name: str, wish: Wish, many: bool) -> AsyncIterator[str]:
        self._open += 1
        reading = _Reading(self._site.act(ask.visitor.name), name, wish, many=many)
        try:
            while not reading.over:
                if text := reading.taken():
                    yield text
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            reading.stop()
            self._open -= 1
