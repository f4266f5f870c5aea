"""Logs of long-running processes on stderr: one line for each record, whatever text of others it quotes.

``text`` is for people. ``json`` is for machines: one object per line, with ``time`` (UTC), ``level``, ``logger``,
``message``, where it is known what the record is about ``task``, ``service`` and ``host``, and ``exception``.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import threading
from typing import Literal

from sked_core.model.spec import plain
from sked_core.runtime.about import NAMES, fields

Form = Literal["text", "json"]
log = logging.getLogger("sked")


class TextLines(logging.Formatter):
    """The traceback of an exception takes lines of its own, everything else one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines()
        return "\n".join(plain(line) for line in lines) if record.exc_info else plain("\\n".join(lines))


class JsonLines(logging.Formatter):
    """``host``: of the agent in this process, where there is one; its records are about that host."""

    def __init__(self, host: str = "") -> None:
        super().__init__()
        self._host = host

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        said: dict[str, str] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = fields()
        for name in NAMES:
            if value := getattr(record, name, "") or known.get(name, "") or (self._host if name == "host" else ""):
                said[name] = str(value)
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)  # in ASCII: no character that could end the line or drive a terminal


def log_to_stderr(form: Form = "text", *, verbose: bool = False, host: str = "") -> None:
    """Have everything that this process logs written to stderr: what Sked says from INFO on, or DEBUG where it is
    ``verbose``, what libraries say from WARNING on. Call it once. ``host``: whose agent runs in this process."""
    target = logging.StreamHandler(sys.stderr)
    target.setFormatter(JsonLines(host) if form == "json" else TextLines())
    root = logging.getLogger()
    root.addHandler(target)
    root.setLevel(logging.WARNING)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    if form == "json":
        threading.excepthook = _thread_failed


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    name = failure.thread.name if failure.thread is not None else "?"
    error = failure.exc_value
    log.error("thread %s ended: %s", name, error, exc_info=error)
