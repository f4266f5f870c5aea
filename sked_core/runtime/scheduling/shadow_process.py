"""The process in which a shadow scheduler is asked: one line of JSON in, one line out, for as long as the input lasts.

It is a process of its own, so that a plugin that never ends, takes all the memory or ends its process takes nothing
from the scheduler that decides. It has low priority, and ends itself when one answer takes too long.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from sked_core.logic.replay import shadow_of
from sked_core.model.decisions import Batch, Shadow

DEADLINE_SECONDS = 10
"""How long one decision may take; started anew after that."""
MEMORY_BYTES = 2 * 1024**3
PRIORITY = 10


class Job(Struct, frozen=True):
    """One decision about ``service``."""

    service: str
    batches: list[Batch]


def main(name: str) -> None:
    """Answer for the scheduler ``name`` until the input ends."""
    from sked_core.runtime.plugins.registry import Plugins

    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a plugin prints is no answer
    with contextlib.suppress(OSError, ValueError):
        os.nice(PRIORITY)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    plugins = Plugins.load()
    for line in sys.stdin.buffer:
        signal.alarm(DEADLINE_SECONDS + 1)
        job = msgspec.json.decode(line, type=Job)
        try:
            scheduler = plugins.scheduler(name)()
            answers: Sequence[Shadow] = [shadow_of(batch, job.service, scheduler, name) for batch in job.batches]
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is what is told of it
            fault = f"{type(error).__name__}: {error}"[:300]
            answers = [Shadow(scheduler=name, fault=fault) for _ in job.batches]
        signal.alarm(0)
        replies.write(msgspec.json.encode(answers) + b"\n")
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1])
