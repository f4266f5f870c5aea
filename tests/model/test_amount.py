"""Amounts as operators write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_core.errors import InvalidValue
from sked_core.model.amount import to_cpu_units, to_mb, to_port_range


@pytest.mark.parametrize(
    ("text", "mb"),
    [("4g", 4096), ("4GB", 4096), ("4GiB", 4096), ("512m", 512), ("1.5t", 1536 * 1024), ("4096", 4096), ("0.5g", 512)],
)
def test_sizes(text: str, mb: int) -> None:
    assert to_mb(text) == mb


@pytest.mark.parametrize("text", ["", "g", "4 g", "-4g", "4k", "0", "0.4", "4g4g", "1e3", "9" * 13 + "t", "٤g", "4g\n"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected an amount"):
        to_mb(text)


@pytest.mark.parametrize(("text", "units"), [("1", 1024), ("2", 2048), ("0.5", 512), ("1.25", 1280), ("2.0", 2048)])
def test_cores(text: str, units: int) -> None:
    assert to_cpu_units(text) == units


@pytest.mark.parametrize("text", ["", "0", "0.0001", "-1", "2c", "1024m", "1e-7", "inf", "nan", "9999999", "٢"])
def test_what_is_no_number_of_cores(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected a number of cores"):
        to_cpu_units(text)


@given(st.integers(0, 70000), st.integers(0, 70000))
def test_a_range_of_ports_is_taken_just_where_it_can_be_used(first: int, last: int) -> None:
    if first >= 1024 and first + 9 <= last <= 65535:
        assert to_port_range(f"{first}-{last}") == (first, last)
    else:
        with pytest.raises(InvalidValue):
            to_port_range(f"{first}-{last}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("29999-20000", 'try "20000-29999"'),
        ("80-20000", "from 1024 to 65535"),
        ("20000-20008", "10 ports or more, got 9"),
        ("20000", "expected a range of ports"),
        ("20000 - 29999", "expected a range of ports"),
        ("20000-29999-", "expected a range of ports"),
    ],
)
def test_what_is_wrong_with_a_range_of_ports_is_said(text: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        to_port_range(text)
