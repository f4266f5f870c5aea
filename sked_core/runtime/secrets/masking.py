"""The secrets that tasks were given, so that they can be taken out of what is told about them."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from urllib.parse import quote

from sked_core.model.secret_refs import HELD
from sked_core.model.types import TaskId

MIN_VALUE = 4
"""Characters. What is shorter stands in every text by chance: it could not be taken out."""
LONGEST_CUT = 4096
KEPT_TASKS, KEPT_TEXTS = 4096, 512
"""How many tasks are remembered, also those that are gone, for their logs; and how many texts of what each had
before."""


class Masks:
    """Values by task, in memory alone. From any thread."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, task_id: TaskId, values: Iterable[str]) -> None:
        """The task was given ``values``; what it was given before is remembered as well."""
        with self._lock:
            new = dict.fromkeys(text for value in values for text in _forms(value))
            former = [text for text in self._texts.pop(task_id, ()) if text not in new]
            # However much it has now: a long certificate must not push out the password beside it.
            self._texts[task_id] = (*former[-KEPT_TEXTS:], *new)
            while len(self._texts) > KEPT_TASKS:
                self._texts.popitem(last=False)

    def mask(self, task_id: str, text: str) -> str:
        """``text``, which the task wrote or which tells of it, without its secrets: as they are, line by line, and as
        JSON and URLs write them. To be called before anything is cut off."""
        for secret in self._longest_first(task_id):
            text = text.replace(secret, HELD)
        return text

    def mask_cut(self, task_id: str, text: str) -> str:
        """As ``mask``, of a text whose end may have been cut off: what may be the beginning of a secret goes too."""
        text = self.mask(task_id, text)
        for secret in self._longest_first(task_id):
            for size in range(min(len(secret) - 1, len(text), LONGEST_CUT), MIN_VALUE - 1, -1):
                if text.endswith(secret[:size]):
                    return text[:-size] + HELD
        return text

    def _longest_first(self, task_id: str) -> list[str]:
        return sorted(self._texts.get(task_id, ()), key=len, reverse=True)


def _forms(value: str) -> Iterable[str]:
    for part in (value, *value.splitlines()):
        if len(part.strip()) >= MIN_VALUE:
            yield from (part, part.strip(), json.dumps(part)[1:-1], quote(part, safe=""))
