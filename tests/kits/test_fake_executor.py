"""The stand-in for engines is held to what engines are held to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sked_core.errors import ExecutorError
from sked_core.testing.executors import ExecutorContract
from sked_core.testing.fakes import FakeEngine
from sked_core.testing.samples import ExecutorSample

ENGINE = FakeEngine()


@contextlib.contextmanager
def down() -> Iterator[None]:
    ENGINE.down = "it does not answer"
    yield
    ENGINE.down = ""


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    def lose(*_: object) -> None:
        raise ExecutorError("no answer came")

    before, ENGINE.after_start = ENGINE.after_start, lose
    yield
    ENGINE.after_start = before


class TestFake(ExecutorContract):
    sample = ExecutorSample(
        type="fake",
        make=ENGINE.executor,
        stays={},
        wrong=[{"problem": "so it is"}, {"ports": ["80"]}],
        outlives=False,
        census=lambda context: sum(
            one.owner == (context.host, context.store_uid) for one in list(ENGINE.containers.values())
        ),
        hung_engine=down,
        lost_answers=unheard,
    )
