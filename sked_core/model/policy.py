"""What an operator lets tasks do on one host. What is not said is denied.

It comes from a file of the host (runtime.agent.policy_file), never from the store: whoever can write the store must
not be able to widen it. An unknown key in it is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from sked_core.errors import InvalidValue, Rejected
from sked_core.model import duration
from sked_core.model.signing import public_key

MOST_TOLD = 5
"""How many denials a reason names; `sked policy test` names all."""
S = TypeVar("S")
Megabytes = Annotated[int, Meta(ge=0, le=2**40)]
Count = Annotated[int, Meta(ge=0, le=2**31)]
_GIGABYTE = 1024**3


@dataclass(frozen=True, slots=True)
class Denial:
    """One thing that the policy of this host does not allow. ``gate``: the setting that says so, as it is written in
    the file (``docker.volumes``); ``what``: what was asked for; ``line``: YAML that would allow it, on one line."""

    gate: str
    what: str
    line: str

    def __str__(self) -> str:
        remedy = f"add `{self.line}` to the host's policy and restart its agent"
        return f"policy {self.gate}: {self.what}; to allow it, {remedy}"


def refusal(found: Sequence[Denial]) -> Rejected:
    """What to raise for what is denied: a line for each of the first few."""
    more = len(found) - MOST_TOLD
    return Rejected("\n".join([*map(str, found[:MOST_TOLD]), *([f"and {more} more"] if more > 0 else [])]))


class SetupGate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``setup`` commands of containers, which run on the host itself. ``user``: whose rights they get; ``""``: the
    agent's own, which is refused where that is root and ``root`` is false."""

    allow: bool = False
    user: str = ""
    root: bool = False


class ChecksGate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Health checks. ``scripts``: commands on the host are allowed, run as ``user``, as in SetupGate. ``targets``: what
    http and tcp checks may ask beside the task's own address and port: ``HOST:PORT``, ``HOST:*``, ``*``."""

    scripts: bool = False
    user: str = ""
    root: bool = False
    targets: list[str] = msgspec.field(default_factory=list)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each container gets that asks for nothing, and the most that it may ask for (0: no ceiling). ``log_files``
    of ``log_size`` MB each are kept of what it writes."""

    default_memory: Megabytes = 512
    max_memory: Megabytes = 0
    max_cpu_units: Count = 0
    pids: Annotated[int, Meta(ge=1, le=4_194_304)] = 4096
    log_size: Annotated[int, Meta(ge=1, le=1_048_576)] = 10
    log_files: Annotated[int, Meta(ge=1, le=100)] = 3


class Artifacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tasks may have fetched before they start. ``hosts``: names to fetch from, ``*.example.com`` for those below
    one; none given: any. ``private_addresses``: also those of private networks and of the host itself. ``seconds``: for
    one artifact, all tries together. ``cache_bytes``: what of those with a checksum is kept on the host."""

    plain_http: bool = False
    without_checksum: bool = False
    private_addresses: bool = False
    hosts: list[str] = msgspec.field(default_factory=list)
    max_bytes: Annotated[int, Meta(ge=1)] = _GIGABYTE
    max_files: Annotated[int, Meta(ge=1)] = 10_000
    seconds: Annotated[int, Meta(ge=1)] = 1800
    cache_bytes: Annotated[int, Meta(ge=0)] = 4 * _GIGABYTE


class Secrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which secrets tasks may have, and where they are read. ``provider``: where nothing else is said; ``providers``:
    settings by provider; ``allow``: names by ``CLUSTER``, ``CLUSTER/SERVICE`` or ``*``, in which ``*`` stands for
    anything within one part and ``/**`` for all below; those of another provider than the default one begin with its
    name and a colon. ``look_seconds``: between two looks whether a secret has a new version."""

    provider: str = "file"
    providers: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    allow: dict[str, list[str]] = msgspec.field(default_factory=dict)
    look_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60


class SigningGate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Signed records. ``required``: nothing is started but what one of ``keys`` has signed: public keys
    (``ed25519:BASE64``), or absolute paths of files with one on each line. ``max_age``: how long ago a record may have
    been signed that is started here for the first time."""

    required: bool = False
    keys: list[str] = msgspec.field(default_factory=list)
    max_age: str = "24h"

    def __post_init__(self) -> None:
        try:
            for one in self.keys:
                if not one.startswith("/"):
                    public_key(one)
            if duration.to_seconds(self.max_age) <= 0:
                raise InvalidValue(f"max_age {self.max_age} is no time that passes")
        except InvalidValue as error:
            raise ValueError(str(error)) from None
        if self.required and not self.keys:
            raise ValueError("required, but keys names none: nothing could run here")


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All gates of one host. ``sections``: those of executors, by their type, as structs of their ``policy_type``; in
    the file they stand at the top, as the others do."""

    executors: list[str] = msgspec.field(default_factory=lambda: ["docker"])
    setup: SetupGate = SetupGate()
    checks: ChecksGate = ChecksGate()
    limits: Limits = Limits()
    artifacts: Artifacts = Artifacts()
    secrets: Secrets = Secrets()
    signing: SigningGate = SigningGate()
    sections: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def section(self, type_name: str, kind: type[S]) -> S:
        """What the file says of the executor ``type_name``; ``kind()``, which has to deny, where it says nothing."""
        found = self.sections.get(type_name)
        return found if isinstance(found, kind) else kind()
