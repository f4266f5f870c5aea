"""Looking through a store never fails itself, whatever names its records hold."""

from __future__ import annotations

from sked_core.client.looking.linting import lint
from sked_core.interfaces.store import Entry, Revision
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure, Placement, Preference, Rollout
from sked_core.testing.builders import a_service

NO_NAME = "../\x1b[2J"


def found(key: str, value: bytes) -> list[str]:
    findings = lint({key: Entry(value, Revision(1))})
    assert all(one.what.isprintable() for one in findings)
    return [one.key for one in findings]


def test_a_failure_on_what_is_no_host() -> None:
    key = keys.failure("default-web-1-0")
    assert found(key, encode(Failure(host=NO_NAME))) == [key]


def test_a_wish_to_be_near_what_is_no_service() -> None:
    service = a_service(placement=Placement(prefer=[Preference(service=NO_NAME)]))
    assert found(keys.service("web"), encode(service)) == [keys.service("web")]


def test_a_roll_out_that_would_go_back_to_what_is_no_name() -> None:
    rollout = Rollout(number=1, task_name="web", task_version=2, from_name=NO_NAME)
    assert found(keys.rollout("web"), encode(rollout)) == [keys.rollout("web")]


def test_a_number_that_is_too_long_to_be_one() -> None:
    key = f"{keys.decisions('web')}{'9' * 5000}"
    assert found(key, b"{}") == [key]
