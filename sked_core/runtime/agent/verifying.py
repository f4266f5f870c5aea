"""Refusing on a host what nobody has signed whom its policy names.

Ed25519 (RFC 8032) as the package ``cryptography`` has it; an agent imports this module only if its policy asks for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET, Struct

from sked_core.clock import Clock
from sked_core.errors import InvalidConfig, InvalidValue, Rejected, SkedError
from sked_core.model import codec, duration
from sked_core.model.policy import SigningGate
from sked_core.model.signing import key_id, public_key, says_the_same, signed_bytes, value_of
from sked_core.model.spec import plain
from sked_core.model.types import TaskId
from sked_core.runtime.agent.issued_feed import Issue, Record
from sked_core.runtime.agent.policy_file import trusted
from sked_core.runtime.crypto import Ed25519PublicKey, InvalidSignature
from sked_core.runtime.signing import stamp_of

log = logging.getLogger("sked.signing")
AHEAD_MS = 600_000
"""How far the clock of whoever signed may be ahead of this host's."""


class _Taken(Struct, frozen=True):
    """The newest signature that was accepted for one task id. ``gone``: it was withdrawn since."""

    at: int
    gone: bool = False


class _Keys(NamedTuple):
    stamps: tuple[tuple[int, ...], ...]
    by_id: Mapping[str, Any]


class Verifier:
    """Says which records may be started on ``host``. Used by the agent's main thread.

    What was accepted is kept in ``folder``: a record that was withdrawn, or that another one has taken the place of,
    is not accepted again, and none for the first time that was signed longer ago than the policy's ``max_age``.
    """

    def __init__(self, gate: SigningGate, folder: Path, host: str, clock: Clock) -> None:
        """Raises SkedError where the keys can't be read: an agent must not start without what it was to ask for."""
        self._gate, self._host, self._clock = gate, host, clock
        self._max_age = int(duration.to_seconds(gate.max_age) * 1000)
        self._file = folder / "signed.json"
        self._taken: dict[str, _Taken] | None = None
        self._keys = _load_keys(gate.keys)

    def check(self, record: Record, store_uid: str) -> None:
        """Raises Rejected unless the record may be started now; it counts as accepted then."""
        found = record.task.signature
        if found is UNSET:
            raise _refusal("the record carries no signature")
        key = self._key(found.key)
        if key is None:
            raise _refusal(f"it is signed with key {found.key[:40]!r}, which is not among signing.keys")
        said = signed_bytes(record.raw, host=self._host, store_uid=store_uid, at=found.at)
        if not _fits(key, value_of(found), said) or not says_the_same(record.raw, record.task):
            raise _refusal("the signature is of other content, or for another host, task or store")
        self._accept(record.task.id, found.at)

    def take(self, issue: Issue) -> None:
        """Remember what was withdrawn, by one authoritative read."""
        taken, wall = self._remembered(), self._clock.wall() * 1000
        wanted = {i for i, one in issue.records.items() if one.task.scheduled and not one.task.rejected}
        kept = {
            task_id: one if one.gone or task_id in wanted or task_id in issue.faults else _Taken(one.at, gone=True)
            for task_id, one in taken.items()
            if not (one.gone and wall - one.at > self._max_age + AHEAD_MS)  # too old to be accepted anyway
        }
        if kept != taken:
            self._save(kept)

    def _accept(self, task_id: TaskId, at: int) -> None:
        taken = self._remembered()
        known, wall = taken.get(task_id), self._clock.wall() * 1000
        if known is not None and known.at == at and not known.gone:
            return
        if known is not None and at <= known.at:
            raise _refusal("it was withdrawn before, and was signed no later than what was: somebody has put it back")
        if at > wall + AHEAD_MS:
            raise _refusal(f"it was signed {(at - wall) / 1000:.0f} s ahead of this host's clock")
        if wall - at > self._max_age:
            raise _refusal(f"it was signed {(wall - at) / 1000:.0f} s ago, more than signing.max_age")
        self._save({**taken, task_id: _Taken(at)})

    def _key(self, name: str) -> Any:
        if name not in self._keys.by_id and _stamps(self._gate.keys) != self._keys.stamps:
            try:
                self._keys = _load_keys(self._gate.keys)
            except SkedError as error:
                log.warning("the former keys count: %s", error)
        return self._keys.by_id.get(name)

    def _remembered(self) -> dict[str, _Taken]:
        if self._taken is None:
            try:
                self._taken = codec.decode(self._file.read_bytes(), dict[str, _Taken])
            except FileNotFoundError:
                self._taken = {}
            except (OSError, InvalidValue) as error:
                log.warning("%s is treated as absent: %s", self._file, error)
                self._taken = {}
        return self._taken

    def _save(self, taken: dict[str, _Taken]) -> None:
        self._taken = taken
        draft = self._file.with_suffix(".tmp")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(codec.encode(taken))
            draft.replace(self._file)
        except (OSError, InvalidValue) as error:
            log.warning("what was accepted is known to this process alone: %s", error)


def _load_keys(named: list[str]) -> _Keys:
    """The public keys of a policy: spelled out, or lines of files that only root and this user may write."""
    stamps, found = _stamps(named), {}
    for one in named:
        lines = trusted(Path(one)).decode("ascii", "replace").splitlines() if one.startswith("/") else [one]
        for text in (line.partition("#")[0].strip() for line in lines):
            if text:
                try:
                    key = public_key(text)
                except InvalidValue as error:
                    raise InvalidConfig(f"policy signing.keys: {plain(one)}: {error}") from None
                found[key_id(key)] = Ed25519PublicKey.from_public_bytes(key)
    if not found:
        raise InvalidConfig("policy signing.keys: there is no key in the files that it names")
    return _Keys(stamps, found)


def _stamps(named: list[str]) -> tuple[tuple[int, ...], ...]:
    return tuple(stamp_of(Path(one)) for one in named if one.startswith("/"))


def _fits(key: Any, value: bytes, said: bytes) -> bool:
    try:
        key.verify(value, said)
    except InvalidSignature:
        return False
    return True


def _refusal(why: str) -> Rejected:
    return Rejected(
        f"policy signing: {why}. This host starts only what one of the keys in its policy has signed: docs/signing.md"
    )
