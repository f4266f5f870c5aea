"""What checks look at: this machine, the settings, the store. Each is looked up once, by whoever needs it first."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from sked_core.client.session import Session
from sked_core.client.settings import Settings, own_state_dir
from sked_core.errors import InvalidManifest, InvalidValue, SkedError
from sked_core.interfaces.store import Entry
from sked_core.model import keys
from sked_core.model.amount import to_mb, to_port_range
from sked_core.model.codec import decode
from sked_core.model.types import DEFAULT_PORT_RANGE
from sked_core.runtime.agent import host_facts
from sked_core.runtime.agent.host_facts import Machine
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

if TYPE_CHECKING:
    from sked_core.runtime.agent.policy_file import HostPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong, and what puts it right."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Check:
    """``finds``: for people, what it looks for. ``look`` yields the faults, none where all is well, and
    what may be said of that; what it raises means that it can't be told. ``overdue``: the fault that it is
    if it does not end in time; None: that says nothing.
    """

    name: str
    finds: str
    look: Callable[[Exam], Iterator[Fault | str]]
    overdue: Callable[[Exam], Fault] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a check has come to: one for each fault, else one."""

    check: str
    state: Literal["ok", "fault", "unknown"]
    what: str
    remedy: str = ""


class Unknown(SkedError):
    """It can't be told."""


class _Once(Generic[T]):
    """What ``make`` gives, or raises, made by the first that asks."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: list[T] = []
        self._error: Exception | None = None

    def __call__(self) -> T:
        with self._lock:
            if not self._made and self._error is None:
                try:
                    self._made.append(self._make())
                except Exception as error:  # noqa: BLE001 - each that asks is told the same
                    self._error = error
            if self._error is not None:
                raise self._error
            return self._made[0]


@dataclass(slots=True)
class Exam:
    """``settings``: None where the configuration can't be read, which ``config_fault`` says then. ``etc``: where the
    files of the system stand; ``env``: the variables that Sked and its stores read."""

    settings: Settings | None
    config_fault: InvalidManifest | None = None
    who: str = "sked doctor"
    machine: Machine = host_facts
    roots: tuple[Path, ...] = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"))
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    plugins: Callable[[], Plugins] = field(init=False)
    session: Callable[[], Session] = field(init=False)
    entries: Callable[[], Mapping[str, Entry]] = field(init=False)

    def __post_init__(self) -> None:
        self.plugins = _Once(lambda: Plugins.load(self.given.plugins))
        self.session = _Once(self._open)
        self.entries = _Once(lambda: self.session().store.read("").entries)

    @property
    def given(self) -> Settings:
        """The settings. Raises Unknown."""
        if self.settings is None:
            raise Unknown("the configuration can't be read")
        return self.settings

    def _open(self) -> Session:
        plugins = self.plugins()
        store = open_store(self.given.backend.value, plugins, self.given.prefix.value)
        return Session(store=store, plugins=plugins, settings=self.given, who=self.who)

    def policy(self) -> HostPolicy:
        """What the agent of this machine would be told to allow. Raises InvalidConfig."""
        from sked_core.runtime.agent.policy_file import load

        return load(self.given.policy.value, self.plugins(), named_in=self.given.policy.file)

    def objects(self, prefix: str, kind: type[T]) -> dict[str, T]:
        """What stands below ``prefix``, by what follows it, as far as it can be read. Raises SkedError."""
        found: dict[str, T] = {}
        for key, entry in self.entries().items():
            if key.startswith(prefix):
                try:
                    found[key.removeprefix(prefix)] = decode(entry.value, kind)
                except InvalidValue:
                    continue  # the check of the store's contents says so
        return found

    @property
    def host(self) -> str:
        """The name of this machine's agent, as far as the configuration says."""
        return self.given.file.host or socket.gethostname()

    @property
    def has_agent(self) -> bool:
        """Whether an agent belongs to this machine: it was here, or the store has its word."""
        try:
            return self.state_dir.exists() or keys.host(self.host) in self.entries()
        except SkedError:
            return self.state_dir.exists()

    @property
    def state_dir(self) -> Path:
        """Where the agent of this machine keeps its notes, unless a flag says otherwise."""
        file = self.given.file
        return Path(file.state_dir).absolute() if file.state_dir else own_state_dir(self.given, self.host)

    def agent(self) -> AgentSettings:
        """What the configuration says of this machine's agent. Raises Unknown."""
        file: Any = self.given.file
        return AgentSettings(
            host=self.host,
            state_dir=self.state_dir,
            memory=to_mb(file.memory) if file.memory else 0,
            disk=to_mb(file.disk) if file.disk else 0,
            port_range=to_port_range(file.port_range) if file.port_range else DEFAULT_PORT_RANGE,
        )
