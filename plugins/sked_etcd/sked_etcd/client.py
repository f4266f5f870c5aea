"""Calls to the one member of an etcd cluster that answers; another one is taken when it stops answering."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from sked_core.plugin import InvalidValue, Unavailable
from sked_etcd import messages
from sked_etcd.address import Address, file_stamp, read_user
from sked_etcd.channel import Code, Member, RpcError, credentials_of
from sked_etcd.failures import failure_of, member_failed, nonsense, not_carried_out, reason_of, stale_token, unreachable

ANSWER_SECONDS = 10.0
"""How long a call may take. etcd itself gives up on its quorum after about 7 s."""
ATTEMPT_SECONDS = 4.0
"""How long one member may take where there are others."""
PROBE_SECONDS = 3.0
_ATTEMPTS = 3


class Client:
    """Raises Unavailable, Denied, InvalidValue and LeaseLost as the Store port has them. Safe for many threads."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._files = (address.ca_cert, address.client_cert, address.client_key)
        self._stamp = file_stamp(*self._files)
        credentials = credentials_of(address)
        self._members = [Member(target, credentials) for target in address.members]
        self._user, self._password = address.user, address.password
        self._user_stamp: tuple[int, ...] = ()
        self._lock = threading.Lock()
        self._choosing = threading.Lock()
        self._current: Member | None = None
        self._failure: tuple[float, Unavailable] | None = None
        self._signing_in = threading.Lock()
        self._token: str | None = None
        self._closed = False
        self._epoch = 0
        self._revisions: tuple[int, int] | None = None
        self.on_drop: Callable[[Member], None] = lambda member: None
        """Called when a member was given up and there are others."""

    # --- which revisions belong to the server that answers now

    @property
    def epoch(self) -> int:
        """Grows with every loss of the connection: the server may be another one than before, or wiped."""
        return self._epoch

    def note(self, epoch: int, revision: int) -> None:
        """Take down that the store was at ``revision`` during ``epoch``."""
        with self._lock:
            if epoch == self._epoch:
                low, high = self._revisions or (revision, revision)
                self._revisions = (min(low, revision), max(high, revision))

    @property
    def revisions(self) -> tuple[int, int]:
        """Lowest and highest revision seen since the connection was made; (0, 0) before the first."""
        return self._revisions or (0, 0)

    # --- calls

    def call(self, method: str, request: bytes, decode: Callable[[bytes], Any], *, repeatable: bool = True) -> Any:
        """The decoded answer, within ANSWER_SECONDS. What is not ``repeatable`` is sent to one member only: when its
        answer is lost, nobody knows whether it was carried out, and Unavailable says so."""
        deadline = time.monotonic() + ANSWER_SECONDS
        signed_in_anew = denied_before = False
        for attempt in range(1, _ATTEMPTS + 1):
            member = self.member()
            token = self._sign_in(member)
            seconds = max(0.1, deadline - time.monotonic())
            if len(self._members) > 1 and attempt < _ATTEMPTS:
                seconds = min(seconds, ATTEMPT_SECONDS)
            try:
                answer = member.call(method)(request, timeout=seconds, metadata=_metadata(token))
            except RpcError as error:
                if stale_token(error) and self._user and not signed_in_anew:
                    signed_in_anew = True
                    self.forget(token)
                    continue
                if error.code() in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED) and not denied_before:
                    denied_before = True
                    if self._renew_user():  # nothing was carried out for the former one
                        continue
                if member_failed(error):
                    self.drop(member)
                    again = repeatable or not_carried_out(error)
                    if again and attempt < _ATTEMPTS and time.monotonic() < deadline - 0.5:
                        continue
                raise self._failure_of(error, member, seconds) from None
            except ValueError:  # gRPC's word for a closed channel
                raise _closed() from None
            try:
                return decode(answer)
            except ValueError:
                self.drop(member)
                raise nonsense(member.target, repr(answer[:100])) from None
        raise unreachable(str(self.address), "no member carried out a call")

    def stream(self, method: str, request: bytes) -> tuple[Member, Any]:
        """Answers without end: the member that gives them, and the running call to iterate over and to cancel."""
        member = self.member()
        token = self._sign_in(member)
        try:
            return member, member.channel.unary_stream(method)(request, metadata=_metadata(token))
        except ValueError:
            raise _closed() from None

    def _failure_of(self, error: Any, member: Member, seconds: float) -> Exception:
        if self._closed:
            return _closed()
        return failure_of(error, member.target, seconds, user=self._user)

    def close(self) -> None:
        """End every connection; calls in progress raise Unavailable at once. Idempotent."""
        self._closed = True
        for member in self._members:
            member.channel.close()

    # --- members

    def member(self) -> Member:
        """The member to call, found now if there is none. Raises Unavailable if none is usable."""
        begun = time.monotonic()
        current = self._current
        if current is not None:
            return current
        with self._choosing:
            if self._current is not None:
                return self._current
            if self._failure is not None and self._failure[0] >= begun:
                raise self._failure[1]  # found out while this call waited its turn
            try:
                self._current = self._first_usable()
            except Unavailable as error:
                self._failure = (time.monotonic(), error)
                raise
            return self._current

    def drop(self, member: Member) -> None:
        """Stop using ``member``: a call to it failed, or what it said made no sense."""
        with self._lock:
            self._epoch += 1
            self._revisions = None
            if self._current is member:
                self._current = None
        if len(self._members) > 1:
            self.on_drop(member)

    def _first_usable(self) -> Member:
        """All are asked at once, so that one which hangs costs no time while another one answers."""
        self._renew_certificates()
        answers: queue.SimpleQueue[tuple[Member, Any]] = queue.SimpleQueue()
        asked = []
        try:
            for member in self._members:
                call = member.call(messages.STATUS).future(b"", timeout=PROBE_SECONDS)
                asked.append(call)
                call.add_done_callback(lambda done, member=member: answers.put((member, done)))
        except ValueError:
            raise _closed() from None
        reasons = []
        for _ in asked:
            member, done = answers.get()
            reason = _unusable(done)
            if not reason:
                for call in asked:
                    call.cancel()
                return member
            reasons.append((member.target, reason))
        if self._closed:
            raise _closed()
        if len(reasons) == 1:
            raise unreachable(*reasons[0])
        raise unreachable(str(self.address), "; ".join(f"{target}: {reason}" for target, reason in sorted(reasons)))

    def _renew_certificates(self) -> None:
        """Connect anew with the files of TLS where they have changed; those that can't be read leave all as it is."""
        stamp = file_stamp(*self._files)
        if stamp == self._stamp or self._closed:
            return
        try:
            credentials = credentials_of(self.address)
        except InvalidValue:
            return
        former, self._stamp = self._members, stamp
        self._members = [Member(target, credentials) for target in self.address.members]
        for member in former:
            member.channel.close()

    # --- users

    def _renew_user(self) -> bool:
        """Take up the user's file if it has changed; whether another user or password came of it."""
        stamp = file_stamp(self.address.user_file)
        with self._signing_in:
            if stamp == self._user_stamp:
                return False
            try:
                found = read_user(self.address.user_file)
            except InvalidValue:
                return False
            self._user_stamp = stamp
            if found == (self._user, self._password):
                return False
            self._user, self._password = found
            self._token = None
            return True

    def forget(self, token: str) -> None:
        """Sign in anew for the next call, if that has not been done since ``token`` was got."""
        with self._signing_in:
            if self._token == token:
                self._token = None

    def _sign_in(self, member: Member) -> str:
        """The token of the user; ``""`` where no user was named, or etcd has no authentication switched on."""
        if not self._user:
            return ""
        if self.address.user_file:
            self._renew_user()
        token = self._token
        if token is not None:
            return token
        with self._signing_in:
            if self._token is None:
                self._token = self._authenticate(member)
            return self._token

    def _authenticate(self, member: Member) -> str:
        request = messages.authenticate_request(self._user, self._password)
        try:
            answer = member.call(messages.AUTHENTICATE)(request, timeout=ATTEMPT_SECONDS, metadata=_metadata(""))
            return messages.authenticate_answer(answer)
        except RpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                return ""
            if member_failed(error):
                self.drop(member)
            raise self._failure_of(error, member, ATTEMPT_SECONDS) from None
        except ValueError:
            raise _closed() if self._closed else nonsense(member.target, "an answer without a token") from None


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    """etcd refuses at once what has no leader to carry it out (and ends such streams), instead of waiting."""
    leader = (("hasleader", "true"),)
    return (*leader, ("token", token)) if token else leader


def _unusable(done: Any) -> str:
    """Why the member whose status this is can't be used; ``""`` if it can."""
    error = done.exception()
    try:
        if error is None:
            return messages.status_answer(done.result())
    except ValueError:
        return "it answers, but not as etcd does"
    if error.code() in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED):
        return ""
    return reason_of(error, PROBE_SECONDS)


def _closed() -> Unavailable:
    return Unavailable("the connection to etcd is closed")
