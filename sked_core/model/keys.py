"""The only place that spells a key. Every function refuses a name that could lead to another key.

========================================  ==========================================  =======================
key                                       value                                       written by
========================================  ==========================================  =======================
config/clusters/<name>                    Cluster                                     users
config/services/<name>                    Service                                     users; schedulers
config/task_definitions/<name>/<version>  TaskDefinition                              users
config/hosts/<name>                       Host                                        agents
state/tasks/<task id>                     Task                                        schedulers; agents
state/hosts/<host>/<task id>              the same Task                               schedulers; agents
meta/store_uid                            a random id that names this store           the first process to need it
agents/<host>                             number of changes that its agent took in    agents
hosts/live/<host>                         Liveness, bound to the agent's lease        agents
hosts/marks/<host>                        Mark: cordoned or draining                  users
locks/services/<service>                  holder and since when, bound to its lease   schedulers
health/<host>/<task id>                   Health (built-in probes only)               agents
reports/<host>/<task id>                  Health: what a task with ttl checks says    tasks
status/services/<service>                 ServiceStatus: what waits and why           schedulers
scheduling/schedulers/<name>              Presence, bound to the scheduler's lease    schedulers
scheduling/changed/<service>              who changed tasks of it, lately             schedulers; agents
scheduling/rollouts/<service>             Rollout that is under way                   schedulers; users
scheduling/moves/<service>                Moves that are left to be made              schedulers; users
rollouts/<service>/<number>               Rollout that has ended                      schedulers; users
decisions/<service>/<slot>                Decision: where tasks went, and why         schedulers
failures/<task id>                        Failure: why the task does not run well     agents
endings/<host>/<slot>                     Ending: how a run of a task ended           agents
events/<id>                               list of Event                               everybody
========================================  ==========================================  =======================
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from sked_core.errors import InvalidValue
from sked_core.model.types import HOST_PATTERN, NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)
_HOST = re.compile(HOST_PATTERN)
# Four names and numbers joined by hyphens; each part was checked where it was declared.
_TASK_ID = re.compile(r"^[a-z0-9][a-z0-9-]{0,200}\Z")

CONFIG = "config/"
CLUSTERS = "config/clusters/"
SERVICES = "config/services/"
TASK_DEFINITIONS = "config/task_definitions/"
HOSTS = "config/hosts/"
STATE = "state/"
TASKS = "state/tasks/"
HOST_TASKS = "state/hosts/"
META = "meta/"
STORE_UID = "meta/store_uid"
AGENTS = "agents/"
HOST_STATES = "hosts/"
LIVE = "hosts/live/"
MARKS = "hosts/marks/"
LOCKS = "locks/"
SERVICE_LOCKS = "locks/services/"
HEALTH = "health/"
REPORTS = "reports/"
SERVICE_STATUS = "status/services/"
SCHEDULING = "scheduling/"
SCHEDULERS = "scheduling/schedulers/"
CHANGED = "scheduling/changed/"
ROLLOUTS = "scheduling/rollouts/"
MOVES = "scheduling/moves/"
ROLLOUT_HISTORY = "rollouts/"
DECISIONS = "decisions/"
FAILURES = "failures/"
ENDINGS = "endings/"
EVENTS = "events/"
KEPT_DECISIONS = 8
"""How many decisions about each service are kept: as many slots, so that a new one takes the place of the oldest."""
KEPT_ENDINGS = 32
"""How many slots each host has for how runs of tasks ended."""


def check_name(name: str) -> str:
    """``name`` if it may name a cluster, service, task definition or container; else raises InvalidValue."""
    if not isinstance(name, str) or not is_name(name):
        raise InvalidValue(f"{name!r:.80} is not a name: 1 to 63 of a-z 0-9 -, first and last not a hyphen")
    return name


@functools.lru_cache(maxsize=65_536)
def is_name(name: str) -> bool:
    """Whether ``name`` may name a cluster, service, task definition or container."""
    return bool(_NAME.match(name))


def is_host(name: str) -> bool:
    """Whether ``name`` may name a host."""
    return isinstance(name, str) and bool(_HOST.match(name))


def check_host(name: str) -> str:
    """``name`` if it may name a host; else raises InvalidValue."""
    if not is_host(name):
        raise InvalidValue(f"{name!r:.80} is not a host name: 1 to 253 of A-Z a-z 0-9 . _ -, not '.' or '..'")
    return name


def check_task_id(task_id: str) -> str:
    """``task_id`` if it can be one; else raises InvalidValue."""
    if not isinstance(task_id, str) or not _TASK_ID.match(task_id):
        raise InvalidValue(f"{task_id!r:.80} is not a task id")
    return task_id


def _key(prefix: str, check: Callable[[str], str]) -> Callable[[str], str]:
    """What makes the key of a name below ``prefix``."""
    return lambda name: prefix + check(name)


def _folder(prefix: str, check: Callable[[str], str]) -> Callable[[str], str]:
    """What makes the prefix of all that belongs to a name below ``prefix``."""
    return lambda name: f"{prefix}{check(name)}/"


cluster = _key(CLUSTERS, check_name)
service = _key(SERVICES, check_name)
task_definition_versions = _folder(TASK_DEFINITIONS, check_name)
host = _key(HOSTS, check_host)
task = _key(TASKS, check_task_id)
host_tasks = _folder(HOST_TASKS, check_host)
agent = _key(AGENTS, check_host)
live = _key(LIVE, check_host)
mark = _key(MARKS, check_host)
service_lock = _key(SERVICE_LOCKS, check_name)
host_health = _folder(HEALTH, check_host)
host_reports = _folder(REPORTS, check_host)
service_status = _key(SERVICE_STATUS, check_name)
scheduler = _key(SCHEDULERS, check_host)
changed = _key(CHANGED, check_name)
"""The marker that tells schedulers which service's tasks to look at: written with every change of them."""
rollout = _key(ROLLOUTS, check_name)
"""The roll-out of the service that is under way."""
rollout_history = _folder(ROLLOUT_HISTORY, check_name)
moves = _key(MOVES, check_name)
"""The moves of the service's tasks that are left to be made."""
decisions = _folder(DECISIONS, check_name)
failure = _key(FAILURES, check_task_id)
endings = _folder(ENDINGS, check_host)
events = _key(EVENTS, check_host)
"""One commit's events. Ids grow with time."""


def task_definition(name: str, version: int) -> str:
    return f"{task_definition_versions(name)}{int(version)}"


def service_tasks(cluster_name: str, service_name: str) -> str:
    """Prefix of the tasks of one service in one cluster. Others may share it (names may contain hyphens)."""
    return f"{TASKS}{check_name(cluster_name)}-{check_name(service_name)}-"


def host_task(host_name: str, task_id: str) -> str:
    return host_tasks(host_name) + check_task_id(task_id)


def health(host_name: str, task_id: str) -> str:
    return host_health(host_name) + check_task_id(task_id)


def report(host_name: str, task_id: str) -> str:
    return host_reports(host_name) + check_task_id(task_id)


def ended_rollout(service_name: str, number: int) -> str:
    return f"{rollout_history(service_name)}{int(number)}"


def decision(service_name: str, number: int) -> str:
    """Where decision ``number`` stands, in the slot that it shares with those KEPT_DECISIONS before and after it."""
    return f"{decisions(service_name)}{int(number) % KEPT_DECISIONS}"


def service_failures(cluster_name: str, service_name: str) -> str:
    """Prefix of the failures of one service's tasks in one cluster. Others may share it, as with ``service_tasks``."""
    return f"{FAILURES}{check_name(cluster_name)}-{check_name(service_name)}-"


def ending(host_name: str, slot: int) -> str:
    """One of the host's slots, from 0 to KEPT_ENDINGS - 1."""
    if slot not in range(KEPT_ENDINGS):
        raise InvalidValue(f"{slot!r:.80} is no slot: 0 to {KEPT_ENDINGS - 1}")
    return f"{endings(host_name)}{slot}"


def last_segment(key: str) -> str:
    """What stands behind the last ``/``."""
    return key.rpartition("/")[2]
