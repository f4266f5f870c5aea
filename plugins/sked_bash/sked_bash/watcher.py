"""The one thread of the executor: notices ends through pidfds, and keeps logs within their cap."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable

from sked_bash import logs
from sked_bash.instance import Instance
from sked_bash.processes import Looks, ProcessTable, readable

_log = logging.getLogger(__name__)
_CALM_SECONDS, _BUSY_SECONDS, _AFTER_ERROR_SECONDS = 0.25, 0.05, 1.0


class Watcher:
    """Calls ``ended`` within milliseconds after any of the ``instances`` ended. Idle, it costs a few ``stat`` calls
    per task and second, and nothing without tasks."""

    def __init__(self, instances: Callable[[], list[Instance]], table: ProcessTable) -> None:
        self._table = table
        self._instances = instances
        self._notify: Callable[[], None] = _nobody
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._watched: dict[int, Instance] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sked-bash-watch", daemon=True)
        self._thread.start()

    def call(self, notify: Callable[[], None]) -> None:
        """From now on, tell ``notify`` about ends."""
        self._notify = notify

    def add(self, instance: Instance) -> None:
        """Watch the instance's pidfd, as it is now."""
        fd = instance.pidfd
        if fd is None:
            return
        with self._lock:
            if self._closed:
                return
            self._watched[fd] = instance
            try:
                # Once: the process stays ended, and must not keep the thread busy if settling it fails.
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
            except FileExistsError:
                self._epoll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
            except OSError:
                return  # ended and closed meanwhile; the regular look finds it
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End the thread. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def settle(self, instances: Iterable[Instance]) -> bool:
        """Settle those of ``instances`` whose process ended or is not known. Returns whether any of them ended.

        One system call for all that run on, and at most two snapshots for all that ended.
        """
        running = [instance for instance in instances if instance.running]
        watched = {fd: instance for instance in running if (fd := instance.pidfd) is not None}
        due = [watched[fd] for fd in readable(list(watched), 0)] if watched else []
        due += [instance for instance in running if instance.pidfd is None]
        return self._settle(due)

    def _settle(self, due: list[Instance]) -> bool:
        looks = Looks(self._table)
        any_ended = False
        for instance in due:
            any_ended |= instance.settle(looks)
            if instance.running:
                self.add(instance)
        return any_ended

    def _run(self) -> None:
        next_round = time.monotonic()
        while not self._closed:
            pause = max(0.0, next_round - time.monotonic()) if self._instances() else None
            events = self._epoll.poll(pause)
            try:
                if self._settle(self._due(events)):
                    self._notify()
                if time.monotonic() >= next_round:
                    next_round = time.monotonic() + self._round()
            except Exception:  # noqa: BLE001 -- the thread must outlive a full disk or a lack of descriptors
                _log.exception("watching processes failed; looking again in a moment")
                next_round = time.monotonic() + _AFTER_ERROR_SECONDS

    def _due(self, events: list[tuple[int, int]]) -> list[Instance]:
        due = []
        for fd, _ in events:
            if fd == self._wake:
                os.eventfd_read(fd)
            elif instance := self._watched.pop(fd, None):
                due.append(instance)
        return due

    def _round(self) -> float:
        """The regular look at everything; returns after how many seconds to do it again."""
        if self.settle(self._instances()):
            self._notify()
        return self._cap_logs()

    def _cap_logs(self) -> float:
        """Cap all logs; returns after how many seconds to look again."""
        sizes = []
        for instance in self._instances():
            try:
                sizes.append(logs.cap(instance.folder))
            except OSError as error:
                _log.warning("cannot cap the log in %s: %s", instance.folder, error)
        return _BUSY_SECONDS if max(sizes, default=0) > logs.MAX_BYTES else _CALM_SECONDS


def _nobody() -> None:
    """Nobody has asked to be told."""
