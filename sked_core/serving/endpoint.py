"""An agent's servers beside its loop: whatever happens to them, the agent goes on, and they are begun again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sked_core.errors import SkedError
from sked_core.serving.listening import Listen, Listener, open_tcp, open_unix
from sked_core.serving.tokens import Role

if TYPE_CHECKING:
    from sked_core.serving.guard import Guard

AGAIN_SECONDS = 5.0
SOCKET = Path("serve") / "agent.sock"
"""Below the agent's state folder."""
_log = logging.getLogger("sked.agent")


class Endpoint:
    """Serves wherever ``listeners`` open, each by itself. ``publish`` is told the URLs whenever they change."""

    def __init__(
        self,
        guard: Callable[[], Guard],
        listeners: Mapping[str, Callable[[], Listener]],
        publish: Callable[[list[str]], None],
        ready: threading.Event,
    ) -> None:
        """``guard``: made anew for each server. ``ready``: set once this process holds the agent's state folder;
        before, the socket there may be another agent's."""
        self._guard, self._listeners, self._publish, self._ready = guard, listeners, publish, ready
        self._urls: dict[str, str] = {}
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set; raises nothing."""
        while not self._ready.wait(0.2):
            if stop.is_set():
                return
        self._told()
        threads = [
            threading.Thread(target=self._serve, args=(name, stop), name=f"serve {name}", daemon=True)
            for name in self._listeners
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _serve(self, name: str, stop: threading.Event) -> None:
        said = ""
        while not stop.is_set():
            try:
                self._once(name, stop)
                said = ""
            except Exception as error:  # noqa: BLE001  tasks are run all the same
                if str(error) != said:
                    said = str(error)
                    expected = isinstance(error, (SkedError, OSError))
                    _log.warning(
                        "logs and commands are not offered on %s, trying again: %s", name, error, exc_info=not expected
                    )
            if not stop.is_set():  # who ends comes back before long, and is looked for where it was
                self._told(name)
                stop.wait(AGAIN_SECONDS)

    def _once(self, name: str, stop: threading.Event) -> None:
        from sked_core.serving.server import HttpServer

        server = HttpServer(self._guard(), [listener := self._listeners[name]()])
        server.start()
        self._told(name, listener.url)
        _log.info("serving on %s", listener.url)
        server.wait(stop)

    def _told(self, name: str = "", url: str = "") -> None:
        with self._lock:
            if name:
                self._urls.pop(name, None)
            if url:
                self._urls[name] = url
            self._publish([self._urls[name] for name in self._listeners if name in self._urls])


def own_socket(state_dir: Path) -> Callable[[], Listener]:
    """The socket below the agent's state folder: for its own user, who may do everything."""
    return lambda: open_unix(state_dir / SOCKET)


def tcp(listen: Listen, address: str) -> Callable[[], Listener]:
    """Where the operator wants it, on a host that others reach at ``address``. Opened at once, so that what is unsafe
    or taken is said before anything runs: raises as ``open_tcp`` does. Without tokens, whoever is on this machine may
    look, and run nothing."""

    def opened() -> Listener:
        return first.pop() if first else open_tcp(listen, anonymous=Role.READ, known_as=address)

    first: list[Listener] = []
    first.append(opened())
    return opened
