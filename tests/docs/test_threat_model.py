"""The threat model names tests that exist, and the table of hostile input counts what there is."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hostile.corpus import everything

ROOT = Path(__file__).resolve().parents[2]


def test_every_promise_of_the_threat_model_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text()
    named = re.findall(r"`((?:tests|plugins)/[^`:]+)(?:::(\w+))?`", text)
    assert len(named) > 40
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), test
    for row in re.findall(r"^\| .*(?:CVE|\d{3,}).*", text, re.MULTILINE):
        assert re.search(r"`(tests|plugins)/", row), row


def test_the_table_of_hostile_input_counts_the_corpus() -> None:
    text = (ROOT / "docs" / "hostile-input.md").read_text()
    shown = {
        (category, door): int(cases)
        for category, door, cases in re.findall(r"^\| ([A-K]): [^|]+ \| (\w+) \| (\d+) \|", text, re.MULTILINE)
    }
    corpus = Counter((case.category, "store" if case.key else "apply") for case in everything())
    assert {pair: shown.get(pair) for pair in corpus} == dict(corpus), "run scripts/hostile-table"
    assert shown.keys() >= {(category, "API") for category, door in corpus if door == "apply"}
