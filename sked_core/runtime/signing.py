"""Signing what schedulers issue, and the keys for it. Hosts check it: runtime.agent.verifying.

Ed25519 (RFC 8032) as the package ``cryptography`` has it, which is imported only where something is signed.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

from msgspec import structs

from sked_core.clock import Clock
from sked_core.errors import InvalidValue
from sked_core.model import codec
from sked_core.model.signing import key_id, signature, signed_bytes, spelled
from sked_core.model.types import Task

log = logging.getLogger("sked.signing")
MAX_KEY_BYTES = 64 * 1024


class Signer:
    """The private key in ``path``, which is read again when the file changes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Raises InvalidValue for a file that holds no key, or that others may read."""
        self._path, self._clock = path, clock
        self._stamp = stamp_of(path)
        self._key = load_private(path)
        self.public = _public(self._key)

    def signed(self, task: Task, store_uid: str) -> Task:
        """``task``, as it is about to be issued to its host in the store, with a signature."""
        if (stamp := stamp_of(self._path)) != self._stamp:
            try:
                key = load_private(self._path)
                self._key, self.public, self._stamp = key, _public(key), stamp
                log.info("signing with key %s from now on", key_id(self.public))
            except InvalidValue as error:
                log.warning("still signing with the former key: %s", error)
        at = int(self._clock.wall() * 1000)
        said = signed_bytes(codec.encode(task), host=task.host, store_uid=store_uid, at=at)
        return structs.replace(task, signature=signature(self.public, at, self._key.sign(said)))


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


def stamp_of(path: Path) -> tuple[int, ...]:
    """What differs once the file is another one; empty where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
