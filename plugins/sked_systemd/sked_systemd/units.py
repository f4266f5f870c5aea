"""systemd by its own commands: `systemd-run`, `systemctl`, `journalctl`, each with a deadline."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from sked_core.plugin import ExecutorError, Handle, Observation, State, TaskId

DEADLINE_SECONDS = 30.0
UNTOLD = "systemd-run failed without a word"
"""Which it does where two starts of one unit cross."""
_SHOWN = "Id,Description,InvocationID,ActiveState,SubState,Result,ExecMainCode,ExecMainStatus"
_MARK = "sked"
_KILLED = (2, 3)
"""ExecMainCode of a process that a signal ended, without and with a core (siginfo's CLD_KILLED, CLD_DUMPED)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One of an agent's units, as systemd has it now."""

    name: str
    handle: Handle
    observation: Observation

    @property
    def running(self) -> bool:
        return self.observation.state is State.RUNNING


class Units:
    """The units of one agent: of one host and one store."""

    def __init__(self, host: str, store_uid: str) -> None:
        self._owner = f"{store_uid or '-'}/{host}"
        self._scope = hashlib.sha256(self._owner.encode()).hexdigest()[:12]

    def name(self, task_id: str, container: str) -> str:
        """The unit of a container: a name of this agent's own, of characters and a length that systemd takes."""
        which = hashlib.sha256(f"{task_id}/{container}".encode()).hexdigest()[:20]
        return f"{_MARK}-{self._scope}-{which}.service"

    def description(self, task_id: str, container: str, digest: str) -> str:
        """What the unit is for, by which it is known again."""
        return f"{_MARK} {self._owner} {task_id} {container} {digest}"

    def all(self) -> dict[str, Unit]:
        """Every unit of this agent that systemd knows, by its name. Raises ExecutorError."""
        return self._shown(f"{_MARK}-{self._scope}-*.service")

    def one(self, name: str) -> Unit | None:
        """The unit of this name. Raises ExecutorError."""
        return self._shown(name).get(name)

    def run(self, name: str, description: str, properties: Mapping[str, str], command: Sequence[str]) -> str:
        """Start a unit, and return once its program runs: `""`, or why it does not. Raises ExecutorError."""
        # systemd replaces $NAME in the arguments of a unit's command: $$ is a dollar.
        arguments = [command[0], *(part.replace("$", "$$") for part in command[1:])]
        settings = [f"--property={key}={value}" for key, value in properties.items()]
        ran = self._call(
            *("systemd-run", "--quiet", "--no-ask-password", f"--unit={name}", f"--description={description}"),
            *("--service-type=exec", "--remain-after-exit", *settings, "--", *arguments),
        )
        return "" if ran.returncode == 0 else ran.stderr.strip()[-500:] or UNTOLD

    def stop(self, name: str, *, wait: float) -> bool:
        """Ask it to end, with all that it started; whether it has within ``wait`` seconds. Raises ExecutorError."""
        try:
            self._call("systemctl", "stop", "--no-ask-password", name, deadline=max(wait, 0.05), patient=True)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, name: str) -> None:
        """End all processes of it at once. Raises ExecutorError."""
        self._call("systemctl", "kill", "--no-ask-password", "--signal=KILL", name)

    def forget(self, name: str) -> None:
        """Have systemd remember nothing of one that has failed. Raises ExecutorError."""
        self._call("systemctl", "reset-failed", "--no-ask-password", name)

    def journal(self, *arguments: str) -> subprocess.Popen[bytes]:
        """`journalctl` that goes on. Raises ExecutorError."""
        command = ["journalctl", "--quiet", "--no-pager", "--all", *arguments]
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise ExecutorError(f"journalctl can't be run: {error.strerror}") from None

    def last_lines(self, invocation: str, lines: int) -> list[str]:
        """The end of what one instance wrote. Raises ExecutorError."""
        ran = self._call(
            *("journalctl", "--quiet", "--no-pager", "--all", "--output=cat", f"--lines={lines}"),
            f"_SYSTEMD_INVOCATION_ID={invocation}",
        )
        if ran.returncode:
            raise ExecutorError(f"journalctl: {ran.stderr.strip()[-300:]}")
        return ran.stdout.splitlines()

    def _shown(self, pattern: str) -> dict[str, Unit]:
        ran = self._call("systemctl", "show", f"--property={_SHOWN}", "--", pattern)
        if ran.returncode:
            said = " ".join(ran.stderr.split())[-300:]
            raise ExecutorError(f"systemd can't be asked: {said}", hint="run the agent on a host that systemd booted")
        blocks = (
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in ran.stdout.split("\n\n")
        )
        units = filter(None, map(self._unit, blocks))
        return {unit.name: unit for unit in units}

    def _unit(self, shown: Mapping[str, str]) -> Unit | None:
        words = shown.get("Description", "").split(" ")
        if len(words) != 5 or words[:2] != [_MARK, self._owner] or not shown.get("InvocationID"):
            return None  # not loaded, or somebody else's
        handle = Handle(TaskId(words[2]), words[3], shown["InvocationID"], words[4])
        return Unit(shown["Id"], handle, _observation(shown))

    def _call(
        self, *command: str, deadline: float = DEADLINE_SECONDS, patient: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """What a command came to. Raises ExecutorError; TimeoutExpired instead for a ``patient`` caller."""
        try:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=deadline,
                stdin=subprocess.DEVNULL,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired:
            if patient:
                raise
            raise ExecutorError(f"systemd did not answer within {deadline:g} s ({command[0]})") from None
        except OSError as error:
            raise ExecutorError(f"{command[0]} can't be run: {error.strerror}") from None


def _observation(shown: Mapping[str, str]) -> Observation:
    active, sub = shown.get("ActiveState", ""), shown.get("SubState", "")
    if active != "failed" and sub not in ("exited", "dead", "failed"):
        return Observation(State.RUNNING)
    code, how = int(shown.get("ExecMainStatus") or 0), int(shown.get("ExecMainCode") or 0)
    if shown.get("Result") == "oom-kill":
        return Observation(State.EXITED, 128 + code if how in _KILLED else code, "out of memory")
    if how in _KILLED:
        return Observation(State.EXITED, 128 + code, f"killed by signal {code}")
    return Observation(State.EXITED, code, f"exit {code}")


def closed(process: subprocess.Popen[bytes]) -> None:
    """End a `journalctl`."""
    process.kill()
    pipe: IO[bytes] | None = process.stdout
    if pipe is not None:
        pipe.close()
    process.wait()
