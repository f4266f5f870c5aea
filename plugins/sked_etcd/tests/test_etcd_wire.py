"""What is encoded is decoded again, and nonsense is told from messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_etcd import messages
from sked_etcd.wire import field, fields, varint

NUMBERS = st.integers(1, 15)
VALUES = st.one_of(st.integers(0, 2**63 - 1), st.binary(max_size=300))


@given(st.lists(st.tuples(NUMBERS, VALUES), max_size=8))
def test_fields_come_back(written: list[tuple[int, int | bytes]]) -> None:
    assert fields(b"".join(field(number, value) for number, value in written)) == written


@given(st.lists(st.tuples(NUMBERS, VALUES), min_size=1, max_size=4), st.data())
def test_a_message_that_breaks_off_is_refused_or_shorter(
    written: list[tuple[int, int | bytes]], data: st.DataObject
) -> None:
    whole = b"".join(field(number, value) for number, value in written)
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        found = fields(whole[:cut])
    except ValueError:
        return
    assert found == written[: len(found)] != written


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_answers_or_a_value_error(answer: bytes) -> None:
    for decode in (
        messages.range_answer,
        messages.txn_answer,
        messages.lease_answer,
        messages.watch_answer,
        messages.authenticate_answer,
        messages.status_answer,
    ):
        try:
            decode(answer)
        except ValueError:
            continue


def test_fields_of_newer_servers_are_passed_over() -> None:
    fixed = bytes((12 << 3 | 1,)) + b"8 bytes." + bytes((13 << 3 | 5,)) + b"four"
    high = varint(900 << 3) + varint(7)
    known = field(1, field(3, 42)) + field(2, 1)
    assert messages.txn_answer(fixed + known + high) == (True, 42)


def test_an_answer_without_a_revision_is_none() -> None:
    for answer in (b"", field(2, 1), field(1, b"")):
        with pytest.raises(ValueError, match="no revision"):
            messages.txn_answer(answer)
        with pytest.raises(ValueError, match="no revision"):
            messages.range_answer(answer if answer != field(2, 1) else b"")


def test_the_span_of_a_prefix() -> None:
    assert messages.span("a/") == (b"a/", b"a0")
    assert messages.span("a~") == (b"a~", b"a\x7f")
    assert messages.span("") == (b"\0", b"\0")
