"""Secrets of tasks, read from their providers on this host whenever a task is started. Blocking: called by workers.

Values are held in memory alone. On disk stands which versions a task was given, so that an agent that takes it over
knows whether what it reads now is what the task has.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sked_core.clock import Clock
from sked_core.errors import (
    Denied,
    ExecutorError,
    InvalidConfig,
    InvalidValue,
    NotFound,
    Rejected,
    SkedError,
    Unavailable,
)
from sked_core.interfaces.secrets import MAX_SECRET_BYTES, Secret, SecretContext, SecretProvider
from sked_core.logic.secret_gate import denials, provider_of
from sked_core.model import secret_refs
from sked_core.model.policy import Secrets
from sked_core.model.secret_refs import SecretRef
from sked_core.model.types import Task, TaskId
from sked_core.runtime.agent.disk import AgentDisk
from sked_core.runtime.plugins import asked
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.secrets.masking import MIN_VALUE, Masks

log = logging.getLogger("sked.agent")
FRESH_SECONDS = 300.0
"""For how long what was read while looking for new versions may be given to a start whose provider is away."""
WITHHELD = "(left out: this agent does not know which secrets it was given)"
Place = tuple[str, str, str]
"""Provider, name and key of a secret on this host."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where an agent's secrets are read, by the provider's name, and what takes them out of texts again, which health
    providers need as well."""

    providers: Mapping[str, SecretProvider] = field(default_factory=dict)
    masks: Masks = field(default_factory=Masks)

    def close(self) -> None:
        """Close the providers."""
        for provider in self.providers.values():
            provider.close()


def open_source(secrets: Secrets, plugins: Plugins, host: str) -> SecretSource:
    """The providers that the policy sets up. Raises SkedError for one that is not installed, or whose settings can't
    be."""
    names = sorted({*secrets.providers, secrets.provider})
    try:
        return SecretSource(
            {name: asked.secrets(plugins, name, SecretContext(host, secrets.providers.get(name, {}))) for name in names}
        )
    except InvalidValue as error:
        raise InvalidConfig(f"policy {error}", hint=error.hint) from None


class TaskSecrets:
    """What the tasks of one host may have. Methods may be called from any thread."""

    def __init__(self, secrets: Secrets, source: SecretSource, *, disk: AgentDisk, clock: Clock) -> None:
        self._secrets, self._providers, self.masks, self._disk = secrets, source.providers, source.masks, disk
        self._clock = clock
        self._known: dict[TaskId, dict[str, str]] = {}
        """The versions that tasks were given, of those whose values are held."""
        self._fresh: dict[Place, tuple[Secret, float]] = {}
        self._lock = threading.Lock()

    def give(self, task: Task) -> dict[str, dict[str, str]]:
        """What each container of ``task`` is to get, by variable. Raises Rejected for what it may not have or what
        is not there, ExecutorError where that can't be told now; messages name secrets and hold none."""
        for container in task.task_definition.containers:
            for problem in secret_refs.problems(container.executor):
                raise Rejected(f"container {container.name}: {problem}")
        refs = secret_refs.of_task(task)
        if not refs:
            return {}
        if refused := denials(self._secrets, task):
            raise Rejected("\n".join(map(str, refused)))
        read = {place: self._checked(place) for place in dict.fromkeys(map(self._place, refs.values()))}
        versions = {_shown(place): secret.version for place, secret in read.items()}
        with self._lock:
            self.masks.add(task.id, [secret.value for secret in read.values()])
            self._known[task.id] = versions
        self._disk.note_versions(task.id, versions)
        given: dict[str, dict[str, str]] = {}
        for (container_name, variable), ref in refs.items():
            given.setdefault(container_name, {})[variable] = read[self._place(ref)].value
        return given

    def knows(self, task: Task) -> bool:
        """Whether all values that the running task was given are held, so that they can be masked."""
        return task.id in self._known or not secret_refs.of_task(task)

    def fit(self, task: Task | None, task_id: str, lines: Sequence[str]) -> list[str]:
        """``lines``, which a task wrote, as they may be kept: none where it is not known what has to be masked,
        or from which ``task`` it was started."""
        if task is None or not self.knows(task):
            return [WITHHELD] if lines else []
        return [self.masks.mask(task_id, line) for line in lines]

    def forget(self, task_ids: Collection[TaskId]) -> None:
        """Keep no versions of other tasks than these."""
        with self._lock:
            for task_id in self._known.keys() - set(task_ids):
                del self._known[task_id]

    def look(self, tasks: Sequence[Task]) -> dict[TaskId, list[str]]:
        """Read again the secrets of ``tasks``, which run: those that have another version than the task was given,
        in words, of those it wants to be restarted for. A secret that can't be read now is as it was.

        What an earlier agent started is known from now on, if it has what was read.
        """
        seen: dict[Place, Secret | None] = {}
        changed: dict[TaskId, list[str]] = {}
        for task in tasks:
            refs = secret_refs.of_task(task).values()
            if denials(self._secrets, task):
                continue
            given = self._known.get(task.id)
            noted = self._disk.versions(task.id) if given is None else given
            found: dict[str, Secret | None] = {}
            for ref in refs:
                place = self._place(ref)
                if place not in seen:
                    seen[place] = self._try(place)
                found[_shown(place)] = seen[place]
            same = {
                shown: secret is not None and secret.version != "" and noted.get(shown) == secret.version
                for shown, secret in found.items()
            }
            if given is None and all(same.values()):
                with self._lock:
                    self.masks.add(task.id, [secret.value for secret in found.values() if secret is not None])
                    self._known.setdefault(task.id, dict(noted))
            told = dict.fromkeys(_shown(self._place(ref)) for ref in refs if ref.rotate == "restart")
            if new := [one for one in told if _newer(found[one], noted.get(one, ""))]:
                changed[task.id] = [f"secret {shown} has a new version" for shown in new]
        now = self._clock.monotonic()
        with self._lock:
            self._fresh = {place: (secret, now) for place, secret in seen.items() if secret is not None}
        return changed

    def _place(self, ref: SecretRef) -> Place:
        return provider_of(self._secrets, ref), ref.secret, ref.key

    def _try(self, place: Place) -> Secret | None:
        try:
            return self._read(place)
        except SkedError as error:
            log.debug("no look at secret %s: %s", _shown(place), error)
            return None

    def _checked(self, place: Place) -> Secret:
        """The secret, fit for an environment; its errors as those of a start."""
        what = f"secret {_shown(place)}"
        try:
            secret = self._read(place)
        except (NotFound, Denied) as error:
            raise Rejected(f"{what}: {error}") from None
        except Unavailable as error:
            found, at = self._fresh.get(place, (None, 0.0))
            if found is None or self._clock.monotonic() - at > FRESH_SECONDS:
                raise ExecutorError(f"{what} can't be read now: {error}") from None
            secret = found
        if len(secret.value.strip()) < MIN_VALUE:
            raise Rejected(f"{what} has fewer than {MIN_VALUE} characters: it could not be kept out of what is shown")
        if "\0" in secret.value or len(secret.value) > MAX_SECRET_BYTES:
            raise Rejected(f"{what} fits into no variable: it holds a NUL, or more than {MAX_SECRET_BYTES} bytes")
        return secret

    def _read(self, place: Place) -> Secret:
        provider, name, key = place
        known = self._providers.get(provider)
        if known is None:
            raise Denied(f"provider {provider} is not set up on this host")
        try:
            found: Any = known.read(name, key)
        except SkedError:
            raise
        except Exception as error:  # noqa: BLE001  of a stranger's text nobody knows what it holds
            raise Unavailable(f"provider {provider} failed: {type(error).__name__}") from None
        if not isinstance(found, Secret) or not isinstance(found.value, str) or not isinstance(found.version, str):
            raise Unavailable(f"provider {provider} gave no secret")
        return found


def _newer(secret: Secret | None, given: str) -> bool:
    """Whether it was read, and has another version than what was given; what is not known is no other one."""
    return secret is not None and secret.version != "" and given not in ("", secret.version)


def _shown(place: Place) -> str:
    provider, name, key = place
    return f"{name} of {provider}" + (f", key {key}" if key else "")
