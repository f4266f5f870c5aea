"""What of a task's record is signed, and how keys are spelled. Pure: the mathematics is runtime.signing's.

Signed is all of the record but what others than its scheduler have to write into it: that it is to stop, that it was
rejected and why, and how often people asked for a restart. Bound to it are the store, the host and the task id that it
is for, and when it was signed: copied to another place, the same bytes are not signed any more.
"""

from __future__ import annotations

import base64
import hashlib

import msgspec

from sked_core.errors import InvalidValue
from sked_core.model import codec
from sked_core.model.signature import Signature
from sked_core.model.types import Task

ALGORITHM = "ed25519"
UNSIGNED = ("scheduled", "rejected", "reject_reason", "restarts", "signature", "host")
"""Fields of a record that may change without a new signature. The host is bound by the key that the record is under."""
_KEY_BYTES = 32


def signed_bytes(raw: bytes, *, host: str, store_uid: str, at: int) -> bytes:
    """What a signature of the record ``raw`` is made over: sorted JSON, so that one who reads the fields in another
    order gets the same. ``at``: milliseconds since the epoch. Raises InvalidValue for what is no record."""
    task = codec.decode(raw, Task)
    fields = {name: value for name, value in codec.decode(raw, dict).items() if name not in UNSIGNED}
    bound = {"sked": "task/1", "store": store_uid, "host": host, "id": task.id, "at": at, "task": fields}
    return msgspec.json.encode(bound, order="sorted")


def says_the_same(raw: bytes, task: Task) -> bool:
    """Whether ``task``, which was read from ``raw``, is what was signed: fields that stand twice could be read either
    way."""
    fields = codec.decode(raw, dict)
    read = codec.decode(msgspec.json.encode(fields), Task)
    return msgspec.structs.replace(read, host=task.host) == task


def public_key(text: str) -> bytes:
    """The 32 bytes of a public key that is spelled ``ed25519:BASE64``. Raises InvalidValue."""
    algorithm, _, encoded = text.strip().partition(":")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if algorithm != ALGORITHM or len(key) != _KEY_BYTES:
        raise InvalidValue(
            f'"{text.strip()[:80]}" is no public key', hint="it begins with ed25519: (sked signing public-key)"
        )
    return key


def spelled(key: bytes) -> str:
    """A public key as ``public_key`` reads it."""
    return f"{ALGORITHM}:{base64.b64encode(key).decode()}"


def key_id(key: bytes) -> str:
    """What signatures call a public key."""
    return hashlib.sha256(key).hexdigest()[:16]


def signature(key: bytes, at: int, value: bytes) -> Signature:
    """The ``value`` that was made with the private half of ``key``, as it stands in a record."""
    return Signature(key=key_id(key), at=at, value=base64.b64encode(value).decode())


def value_of(signature: Signature) -> bytes:
    """Empty where it is no base64, which no key has made."""
    try:
        return base64.b64decode(signature.value, validate=True)
    except ValueError:
        return b""
