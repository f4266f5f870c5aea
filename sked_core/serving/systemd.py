"""What systemd is told of a service of ``Type=notify``: that it is ready, that it goes on, that it ends (sd_notify(3)).

One datagram for each, to the socket that ``NOTIFY_SOCKET`` names. Where nobody asked for it nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping

from sked_core.runtime.pulse import HUNG_SECONDS, Pulse, hung

log = logging.getLogger("sked")
LONGEST_PAUSE = 5.0
"""Seconds between two looks at the loops, at most."""


class Systemd:
    """``address``: of the socket; one that begins with ``@`` is abstract. ``watchdog``: seconds without a sign of life
    after which systemd ends the process; 0: it does not watch."""

    def __init__(self, address: str, watchdog: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = watchdog

    @classmethod
    def from_environment(cls) -> Systemd | None:
        """The one that started this process, if it wants to be told; taken out of the environment, since tasks are no
        business of it."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        watched, whom = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return None
        mine = watched.isdecimal() and whom in ("", str(os.getpid()))
        return cls(address, int(watched) / 1e6 if mine else 0.0)

    def tell(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``. That nobody listens any more is no fault of this process."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.connect(self._address)
                out.sendall("\n".join(lines).encode())
        except OSError as error:
            log.debug("systemd is not told %s: %s", lines[0], error)

    def run(
        self, stop: threading.Event, *, ready: Callable[[], bool], pulses: Callable[[], Mapping[str, Pulse]]
    ) -> None:
        """Until ``stop`` is set: that it is ready, once ``ready``; signs of life, for as long as no loop of ``pulses``
        hangs; then that it ends. A loop hangs after a minute, or half of what systemd waits if that is less."""
        patience = min(HUNG_SECONDS, self._watchdog / 2) if self._watchdog else HUNG_SECONDS
        pause = min(LONGEST_PAUSE, self._watchdog / 4) if self._watchdog else LONGEST_PAUSE
        told, hanging = False, list[str]()
        while not stop.is_set():
            found = hung(pulses(), patience)
            if found != hanging:
                hanging = found
                said = f"{', '.join(hanging)} does not go on" if hanging else "all goes on again"
                log.log(logging.CRITICAL if hanging else logging.INFO, "%s", said)
                self.tell(f"STATUS={said}")
            if not told and ready():
                told = True
                self.tell("READY=1")
            if self._watchdog and not hanging:
                self.tell("WATCHDOG=1")
            stop.wait(pause if told else min(pause, 0.2))
        self.tell("STOPPING=1")
