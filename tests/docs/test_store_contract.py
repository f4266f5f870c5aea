"""docs/store-contract.md: its code runs as it stands there, and its tables name exactly the tests of the suites."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sked_core.testing import stores

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "store-contract.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
IN_MEMORY = """
import os
from sked_core.runtime.stores.memory import memory_store

class MyEngine: ...

def MyStore(url):
    return memory_store("memory://" + os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])
"""
ON_CONSUL = """
from rigs.consul import PrivateConsul
from sked_consul.store import ConsulStore

class MyEngine(PrivateConsul):
    def __init__(self, folder):
        super().__init__(CONSUL, folder, {})
        self.address = self.url.removeprefix("consul://")

def MyStore(url):
    return ConsulStore(url.replace("my://", "consul://").removesuffix("/test"))
"""


def _rows(part: str) -> list[list[str]]:
    body = PAGE.partition(f"<!-- {part}: written by")[2].partition(f"<!-- end of {part} -->")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in body.splitlines() if line[:1] == "|"]


def _tests_of(suite: type) -> set[str]:
    return {
        name.removeprefix("test_").replace("_", " ")
        for name, _ in inspect.getmembers(suite, inspect.isfunction)
        if name.startswith("test_")
    }


@pytest.mark.parametrize(
    ("part", "suite", "backends"),
    [
        ("contract", stores.StoreContract, ["memory", "embedded", "Consul", "etcd", "DynamoDB"]),
        ("faults", stores.StoreFaultContract, ["embedded", "Consul", "etcd", "DynamoDB"]),
    ],
)
def test_the_table_names_every_test_and_every_backend_and_is_green(part, suite, backends):
    head, _, *rows = _rows(part)
    assert [column.split()[0] for column in head[1:]] == backends
    assert all(re.search(r"\d", column) for column in head[1:]), "an engine without its version"
    assert sorted(row[0] for row in rows) == sorted(_tests_of(suite)), "run scripts/contract-table"
    cells = {cell.partition(" ")[0] for row in rows for cell in row[1:]}
    assert cells <= {"ok", "n/a"}
    assert all(len(row) == len(head) and "ok" in " ".join(row[1:]) for row in rows)


def _run(folder: Path, my_store: str, *chosen: str) -> int:
    """How many tests of the page's code passed; all that were chosen have to."""
    (folder / "my_store.py").write_text(my_store)
    (folder / "test_my_store.py").write_text("\n\n".join(CODE))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    assert "skipped" not in ran.stdout
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    return int(passed[1])


def test_the_three_lines_hold_a_store_to_the_contract(tmp_path):
    assert _run(tmp_path, IN_MEMORY, "test_my_store.py::TestMyStore", "-k", "not expire") > 90


def test_the_engine_of_the_page_is_put_through_faults(tmp_path, consul_binary):
    my_store = f"CONSUL = {consul_binary!r}\n{ON_CONSUL}"
    chosen = "while_the_engine_is_down or broken_connection or hung_is_carried_out"
    assert _run(tmp_path, my_store, "test_my_store.py::TestMyStoreThroughFaults", "-k", chosen) == 3
