"""The plugin is found by its name, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

from sked_core.runtime.plugins.registry import Plugins
from sked_dynamodb.store import DynamoStore


def test_the_scheme_leads_to_dynamodb() -> None:
    store = Plugins.load().storage("dynamodb")("dynamodb://eu-central-1/sked")
    assert isinstance(store, DynamoStore)
    store.close()
    store.close()


def test_importing_it_imports_no_boto3() -> None:
    look = "import sys, sked_dynamodb.plugin; print('boto3' in sys.modules or 'botocore' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert seen.stdout == "False\n"
