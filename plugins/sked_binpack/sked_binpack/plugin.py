"""The ``binpack`` scheduler: the tightest host that still fits."""

from collections.abc import Callable, Mapping

from sked_core.plugin import Candidate, Demand, Scheduler, hookimpl, scored


def tightness(demand: Demand, candidate: Candidate) -> float:
    """The mean share of memory and cpu that is used once the task runs there: 1.0 is a full host.

    Best fit over the resources that the host declares; a host without figures scores 0.
    """
    left = candidate.after(demand)
    used = [
        1 - free / total
        for free, total in ((left.free_memory, left.memory), (left.free_cpu_units, left.cpu_units))
        if total
    ]
    return sum(used) / len(used) if used else 0.0


@hookimpl
def sked_schedulers() -> Mapping[str, Callable[[], Scheduler]]:
    return {"binpack": lambda: scored(tightness)}
