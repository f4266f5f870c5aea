"""All that a plugin may import, and nothing else. What stands here is public interface, and recorded as such in
docs/plugin-api.txt: docs/plugin-api.md says how it may change."""

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from sked_core.as_user import Account, account, chosen, clean_environment, own_account, spawn
from sked_core.clock import Clock, SystemClock
from sked_core.errors import (
    Conflict,
    Denied,
    ExecutorError,
    InvalidManifest,
    InvalidValue,
    LeaseLost,
    NotFound,
    PluginError,
    Problem,
    Rejected,
    SkedError,
    Unavailable,
)
from sked_core.host_command import HostCommand
from sked_core.interfaces.executor import (
    MAX_LINE_BYTES,
    CommandRunner,
    ExecProcess,
    ExecRequest,
    Executor,
    ExecutorContext,
    Handle,
    LogLine,
    LogQuery,
    LogSource,
    Observation,
    Policed,
    State,
    Stop,
)
from sked_core.interfaces.failpoints import failpoint
from sked_core.interfaces.health import HealthContext, HealthProvider, told_by
from sked_core.interfaces.hookspecs import API_VERSION, hookimpl
from sked_core.interfaces.invocation import Invocation, Reading, SeenHost, SeenTask
from sked_core.interfaces.scheduler import BatchScheduler, Candidate, Demand, Scheduler, Wanted
from sked_core.interfaces.secrets import MAX_SECRET_BYTES, Secret, SecretContext, SecretProvider
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
from sked_core.model.events import EVENT_NAMES
from sked_core.model.policy import Artifacts, Denial, Limits, Policy, refusal
from sked_core.model.ports import Binding
from sked_core.model.secret_refs import secret_variables
from sked_core.model.spec import check_spec, plain
from sked_core.model.types import (
    Check,
    Cluster,
    Container,
    Event,
    Health,
    Host,
    Service,
    Task,
    TaskDefinition,
    TaskId,
    task_id,
)
from sked_core.model.yaml_source import MAX_BYTES as MAX_YAML_BYTES
from sked_core.model.yaml_source import Document, Source
from sked_core.model.yaml_source import parse as read_yaml
from sked_core.reach import beyond_this_machine
from sked_core.trust import open_trusted

__all__ = [
    "API_VERSION",
    "EVENT_NAMES",
    "MAX_LINE_BYTES",
    "MAX_SECRET_BYTES",
    "MAX_YAML_BYTES",
    "Account",
    "Artifacts",
    "BatchScheduler",
    "Binding",
    "Candidate",
    "Check",
    "CheckOp",
    "Clock",
    "Cluster",
    "CommandRunner",
    "Conflict",
    "Container",
    "Delete",
    "Demand",
    "Denial",
    "Denied",
    "Document",
    "Entry",
    "Event",
    "ExecProcess",
    "ExecRequest",
    "Executor",
    "ExecutorContext",
    "ExecutorError",
    "Fence",
    "Handle",
    "Health",
    "HealthContext",
    "HealthProvider",
    "Host",
    "HostCommand",
    "InvalidManifest",
    "InvalidValue",
    "Invocation",
    "Lease",
    "LeaseLost",
    "Limits",
    "LogLine",
    "LogQuery",
    "LogSource",
    "NotFound",
    "Observation",
    "Op",
    "PluginError",
    "Policed",
    "Policy",
    "Problem",
    "Put",
    "Reading",
    "Rejected",
    "Revision",
    "Scheduler",
    "Secret",
    "SecretContext",
    "SecretProvider",
    "SeenHost",
    "SeenTask",
    "Service",
    "SkedError",
    "Snapshot",
    "Source",
    "State",
    "Stop",
    "Store",
    "SystemClock",
    "Task",
    "TaskDefinition",
    "TaskId",
    "Unavailable",
    "Wanted",
    "account",
    "beyond_this_machine",
    "check_key",
    "check_spec",
    "chosen",
    "clean_environment",
    "decode",
    "digest",
    "encode",
    "failpoint",
    "hookimpl",
    "open_trusted",
    "own_account",
    "plain",
    "read_yaml",
    "refusal",
    "scored",
    "secret_variables",
    "spawn",
    "task_environment",
    "task_id",
    "to_nanoseconds",
    "to_seconds",
    "told_by",
    "with_port",
]


class _Deprecated(NamedTuple):
    """A name that goes. ``instead``: what to use; ``gone``: the plugin API in which it is no more."""

    value: Any
    instead: str
    gone: str


_DEPRECATED: dict[str, _Deprecated] = {}
"""Names that plugins which exist may still import, for a release at least, with a warning."""

if not TYPE_CHECKING:  # for it, what stands in the table is gone already

    def __getattr__(name: str) -> Any:
        if name not in _DEPRECATED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value, instead, gone = _DEPRECATED[name]
        warnings.warn(
            f"sked_core.plugin.{name} is gone in plugin API {gone}: use {instead}", DeprecationWarning, stacklevel=2
        )
        return value
