"""What all kits do about a sample before its first test and after its last."""

from __future__ import annotations

from typing import Any

import pytest


def lacking(sample: Any) -> str:
    """``needs …`` where what the sample needs is not there, else nothing."""
    ask = getattr(sample, "needs", None)
    what = ask() if ask is not None else ""
    return f"needs {what}" if what else ""


class SampleTests:
    """Skips all tests of a class whose sample can't be tried here, with the reason."""

    @classmethod
    def setup_class(cls) -> None:
        if why := lacking(getattr(cls, "sample", None)):
            pytest.skip(why)

    @classmethod
    def teardown_class(cls) -> None:
        end = getattr(getattr(cls, "sample", None), "end", None)
        if end is not None:
            end()
