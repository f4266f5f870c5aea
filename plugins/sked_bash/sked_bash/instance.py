"""One started container: its record, the process that is watched for it, and what became of it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sked_bash import groups
from sked_bash import record as records
from sked_bash.processes import (
    Identity,
    Looks,
    ProcessTable,
    Snapshot,
    environment_of,
    has_ended,
    holders_of,
    identify,
    open_pidfd,
)
from sked_bash.record import Record
from sked_bash.spec import COMMAND_MARK
from sked_core.plugin import Handle, Observation, State

_log = logging.getLogger(__name__)
_MEANING = {126: " (not executable)", 127: " (command not found)"}


class Instance:
    """A container that was started, by this agent or an earlier one.

    It runs while its main process does; if that one exits 0 (or nobody saw how), then as long as anything that it
    left behind: a ``start`` may launch something that goes on by itself. Any other exit ends it, whatever is left.

    There is no wrapper process that would save the exit code of a main process which ends while no agent runs: it
    would cost each task a second process and about 0.3 MB. Such an exit is reported without its code.
    """

    def __init__(
        self,
        folder: Path,
        record: Record,
        table: ProcessTable,
        process: subprocess.Popen[bytes] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.pidfd: int | None = None
        self._record = record
        self._table = table
        self._process = process
        self._secrets = secrets
        self._main_ended = False
        self._same_boot = True
        self._released = False
        self._lock = threading.Lock()

    @property
    def handle(self) -> Handle:
        return self._record.handle

    @property
    def record(self) -> Record:
        return self._record

    @property
    def running(self) -> bool:
        return not self._record.ended

    @property
    def never_ran(self) -> bool:
        """Whether the agent that wanted to start it died before there was a process."""
        return self._record.ended and self._same_boot and not self._record.pid

    @property
    def groups(self) -> list[str]:
        """The folders of its control groups; none of another boot."""
        return self._record.groups if self._same_boot else []

    @property
    def env(self) -> dict[str, str]:
        """Its environment, with secrets as far as they are still known: to the agent that started it, or by its main
        process as long as that lives."""
        record = self._record
        if not record.withheld:
            return record.env
        known = self._secrets
        if known is None and identify(record.pid) == record.main:
            known = environment_of(record.pid)
        return {name: value for name, value in (known or {}).items() if name in record.withheld} | record.env

    def observation(self) -> Observation:
        """What is known now, without looking again."""
        record = self._record
        if not record.ended:
            return Observation(State.RUNNING, detail=f"pid {record.pid}" if record.pid else "")
        if not self._same_boot:
            return Observation(State.EXITED, detail="the host was restarted")
        if record.out_of_memory and record.exit_code != 0:
            code = record.exit_code
            return Observation(State.EXITED, 128 - code if code is not None and code < 0 else code, "out of memory")
        if record.exit_code is None:
            return Observation(State.EXITED, detail="ended while no agent was there to see how")
        if record.exit_code < 0:
            return Observation(State.EXITED, 128 - record.exit_code, f"killed by {_signal_name(-record.exit_code)}")
        meaning = _MEANING.get(record.exit_code, "")
        return Observation(State.EXITED, record.exit_code, f"exit {record.exit_code}{meaning}")

    def adopt(self, boot_id: str, looks: Looks) -> None:
        """Take over an instance that another agent started: find out whether it runs."""
        with self._lock:
            self._same_boot = self._record.boot_id == boot_id
            if self._record.ended:
                return
            if not self._same_boot:
                self._end(None)
                return
            if not self._record.pid:
                self._find_main()
            self._watch(self._record.main)
        self.settle(looks)

    def watch_main(self) -> None:
        """Begin to watch the main process, which was just started."""
        with self._lock:
            self._watch(self._record.main)

    def settle(self, looks: Looks) -> bool:
        """Look whether the watched process has ended, and what that means. Returns whether the instance ended by it.

        Costs one system call while it runs. ``looks`` must not have been used before that process ended.
        """
        with self._lock:
            if self._released or self._record.ended or (self.pidfd is not None and not has_ended(self.pidfd)):
                return False
            # The snapshot comes before the reaping: as long as the main process is a zombie, its pid, and so its
            # session and group, can't belong to anybody else, and who is in them is certain.
            left = self._look(looks.first)
            if not self._main_ended:
                self._main_ended = True
                code = self._process.poll() if self._process else None
                self._record = msgspec.structs.replace(self._record, exit_code=code)
            failed = bool(self._record.exit_code)
            left = left or ([] if failed else self._look(looks.second))
            followers = [(identity.pid, identity.started) for identity in left]
            self._record = msgspec.structs.replace(self._record, followers=followers)
            if failed or not left:
                self._end(self._record.exit_code)
                return True
            self._watch(min(left, key=lambda identity: identity.started))
            self._keep()
            return False

    def left(self) -> list[Identity]:
        """All processes of the container that live now, of whichever instance, and all commands that were run beside
        them. One look: a fork may slip through."""
        with self._lock:
            snapshot = self._table.snapshot()
            commands = snapshot.members(COMMAND_MARK + self._record.owner, user=self._record.uid)
            found = dict.fromkeys([*self._look(snapshot), *(process.identity for process in commands)])
            return [*found, *(one for one in self._grouped(snapshot) if one not in found)]

    def kill(self) -> None:
        """Have the kernel kill all that is in its control groups, if it has any."""
        groups.kill(self.groups)

    def reap(self) -> None:
        """Take the exit code of the main process, which was ended, so that no zombie stays."""
        if self._process is not None:
            self._process.wait(timeout=5)

    def release(self) -> None:
        """Stop watching; from now on the record on disk is left alone."""
        with self._lock:
            self._released = True
            self._unwatch()

    def _find_main(self) -> None:
        """After an agent died between starting the process and recording it: the first leader of a session that
        bears the mark. If the lock is held but nobody bears a mark yet, the process is on its way to its exec."""
        deadline = time.monotonic() + 2
        while True:
            snapshot = self._table.snapshot()
            marked = [p for p in snapshot.marked.get(self._record.owner, ()) if p.mark == self._record.mark and p.alive]
            leaders = [p.identity for p in marked if p.session == p.identity.pid]
            if leaders:
                first = min(leaders, key=lambda identity: identity.started)
                self._keep(pid=first.pid, started=first.started)
            if marked or not records.is_held(self.folder) or time.monotonic() > deadline:
                return
            time.sleep(0.01)

    def _look(self, snapshot: Snapshot) -> list[Identity]:
        roots = self._record.roots if self._same_boot else ()
        members = snapshot.members(self._record.owner, roots, self._record.uid)
        found = [process.identity for process in members]
        found += [one for one in self._grouped(snapshot, groups.MAIN) if one not in found]
        if not found and records.is_held(self.folder):
            # Somebody shed the mark and the session, but not the lock.
            return holders_of(self.folder / records.LOCK, self._record.uid)
        return found

    def _grouped(self, snapshot: Snapshot, *parts: str) -> list[Identity]:
        """The live processes in its control groups, also such as were forked since the snapshot."""
        found = []
        for pid in groups.pids(self.groups, *parts) - {os.getpid()} if self.groups else ():
            known = snapshot.processes.get(pid)
            identity = known.identity if known is not None else identify(pid)
            if identity is not None and (known is None or known.alive):
                found.append(identity)
        return found

    def _end(self, code: int | None) -> None:
        self._unwatch()
        self._keep(ended=True, exit_code=code, out_of_memory=groups.out_of_memory(self.groups))

    def _keep(self, **changed: Any) -> None:
        """Change the record: on disk first, so that the next agent knows what anybody was told."""
        record = msgspec.structs.replace(self._record, **changed)
        try:
            records.save(self.folder, record, again=True)
        except OSError as error:
            _log.warning("cannot record the state of %s in %s: %s", record.task_id, self.folder, error)
        self._record = record

    def _watch(self, identity: Identity) -> None:
        self._unwatch()
        self.pidfd = open_pidfd(identity) if identity.pid else None

    def _unwatch(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
