"""What etcd and gRPC say when a call fails, and which of Sked's errors that is."""

from __future__ import annotations

from typing import Any

from sked_core.plugin import Denied, InvalidValue, LeaseLost, SkedError, Unavailable
from sked_etcd.channel import Code

_START_ONE = "start one:       etcd\nor try without:  sked run combined"
_NOT_CONNECTED = "failed to connect to all addresses"
_HUNG_UP = ("Socket closed", "reset by peer")
_UNANSWERED = "it accepts connections and closes them unanswered"
_NOT_HTTP2 = "what it says is not HTTP/2"
_NO_HANDSHAKE = "TLS: it closes connections in the handshake"
_NOT_TLS = "TLS: what it says is not TLS"
_CLIENT_REFUSED = "TLS: it refuses this client's certificate, or asks for one"
_WITH_TLS = (
    "if it has TLS:   etcd+https://{where}, with ETCDCTL_CACERT for an authority of your own, and with\n"
    "                 ETCDCTL_CERT and ETCDCTL_KEY if etcd wants to know who asks\n"
    "if it has none:  is it etcd? see its log, or that of a proxy before it"
)
_WITHOUT_TLS = (
    "if it has no TLS:  etcd+http://{where}; etcd:// uses TLS where ETCDCTL_CACERT or ETCDCTL_CERT is set\n"
    "if it has:         is it etcd? see its log, or that of a proxy before it"
)
_HINTS = {
    _UNANSWERED: _WITH_TLS,
    _NOT_HTTP2: _WITH_TLS,
    _NO_HANDSHAKE: _WITHOUT_TLS,
    _NOT_TLS: _WITHOUT_TLS,
    _CLIENT_REFUSED: "set ETCDCTL_CERT and ETCDCTL_KEY to files that the --trusted-ca-file of etcd vouches for",
    "CERTIFICATE_VERIFY_FAILED": "set ETCDCTL_CACERT to the file of the authority that vouches for etcd's certificate",
    "Hostname Verification": "use a host name or address that etcd's certificate holds (subjectAltName)",
}
"""What to try next, by words of the reason."""
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
        details.startswith(_NOT_CONNECTED) or details == "etcdserver: no leader"
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
    hint = next((hint for words, hint in _HINTS.items() if words in reason), _START_ONE)
    return Unavailable(f"cannot reach etcd at {where} ({reason})", hint=hint.format(where=where))


def nonsense(where: str, said: str) -> Unavailable:
    return Unavailable(
        f"what answers at {where} is no etcd, or a broken one: {quoted(said)}", hint="check the address of etcd"
    )


def reason_of(error: Any, seconds: float) -> str:
    """Why a member could not be used, in the fewest words."""
    details = error.details() or ""
    if error.code() is Code.DEADLINE_EXCEEDED:
        return f"no answer within {seconds:g} s"
    if any(word in details.lower() for word in ("handshake", "ssl", "verification", "unwrap")):
        return _tls_reason(details)
    if "Failed parsing HTTP/2" in details:
        return _NOT_HTTP2
    if details.startswith(_NOT_CONNECTED):
        hung_up = any(words in details for words in _HUNG_UP)
        return _UNANSWERED if hung_up else quoted(details.rpartition(": ")[2]).lower()
    return quoted(details)


def _tls_reason(details: str) -> str:
    """gRPC names the peer's alerts only as BoringSSL does, and those after the handshake (of TLS 1.3) not at all."""
    if "Handshake" in details and any(words in details for words in _HUNG_UP):
        return _NO_HANDSHAKE
    if "WRONG_VERSION_NUMBER" in details:
        return _NOT_TLS
    if any(words in details for words in ("Unwrap failed", "ALERT_HANDSHAKE_FAILURE", "ALERT_UNKNOWN_CA")):
        return _CLIENT_REFUSED
    return f"TLS: {quoted(details.rpartition('OPENSSL_internal:')[2])}"


def quoted(text: str) -> str:
    """What somebody else said, fit to be shown: one line, printable, short."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line[:200] or "no reason given"
