"""The signature of a record, as it stands in the store; model.signing says what it is made over."""

from __future__ import annotations

from msgspec import Struct


class Signature(Struct, frozen=True, kw_only=True):
    """Who vouches for a record (model.signing). ``key``: the first 16 hex digits of the sha256 of the public key;
    ``at``: when, in milliseconds since the epoch; ``value``: base64."""

    key: str
    at: int
    value: str
