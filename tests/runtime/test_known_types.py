"""Types that several threads decode to at once, in a process where none has before."""

from __future__ import annotations

import subprocess
import sys

from msgspec import Struct

from sked_core.runtime.plugins.known_types import know_types

THREADS = """
import sys, threading
from sked_core.model.codec import decode
from sked_core.model.types import Task
from sked_core.runtime.plugins.known_types import know_types

know_types()
sys.setswitchinterval(1e-6)
said = b'{"task_definition": {"name": "a", "version": 1, "containers": [{"name": "c", "type": "t"}]}, ' \\
    b'"cluster": {"name": "d"}, "service": "s", "instance": 1, "host": "h"}'
together = threading.Barrier(4)

def look():
    together.wait()
    for _ in range(50):
        assert decode(said, Task).host == "h"

threads = [threading.Thread(target=look) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_threads_that_meet_at_a_type_do_not_end_the_process() -> None:
    """Without ``know_types`` one process of three died of a segmentation fault (msgspec 0.22.0)."""
    started = [subprocess.Popen([sys.executable, "-c", THREADS]) for _ in range(10)]
    assert [process.wait(120) for process in started] == [0] * 10


def test_a_type_that_nothing_can_be_decoded_to_is_left_to_who_tries() -> None:
    class Odd(Struct):
        what: Nowhere  # type: ignore[name-defined]  # noqa: F821

    know_types()
    know_types()
