"""Which secrets a host gives to which tasks: what its policy names, and nothing that it does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sked_core.as_user import chosen
from sked_core.logic import gates
from sked_core.logic.gates import Premises
from sked_core.logic.secret_gate import allowed, denials
from sked_core.model.policy import Policy, Secrets
from sked_core.model.secret_refs import SecretRef
from sked_core.testing.builders import a_cluster, a_container, a_definition, a_task


def asking(*refs: dict[str, str], service: str = "web", cluster: str = "shop") -> Any:
    env = {f"V{number}": ref for number, ref in enumerate(refs)}
    definition = a_definition(containers=[a_container(executor={"start": "x", "env": env})])
    return a_task(definition=definition, service=service, cluster=a_cluster(cluster))


def gives(patterns: list[str], name: str, provider: str = "", who: str = "shop") -> bool:
    secrets = Secrets(allow={who: patterns}, providers={"vault": {}})
    return allowed(secrets, "shop", "web", SecretRef(secret=name, provider=provider))


def test_without_a_word_of_the_policy_nothing_is_given() -> None:
    (denial,) = denials(Policy().secrets, asking({"secret": "db-password"}))
    assert denial.gate == "secrets.allow"
    assert str(denial) == (
        "policy secrets.allow: tasks of shop/web may not have secret db-password of file; to allow it, add "
        '`secrets: {allow: {shop/web: ["db-password"]}}` to the host\'s policy and restart its agent'
    )
    assert denials(Policy().secrets, asking()) == []


def test_the_line_that_a_denial_names_allows_it() -> None:
    for ref in ({"secret": "shop/db"}, {"secret": "shop/db", "provider": "vault"}):
        task = asking(ref)
        secrets: dict[str, Any] = {"providers": {"vault": {}}}
        (denial,) = denials(msgspec.convert(secrets, Secrets), task)
        import yaml

        told = yaml.safe_load(denial.line)["secrets"]
        assert denials(msgspec.convert({**secrets, **told}, Secrets), task) == []


@pytest.mark.parametrize(
    ("pattern", "given", "refused"),
    [
        ("db", ["db"], ["db2", "a/db", "db/a", "DB"]),
        ("shop/*", ["shop/a", "shop/db-password"], ["shop", "shop/a/b", "shopping/a", "a/shop/a"]),
        ("shop/**", ["shop/a", "shop/a/b"], ["shop", "shopping/a"]),
        ("**", ["a", "a/b/c"], []),
        ("*", ["a"], ["a/b"]),
        ("shop/*-ro", ["shop/db-ro", "shop/-ro"], ["shop/db-rw", "shop/db-ro/x"]),
        ("sh.p/[ab]", ["sh.p/[ab]"], ["shop/a", "sh.p/a"]),
        ("", [], ["a"]),
    ],
)
def test_patterns_match_whole_parts(pattern: str, given: list[str], refused: list[str]) -> None:
    assert [gives([pattern], name) for name in given] == [True] * len(given)
    assert [gives([pattern], name) for name in refused] == [False] * len(refused)


def test_another_provider_has_to_be_named() -> None:
    assert not gives(["**"], "db", "vault")
    assert not gives(["db"], "db", "vault")
    assert gives(["vault:db"], "db", "vault")
    assert gives(["vault:**"], "db", "vault")
    assert not gives(["vault:**"], "db")
    assert gives(["file:db"], "db")
    assert gives(["db"], "db", "file")


def test_a_service_has_what_its_cluster_is_given_and_no_other_service_has_its_own() -> None:
    for who, expected in (("shop", True), ("shop/web", True), ("*", True), ("shop/api", False), ("sho", False)):
        assert gives(["db"], "db", who=who) is expected, who


def test_a_provider_that_is_not_set_up_is_told_once() -> None:
    secrets = Secrets(allow={"*": ["**", "vault:**"]})
    refs = [{"secret": "a", "provider": "vault"}, {"secret": "a", "provider": "vault", "key": "x"}]
    (denial,) = denials(secrets, asking(*refs))
    assert denial.gate == "secrets.providers"
    assert denials(Secrets(allow=secrets.allow, providers={"vault": {}}), asking(*refs)) == []


def test_it_is_one_of_the_gates_that_a_task_is_put_to_beforehand() -> None:
    here = Premises(chosen)
    (denial,) = gates.denials(Policy(executors=["bash"]), asking({"secret": "db"}), here)
    assert denial.gate == "secrets.allow"
    given = Policy(executors=["bash"], secrets=Secrets(allow={"shop": ["db"]}))
    assert gates.denials(given, asking({"secret": "db"}), here) == []
