"""All that a plugin may import, and nothing else. What stands here is public interface."""

from sked_core.clock import Clock, SystemClock
from sked_core.errors import (
    Conflict,
    Denied,
    ExecutorError,
    InvalidValue,
    LeaseLost,
    NotFound,
    PluginError,
    Problem,
    Rejected,
    SkedError,
    Unavailable,
)
from sked_core.interfaces.executor import Executor, ExecutorContext, Handle, Observation, State
from sked_core.interfaces.health import HealthContext, HealthProvider
from sked_core.interfaces.hookspecs import hookimpl
from sked_core.interfaces.scheduler import BatchScheduler, Candidate, Demand, Scheduler, Wanted
from sked_core.interfaces.store import Check as CheckOp
from sked_core.interfaces.store import (
    Delete,
    Entry,
    Fence,
    Lease,
    Op,
    Put,
    Revision,
    Snapshot,
    Store,
    check_key,
)
from sked_core.logic.placement import scored
from sked_core.model.codec import decode, digest, encode
from sked_core.model.duration import to_nanoseconds, to_seconds
from sked_core.model.environment import task_environment, with_port
from sked_core.model.ports import Binding
from sked_core.model.spec import check_spec
from sked_core.model.types import Check, Container, Event, Health, Task, TaskDefinition, TaskId, task_id

__all__ = [
    "BatchScheduler",
    "Binding",
    "Candidate",
    "Check",
    "CheckOp",
    "Clock",
    "Conflict",
    "Container",
    "Delete",
    "Demand",
    "Denied",
    "Entry",
    "Event",
    "Executor",
    "ExecutorContext",
    "ExecutorError",
    "Fence",
    "Handle",
    "Health",
    "HealthContext",
    "HealthProvider",
    "InvalidValue",
    "Lease",
    "LeaseLost",
    "NotFound",
    "Observation",
    "Op",
    "PluginError",
    "Problem",
    "Put",
    "Rejected",
    "Revision",
    "Scheduler",
    "SkedError",
    "Snapshot",
    "State",
    "Store",
    "SystemClock",
    "Task",
    "TaskDefinition",
    "TaskId",
    "Unavailable",
    "Wanted",
    "check_key",
    "check_spec",
    "decode",
    "digest",
    "encode",
    "hookimpl",
    "scored",
    "task_environment",
    "task_id",
    "to_nanoseconds",
    "to_seconds",
    "with_port",
]
