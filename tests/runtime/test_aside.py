"""Threads of calls that did not come back in time."""

from __future__ import annotations

import threading
from typing import Any

from sked_core.runtime.plugins.aside import _Worker


def test_leaving_a_thread_that_ends_just_then_hurts_no_other_that_gets_its_number() -> None:
    worker, over = _Worker(), threading.Event()
    others: list[threading.Thread] = []
    real = worker.calls

    class Calls:
        """Comes back once the thread that it tells to end has, and others have begun."""

        def put(self, call: Any) -> None:
            real.put(call)
            worker.thread.join(60)
            others.extend(threading.Thread(target=live, daemon=True) for _ in range(5))
            for other in others:
                other.start()

    def live() -> None:
        while not over.wait(0.01):
            pass
        ended.append(threading.current_thread())

    ended: list[threading.Thread] = []
    worker.calls = Calls()  # type: ignore[assignment]
    worker.leave()
    over.set()
    for other in others:
        other.join(60)
    assert len(ended) == 5
