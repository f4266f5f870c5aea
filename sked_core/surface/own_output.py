"""Standard output as commands have it: it takes what Sked says, and nothing that plugins print while they are asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from sked_core.strangers import is_strangers_turn


class _OwnOutput:
    """``stream``, but what comes from a plugin's code goes to standard error."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def _chosen(self) -> Any:
        return sys.stderr if is_strangers_turn() and sys.stderr is not None else self._stream

    @property
    def buffer(self) -> Any:
        return self._chosen().buffer

    def write(self, text: str) -> Any:
        return self._chosen().write(text)

    def writelines(self, lines: Any) -> None:
        self._chosen().writelines(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def own_output() -> Iterator[None]:
    """In the body, standard output is for what Sked itself says."""
    before = sys.stdout
    if before is not None:  # closed by the caller
        sys.stdout = _OwnOutput(before)
    try:
        yield
    finally:
        sys.stdout = before
