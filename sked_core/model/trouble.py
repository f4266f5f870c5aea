"""What a scheduler process says of its own rounds."""

from __future__ import annotations

from msgspec import Struct


class Trouble(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By what its rounds fail, ``since`` when (RFC 3339), and at which ``service``, if at one."""

    since: str
    why: str
    service: str = ""
