"""What etcd and gRPC say when a call fails, and which of Sked's errors that is."""

from __future__ import annotations

from typing import Any

from sked_core.plugin import Denied, InvalidValue, LeaseLost, SkedError, Unavailable
from sked_etcd.channel import Code

START_ONE = "start one:       etcd\nor try without:  sked run combined"
_NO_SPACE = (
    "reads and deletions go on; make room, then disarm the alarm:\n"
    "etcdctl compact REVISION && etcdctl defrag && etcdctl alarm disarm, or raise --quota-backend-bytes"
)
_ROLE = "the user's role needs the key ranges that the README of sked-etcd lists (etcdctl role grant-permission)"
_CREDENTIALS = "the user comes from ETCDCTL_USER and ETCDCTL_PASSWORD"
_TOO_LARGE = ("request is too large", "too many operations", "larger than max", "duplicate key", "too large TTL")
_STALE_TOKEN = ("invalid auth token", "revision in header is old", "user name is empty")


class StartOver(Exception):
    """What was asked for can't be had consistently any more: the reader begins anew."""


def stale_token(error: Any) -> bool:
    """Whether the call was refused for a token that is missing, unknown or has expired: nothing was carried out."""
    return any(text in (error.details() or "") for text in _STALE_TOKEN)


def member_failed(error: Any) -> bool:
    """Whether another member may do better."""
    return error.code() in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED)


def not_carried_out(error: Any) -> bool:
    """Whether it is certain that the member never got the request, or refused it without looking."""
    details = error.details() or ""
    return bool(error.code() is Code.UNAVAILABLE) and (
        details.startswith("failed to connect to all addresses") or details == "etcdserver: no leader"
    )


def failure_of(error: Any, where: str, seconds: float, *, user: str) -> SkedError | StartOver:
    """The error to raise for a call to ``where`` (``host:port``) that had ``seconds`` to answer."""
    code, said = error.code(), quoted(error.details() or "")
    if member_failed(error):
        return unreachable(where, reason_of(error, seconds))
    if "database space exceeded" in said:
        return Unavailable(f"etcd at {where} has no space left (alarm NOSPACE) and takes no writes", hint=_NO_SPACE)
    if "lease not found" in said:
        return LeaseLost("etcd has ended the lease")
    if "has been compacted" in said:
        return StartOver()
    if any(text in said for text in _TOO_LARGE):
        return InvalidValue(f"etcd at {where} refused a request: {said}")
    if "authentication failed" in said:
        return Denied(f"etcd at {where} does not accept user {user} with this password", hint=_CREDENTIALS)
    if code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED) or stale_token(error):
        who = f"user {user} lacks a permission" if user else "no user was given"
        return Denied(f"etcd at {where} denied access: {who} ({said})", hint=_ROLE if user else _CREDENTIALS)
    if code is Code.RESOURCE_EXHAUSTED:
        return Unavailable(f"etcd at {where} is overloaded: {said}", hint="see the log of etcd")
    return nonsense(where, said)


def unreachable(where: str, reason: str) -> Unavailable:
    return Unavailable(f"cannot reach etcd at {where} ({reason})", hint=START_ONE)


def nonsense(where: str, said: str) -> Unavailable:
    return Unavailable(
        f"what answers at {where} is no etcd, or a broken one: {quoted(said)}", hint="check the address of etcd"
    )


def reason_of(error: Any, seconds: float) -> str:
    """Why a member could not be used, in the fewest words."""
    details = error.details() or ""
    if error.code() is Code.DEADLINE_EXCEEDED:
        return f"no answer within {seconds:g} s"
    if any(word in details.lower() for word in ("handshake", "ssl", "verification")):
        return f"TLS: {quoted(details.rpartition('OPENSSL_internal:')[2] or details)}"
    if details.startswith("failed to connect to all addresses"):
        return quoted(details.rpartition(": ")[2]).lower()
    return quoted(details)


def quoted(text: str) -> str:
    """What somebody else said, fit to be shown: one line, printable, short."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line[:200] or "no reason given"
