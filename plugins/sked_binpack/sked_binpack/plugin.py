"""The ``binpack`` scheduler: as few hosts as possible in use."""

from collections.abc import Callable, Mapping

from sked_binpack.batch import pack
from sked_binpack.score import terms, tightness
from sked_core.plugin import Scheduler, hookimpl, scored


@hookimpl
def sked_schedulers() -> Mapping[str, Callable[[], Scheduler]]:
    return {"binpack": lambda: scored(tightness, terms=terms, scope="size", batch=pack)}
