"""References to secrets in manifests: what they may be, and what executors see of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sked_core.model import secret_refs
from sked_core.model.codec import digest
from sked_core.model.secret_refs import SecretRef
from sked_core.testing.builders import a_container, a_definition, a_task


def wrong(value: Any, variable: str = "DB_PASSWORD") -> list[str]:
    return [str(problem) for problem in secret_refs.problems({"env": {variable: value}})]


@pytest.mark.parametrize(
    "ref",
    [
        {"secret": "db-password"},
        {"secret": "shop/db-password"},
        {"secret": "Shop/prod/db.password_1", "provider": "vault", "key": "pass word", "rotate": "restart"},
        {"secret": "a" * 200, "rotate": "none"},
    ],
)
def test_what_a_reference_may_be(ref: dict[str, str]) -> None:
    assert wrong(ref) == []
    assert secret_refs.references({"env": {"A": ref, "B": "text"}}) == {"A": msgspec.convert(ref, SecretRef)}


@pytest.mark.parametrize(
    ("ref", "problem"),
    [
        ({"secret": "../etc/shadow"}, "env.DB_PASSWORD.secret: expected 1 to 200 of A-Z a-z 0-9 _ . -"),
        ({"secret": "a/../b"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "a..b"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "/abs"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "a//b"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "a/"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": ".hidden"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "-rf"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": ""}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "a\n"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "a b"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "a?b#c%2e"}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": "a" * 201}, "env.DB_PASSWORD.secret: expected"),
        ({"secret": 7}, "env.DB_PASSWORD.secret: expected text, got 7"),
        ({"secrets": "a"}, "env.DB_PASSWORD: expected a value or {secret: NAME}, got a mapping"),
        ({}, "env.DB_PASSWORD: expected a value or {secret: NAME}, got a mapping"),
        ({"key": "a"}, "env.DB_PASSWORD.secret: required, but missing"),
        ({"secret": "a", "kay": "x"}, 'env.DB_PASSWORD.kay: unknown field, did you mean "key"?'),
        ({"secret": "a", "provider": "../x"}, "env.DB_PASSWORD.provider: expected the name of a provider"),
        ({"secret": "a", "provider": "os:system"}, "env.DB_PASSWORD.provider: expected the name of a provider"),
        ({"secret": "a", "rotate": "daily"}, 'env.DB_PASSWORD.rotate: expected "none" or "restart", got "daily"'),
        ({"secret": "a", "key": "x\n"}, "env.DB_PASSWORD.key: expected a field's name"),
    ],
)
def test_what_it_may_not_be_is_said_with_its_place(ref: dict[str, Any], problem: str) -> None:
    (found,) = wrong(ref)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "variable",
    ["LD_PRELOAD", "PATH", "BASH_ENV", "ENV", "IFS", "PYTHONPATH", "SKED_HOST", "NODE_OPTIONS", "DOCKER_HOST"],
)
def test_variables_that_lead_programs_hold_no_secret(variable: str) -> None:
    (found,) = wrong({"secret": "a"}, variable)
    assert "decides what programs run" in found


def test_a_variable_has_a_name_that_a_shell_takes() -> None:
    for variable in ("A=B", "1A", "a b", "", "É"):
        (found,) = wrong({"secret": "a"}, variable)
        assert "is not a name of a variable" in found


def test_executors_judge_a_stand_in_and_start_without_it() -> None:
    container = a_container(executor={"start": "x", "env": {"A": {"secret": "a"}, "B": "text"}})
    assert secret_refs.held(container.executor) == {"start": "x", "env": {"A": "***", "B": "text"}}
    assert secret_refs.without(container).executor == {"start": "x", "env": {"B": "text"}}
    assert container.executor["env"]["A"] == {"secret": "a"}
    for env in (None, {"B": "text"}, ["A=1"]):
        plain = a_container(executor={"start": "x", "env": env})
        assert secret_refs.without(plain) is plain
        assert secret_refs.held(plain.executor) == plain.executor


def test_the_digest_of_a_task_is_that_of_its_references() -> None:
    def of(ref: dict[str, str]) -> str:
        return digest(a_task(definition=a_definition(containers=[a_container(executor={"env": {"A": ref}})])))

    assert of({"secret": "a"}) == of({"secret": "a"})
    assert of({"secret": "a"}) != of({"secret": "b"})


def test_what_is_no_mapping_holds_no_reference() -> None:
    for executor in ({}, {"env": None}, {"env": ["A=1"]}, {"env": 7}, {"env": {"A": ["secret"]}}):
        assert secret_refs.references(executor) == {}
        assert list(secret_refs.problems(executor)) == []
