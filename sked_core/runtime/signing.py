"""Signing what schedulers issue, and refusing on a host what nobody has signed whom its policy names.

Ed25519 (RFC 8032) as the package ``cryptography`` has it, which is imported only where something is signed or checked.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET, Struct, structs

from sked_core.clock import Clock
from sked_core.errors import InvalidConfig, InvalidValue, Rejected, SkedError
from sked_core.model import codec, duration
from sked_core.model.policy import SigningGate
from sked_core.model.signing import key_id, public_key, says_the_same, signature, signed_bytes, spelled, value_of
from sked_core.model.spec import plain
from sked_core.model.types import Task, TaskId
from sked_core.runtime.issued_feed import Issue, Record

log = logging.getLogger("sked.signing")
AHEAD_MS = 600_000
"""How far the clock of whoever signed may be ahead of this host's."""
MAX_KEY_BYTES = 64 * 1024


class Signer:
    """The private key in ``path``, which is read again when the file changes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Raises InvalidValue for a file that holds no key, or that others may read."""
        self._path, self._clock = path, clock
        self._stamp = _stamp(path)
        self._key = load_private(path)
        self.public = _public(self._key)

    def signed(self, task: Task, store_uid: str) -> Task:
        """``task``, as it is about to be issued to its host in the store, with a signature."""
        if (stamp := _stamp(self._path)) != self._stamp:
            try:
                key = load_private(self._path)
                self._key, self.public, self._stamp = key, _public(key), stamp
                log.info("signing with key %s from now on", key_id(self.public))
            except InvalidValue as error:
                log.warning("still signing with the former key: %s", error)
        at = int(self._clock.wall() * 1000)
        said = signed_bytes(codec.encode(task), host=task.host, store_uid=store_uid, at=at)
        return structs.replace(task, signature=signature(self.public, at, self._key.sign(said)))


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


# --- keys in files


def new_private(path: Path) -> bytes:
    """Make a private key in a new file, in PEM and for its owner alone; returns the public one. Raises InvalidValue."""
    from sked_core.runtime.crypto import Ed25519PrivateKey, serialization

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(pem)
    except OSError as error:
        raise InvalidValue(f"can't write {path}: {error.strerror}") from None
    return _public(key)


def load_private(path: Path) -> Any:
    """The private key in a PEM file. Raises InvalidValue."""
    from sked_core.runtime.crypto import Ed25519PrivateKey, serialization

    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            data = file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise InvalidValue(f"can't read the signing key {path}: {error.strerror}") from None
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise InvalidValue(
            f"the signing key {path} may be read by others than its owner (mode {stat.S_IMODE(facts.st_mode):04o})",
            hint=f"try: chmod 600 {path}",
        )
    if facts.st_uid not in (0, os.geteuid()):
        raise InvalidValue(f"the signing key {path} belongs to another user (uid {facts.st_uid})")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidValue(f"{path} holds no ed25519 key in PEM without a password", hint="sked signing new-key FILE")
    return key


def public_of(path: Path) -> str:
    """The public key that goes with the private one in ``path``, as policies name it. Raises InvalidValue."""
    return spelled(_public(load_private(path)))


def _public(key: Any) -> bytes:
    from sked_core.runtime.crypto import serialization

    found: bytes = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return found


def _load_keys(named: list[str]) -> _Keys:
    """The public keys of a policy: spelled out, or lines of files that only root and this user may write."""
    from sked_core.runtime.crypto import Ed25519PublicKey
    from sked_core.runtime.policy_file import trusted

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
    return tuple(_stamp(Path(one)) for one in named if one.startswith("/"))


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _fits(key: Any, value: bytes, said: bytes) -> bool:
    from sked_core.runtime.crypto import InvalidSignature

    try:
        key.verify(value, said)
    except InvalidSignature:
        return False
    return True


def _refusal(why: str) -> Rejected:
    return Rejected(
        f"policy signing: {why}. This host starts only what one of the keys in its policy has signed: docs/signing.md"
    )
