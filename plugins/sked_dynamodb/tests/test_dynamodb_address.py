"""What a URL stands for, and what is refused in one."""

from __future__ import annotations

import pytest

from sked_core.plugin import InvalidValue
from sked_dynamodb.address import Address, parse_address
from sked_dynamodb.store import DynamoStore


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("dynamodb://", Address("")),
        ("dynamodb://eu-central-1", Address("eu-central-1", "sked")),
        ("dynamodb://us-gov-west-1/My_table.2", Address("us-gov-west-1", "My_table.2")),
        ("dynamodb:///table", Address("", "table")),
        ("dynamodb://eu-central-1/sked?poll=1s", Address("eu-central-1", poll=1.0)),
        (
            "dynamodb://eu-central-1/sked?endpoint=http://127.0.0.1:8000/&poll=250ms",
            Address("eu-central-1", "sked", "http://127.0.0.1:8000", 0.25),
        ),
        (
            "dynamodb://eu-central-1?endpoint=https%3A%2F%2Fvpce-1.dynamodb.eu-central-1.vpce.amazonaws.com",
            Address("eu-central-1", "sked", "https://vpce-1.dynamodb.eu-central-1.vpce.amazonaws.com"),
        ),
    ],
)
def test_urls(url: str, wanted: Address) -> None:
    assert parse_address(url) == wanted


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://EU_CENTRAL/sked",
        "dynamodb://127.0.0.1:8000/sked",
        "dynamodb://eu-central-1:99999/sked",
        "dynamodb://eu-central-1/a",
        "dynamodb://eu-central-1/a/b",
        "dynamodb://eu-central-1/sked%2f",
        "dynamodb://eu-central-1/sked#x",
        "dynamodb://eu-central-1/sked?pol=1s",
        "dynamodb://eu-central-1/sked?poll=0s",
        "dynamodb://eu-central-1/sked?poll=soon",
        "dynamodb://eu-central-1/sked?poll=1h",
        "dynamodb://eu-central-1/sked?endpoint=127.0.0.1:8000",
        "dynamodb://eu-central-1/sked?endpoint=ftp://127.0.0.1",
        "dynamodb://eu-central-1/sked?endpoint=http://127.0.0.1:8000/path",
        "dynamodb://eu-central-1/sk ed",
        "dynamodb://eu-central-1/sk\u00e9d",
    ],
)
def test_what_can_not_be_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        parse_address(url)
    assert refusal.value.hint


@pytest.mark.parametrize(
    "url",
    ["dynamodb://AKIDKEY:hush@eu-central-1/sked", "dynamodb://eu-central-1/sked?endpoint=http://AKIDKEY:hush@host:1"],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidValue, match="credentials") as refusal:
        parse_address(url)
    assert "hush" not in str(refusal.value) + refusal.value.hint
    assert "AWS_PROFILE" in refusal.value.hint


def test_without_a_region_it_is_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidValue, match="region") as refusal:
        DynamoStore("dynamodb://")
    assert "AWS_REGION" in refusal.value.hint
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    store = DynamoStore("dynamodb:///tasks")
    assert repr(store) == "DynamoStore(table tasks in eu-west-1)"
    store.close()
