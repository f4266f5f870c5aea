"""Secrets taken out of texts, and out of what checks say before it leaves the agent."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sked_core.clock import SystemClock
from sked_core.interfaces.health import HealthContext
from sked_core.model import keys
from sked_core.model.types import Check, TaskId
from sked_core.runtime.health.probes import ProbeHealth
from sked_core.runtime.secrets import masking
from sked_core.runtime.secrets.masking import Masks
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_container, a_definition, a_task, an_open_policy

ONE, OTHER = TaskId("default-web-1-0"), TaskId("default-api-1-0")


@pytest.fixture
def masks() -> Masks:
    masks = Masks()
    masks.add(ONE, ["hunter22", 'two "words" & more\nsecond line', "hunter22-longer"])
    return masks


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("pw hunter22, hunter22!", "pw ***, ***!"),
        ("hunter22-longer", "***"),
        ("xhunter22x", "x***x"),
        ("second line alone", "*** alone"),
        ('two "words" & more', "***"),
        ('two "words" & more\nsecond line', "***"),
        ('{"pw": "two \\"words\\" & more\\nsecond line"}', '{"pw": "***"}'),
        ("?pw=two%20%22words%22%20%26%20more", "?pw=***"),
        ("hunter2", "hunter2"),
        ("", ""),
    ],
)
def test_values_go_as_they_are_by_line_and_as_json_and_urls_write_them(masks: Masks, text: str, masked: str) -> None:
    assert masks.mask(ONE, text) == masked


def test_another_task_has_other_secrets(masks: Masks) -> None:
    assert masks.mask(OTHER, "hunter22") == "hunter22"


def test_the_beginning_of_one_goes_where_a_text_was_cut(masks: Masks) -> None:
    assert masks.mask_cut(ONE, "it is hunter") == "it is ***"
    assert masks.mask_cut(ONE, "it is hun") == "it is hun"
    assert masks.mask(ONE, "it is hunter") == "it is hunter"


def test_what_a_task_had_before_is_masked_too_and_what_is_kept_is_bounded(
    masks: Masks, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks.add(ONE, ["newer-one"])
    assert masks.mask(ONE, "hunter22 newer-one") == "*** ***"
    monkeypatch.setattr(masking, "KEPT_TASKS", 2)
    for number in range(3):
        masks.add(TaskId(f"t-{number}"), ["some-value"])
    assert masks.mask("t-0", "some-value") == "some-value"
    assert masks.mask("t-2", "some-value") == "***"
    for number in range(1000):
        masks.add(TaskId("t-2"), [f"value-{number:04}"])
    assert masks.mask("t-2", "value-0999") == "***"
    assert masks.mask("t-2", "value-0000") == "value-0000"


def test_all_that_a_task_has_now_is_masked_however_much_that_is(masks: Masks) -> None:
    lines = [f"line {number:05} of a bundle" for number in range(3000)]
    values = ["small-one", "\n".join(lines)]
    masks.add(ONE, values)
    for said in ("small-one", lines[0], lines[-1]):
        assert masks.mask(ONE, said) == "***"
    for number in range(2000):
        masks.add(ONE, ["small-one", f"rotated-{number}"])
    assert masks.mask(ONE, "small-one rotated-1999 rotated-0") == "*** *** rotated-0"


def test_a_probe_writes_no_secret_into_the_store() -> None:
    masks, store = Masks(), MemoryStore()
    check = Check(script="echo it is hunter22; exit 1", interval="250ms")
    task = a_task("h1", 0, a_definition(containers=[a_container(checks=[check])]))
    masks.add(task.id, ["hunter22"])
    context = HealthContext(store, "memory://", "h1", SystemClock(), policy=an_open_policy(), mask=masks.mask_cut)
    probes = ProbeHealth(context)
    try:
        probes.register(task)
        deadline, found = time.monotonic() + 60, b""
        while b"it is" not in found and time.monotonic() < deadline:
            entry: Any = store.read(keys.health("h1", task.id)).entries.get(keys.health("h1", task.id))
            found = entry.value if entry else b""
            time.sleep(0.05)
        assert b"it is ***" in found
        assert b"hunter22" not in found
    finally:
        probes.close()
        store.close()
