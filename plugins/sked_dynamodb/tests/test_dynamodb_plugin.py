"""The plugin is found by its name, and costs nothing until it is used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from sked_core.plugin import Put
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.needed import lacking
from sked_dynamodb import plugin
from sked_dynamodb.store import DynamoStore


def test_the_scheme_leads_to_dynamodb() -> None:
    store = Plugins.load().storage("dynamodb")("dynamodb://eu-central-1/sked")
    assert isinstance(store, DynamoStore)
    store.close()
    store.close()


def test_the_check_of_plugins_says_what_it_needs_to_try_it(monkeypatch: pytest.MonkeyPatch, free_port: Any) -> None:
    (sample,) = plugin.sked_samples()
    assert lacking(sample).startswith("needs AWS_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{free_port()}")
    assert lacking(sample).startswith("needs a DynamoDB that answers in the region of AWS_REGION")


def test_the_check_of_plugins_makes_a_table_of_its_own_and_deletes_it(
    dynamodb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb)
    (sample,) = plugin.sked_samples()
    assert lacking(sample) == ""
    sample.end()  # also where no test has made the table
    store = sample.fresh(tmp_path)()
    table = re.search("sked-check-[0-9a-f]{16}", repr(store._store))[0]  # type: ignore[attr-defined,index]
    aws = boto3.client("dynamodb", region_name="eu-central-1")
    try:
        store.commit([Put("a", b"x")])
        store.close()
        assert aws.describe_table(TableName=table)
    finally:
        sample.end()
    with pytest.raises(aws.exceptions.ResourceNotFoundException):
        aws.describe_table(TableName=table)
    aws.close()


def test_importing_it_imports_no_boto3() -> None:
    look = "import sys, sked_dynamodb.plugin; print('boto3' in sys.modules or 'botocore' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert seen.stdout == "False\n"
