"""The long-running processes: loops in threads, ended by a signal, or all together when one of them fails."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, cast

from sked_core.client.outcomes import FAILED, INTERRUPTED, code_of, hints_of
from sked_core.client.session import Session
from sked_core.client.settings import Setting, Settings, masked
from sked_core.clock import SystemClock
from sked_core.errors import Denied, InvalidValue, SkedError
from sked_core.interfaces.health import HealthProvider
from sked_core.model import keys
from sked_core.model.policy import Policy
from sked_core.model.spec import plain
from sked_core.runtime.agent.disk import AgentDisk
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.agent.task_secrets import SecretSource, open_source
from sked_core.runtime.delivery import Delivery
from sked_core.runtime.journal import Observer
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.plugins.backend import tell_unguarded
from sked_core.runtime.plugins.known_types import know_types
from sked_core.runtime.state import store_uid
from sked_core.serving.logs import Form, log_to_stderr
from sked_core.surface.errors import report
from sked_core.surface.options import session
from sked_core.surface.render import note

if TYPE_CHECKING:
    from sked_core.runtime.agent.loop import AgentLoop
    from sked_core.runtime.metrics import Metrics
    from sked_core.runtime.pulse import Pulse
    from sked_core.runtime.scheduling.loop import SchedulerLoop
    from sked_core.runtime.signing import Signer
    from sked_core.serving.guard import Guard
    from sked_core.serving.listening import Listen

Role = Callable[[threading.Event], None]
log = logging.getLogger("sked")
SCHEDULER_THREADS = 4
"""While one waits for the store the next one plans (measured: benchmarks/scheduling.py)."""
DELIVERY_SECONDS = 2.0
"""How long plugins have, when the process ends, for the events that they have not taken in."""


@dataclass(frozen=True, slots=True)
class Options:
    """What ``run`` was told, by flags and configuration files. ``agent``: all of it but its policy, which ``policy``
    names; ``lost_after`` in seconds."""

    agent: AgentSettings
    policy: Setting
    lost_after: float = 60.0
    shadow: str = ""
    signing_key: Path | None = None
    listen: Listen | None = None
    verbose: bool = False
    log_format: Form = "text"


def run_roles(roles: Sequence[str], settings: Settings, options: Options) -> int:
    """Run an agent, a scheduler or both until a signal comes; returns the exit code."""
    host = keys.check_host(options.agent.host)
    log_to_stderr(options.log_format, verbose=options.verbose, host=host if "agent" in roles else "")
    if options.log_format == "text":
        note(_first_line(settings))
        return _run(roles, settings, options)
    log.info("%s", _first_line(settings).removeprefix("sked: "))
    try:
        return _run(roles, settings, options)
    except SkedError as error:
        log.critical("%s", "; ".join([str(error), *hints_of(error)]))
        return code_of(error)


def _run(roles: Sequence[str], settings: Settings, options: Options) -> int:
    with session(settings, required=True) as sked:
        threading.Thread(target=tell_unguarded, args=(sked.store,), name="unguarded", daemon=True).start()
        metrics = _metrics(roles) if options.listen else None
        if metrics:
            sked = replace(sked, store=metrics.store(sked.store))
        agent = replace(options.agent, policy=_policy(sked, options)) if "agent" in roles else None
        source = _source(sked, agent) if agent else SecretSource()
        health = (
            sked.health(agent.host, _mark(sked, agent), agent.policy, source.masks.mask_cut) if agent else sked.health()
        )
        delivery = Delivery(sked.plugins.observe)
        try:
            parts: dict[str, AgentLoop | SchedulerLoop] = {}
            keeper = LeaseKeeper(sked.store, SystemClock())
            observer = metrics.observer(delivery) if metrics else delivery
            if agent:
                parts["agent"] = _agent(sked, health, agent, source, keeper, observer, metrics)
            if "scheduler" in roles:
                parts["scheduler"] = _scheduler(sked, health, options, keeper, observer, metrics)
            loops: dict[str, Role] = {name: part.run for name, part in parts.items()}

            def pulses() -> dict[str, Pulse]:
                return {name: pulse for part in parts.values() for name, pulse in part.pulses().items()}

            if metrics:
                metrics.keeper(keeper)
                for part in parts.values():
                    metrics.sample(part.figures)
            if agent or options.listen:
                loop = cast("AgentLoop | None", parts.get("agent"))
                loops["http"] = _serving(options, metrics, loop, agent, pulses)
            if "NOTIFY_SOCKET" in os.environ and (systemd := _systemd(list(parts), pulses)):
                loops["systemd"] = systemd
            return run_until_signal(loops, tell=_log_failure if options.log_format == "json" else report)
        finally:
            health.close()
            delivery.close(DELIVERY_SECONDS)


def _metrics(roles: Sequence[str]) -> Metrics:
    from sked_core.runtime.metrics import Metrics

    return Metrics(roles)


def _serving(
    options: Options,
    metrics: Metrics | None,
    loop: AgentLoop | None,
    agent: AgentSettings | None,
    pulses: Callable[[], dict[str, Pulse]],
) -> Role:
    """What this process offers over HTTP: an agent its logs and commands, and whoever was told to listen its figures.
    What keeps a given address from being listened on is raised now."""
    from sked_core.serving.endpoint import Endpoint, own_socket, tcp

    def guard() -> Guard:
        from sked_core.serving.app import application
        from sked_core.serving.guard import Guard
        from sked_core.serving.watching import OPEN_PATHS, watching

        routes = watching(metrics, pulses, agent.host if agent else "")
        if loop and agent:
            from sked_core.serving.agent_app import agent_routes

            routes += agent_routes(agent.host, loop.access())
        return Guard(application(routes), open_paths=OPEN_PATHS)

    listeners = {"its own socket": own_socket(agent.state_dir)} if agent else {}
    if options.listen:
        listeners[options.listen.address] = tcp(options.listen, agent.address if agent else "")
    if loop:
        return Endpoint(guard, listeners, loop.serve_at, loop.opened).run
    ready = threading.Event()
    ready.set()
    return Endpoint(guard, listeners, lambda _: None, ready).run


def _systemd(parts: Sequence[str], pulses: Callable[[], dict[str, Pulse]]) -> Role | None:
    """Keeps systemd informed, if it asked for that. Ready is a process each of whose ``parts`` has done a round."""
    from functools import partial

    from sked_core.serving.systemd import Systemd

    systemd = Systemd.from_environment()
    if systemd is None:
        return None
    return partial(systemd.run, ready=lambda: all(pulses()[name].rounds for name in parts), pulses=pulses)


def _log_failure(error: BaseException) -> int:
    """Log what ended the process, with the way it came about where nobody foresaw it; returns the exit code."""
    if isinstance(error, SkedError):
        raise error
    log.critical("internal error: %s: %s", type(error).__name__, error, exc_info=error)
    return FAILED


def run_until_signal(roles: dict[str, Role], *, tell: Callable[[BaseException], int] = report) -> int:
    """Run each role in a thread. The first SIGTERM or SIGINT asks all to end, the second ends the process at once.

    A role that fails, or ends unasked, ends the others too. Returns 0 after SIGTERM, 130 after SIGINT, 1 after a
    failure, which ``tell`` is called with: it says so, and returns the exit code.
    """
    know_types()
    stop, over = threading.Event(), SimpleQueue[None]()
    failures: list[BaseException] = []
    received: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        over.put(None)  # no Event: the main thread, which this interrupts, may be where it has to end first

    def guarded(run: Role) -> None:
        try:
            run(stop)
        except BaseException as error:  # noqa: BLE001  a thread's failure becomes the failure of the process
            failures.append(error)
        over.put(None)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threads = [
        threading.Thread(target=guarded, args=(run,), name=f"sked-{name}", daemon=True) for name, run in roles.items()
    ]
    try:
        for thread in threads:
            thread.start()
        over.get()
        stop.set()
        for thread in threads:
            thread.join()
    finally:
        for number, former in before.items():
            signal.signal(number, former)
    if failures:
        return tell(failures[0]) or 1
    return INTERRUPTED if received == [signal.SIGINT] else 0


def _policy(sked: Session, options: Options) -> Policy:
    """What the host allows, which is said. Raises InvalidValue: an agent without the policy it was to have ends."""
    from sked_core.runtime.agent.policy_file import doubts, load

    try:
        found = load(options.policy.value, sked.plugins, named_in=options.policy.file)
    except InvalidValue as error:
        if options.policy.origin:
            error.add_note(f"from: {options.policy.origin}")
        raise
    if options.log_format == "text":
        note(f"sked: {found.line()}")
    else:
        log.log(logging.WARNING if found.development else logging.INFO, "%s", found.line())
    for doubt in doubts(found.policy, sked.plugins):
        log.warning("policy: %s", doubt)
    return found.policy


def _source(sked: Session, agent: AgentSettings) -> SecretSource:
    """Where the policy has secrets read. Raises SkedError where that can't be what it says."""
    source = open_source(agent.policy.secrets, sked.plugins, agent.host)
    if agent.policy.secrets.allow:
        said = (f"{name} of {sked.plugins.origin('secrets', name)}" for name in source.providers)
        log.info("secrets are read by %s", ", ".join(said))
    return source


def _mark(sked: Session, agent: AgentSettings) -> str:
    """What this agent's registrations for health are known by, the same after every restart.

    An agent that was here before has it in its folder, and starts without the store; the first start needs the store.
    """
    if (agent.state_dir / "identity.json").exists() and (mark := AgentDisk(agent.state_dir).identity().mark):
        return mark
    waits = False
    while True:
        try:
            return store_uid(sked.store, create=True)
        except Denied as error:
            store_uid(sked.store)  # raises for whoever may not even read it
            if not waits:
                log.warning("waiting: %s", "; ".join([str(error), *hints_of(error)]))
            waits = True
            time.sleep(1.0)  # a signal still ends the process at once


def _agent(
    sked: Session,
    health: HealthProvider,
    settings: AgentSettings,
    source: SecretSource,
    keeper: LeaseKeeper,
    observer: Observer,
    metrics: Metrics | None,
) -> AgentLoop:
    from sked_core.runtime.agent.loop import AgentLoop
    from sked_core.runtime.workers import ThreadPools

    return AgentLoop(
        store=sked.store,
        plugins=sked.plugins,
        health=health,
        settings=settings,
        clock=SystemClock(),
        keeper=keeper,
        observer=observer,
        workers=metrics.workers(ThreadPools()) if metrics else None,
        secrets=source,
    )


def _scheduler(
    sked: Session,
    health: HealthProvider,
    options: Options,
    keeper: LeaseKeeper,
    observer: Observer,
    metrics: Metrics | None,
) -> SchedulerLoop:
    from sked_core.runtime.loop import collect_seldom
    from sked_core.runtime.scheduling.loop import SchedulerLoop

    collect_seldom()
    if options.shadow:
        sked.plugins.scheduler(options.shadow)
    return SchedulerLoop(
        store=sked.store,
        plugins=sked.plugins,
        health=health,
        name=re.sub(r"[^A-Za-z0-9._-]", "-", f"{socket.gethostname()[:200]}.{os.getpid()}.{secrets.token_hex(2)}"),
        lost_after=options.lost_after,
        clock=SystemClock(),
        keeper=keeper,
        workers=SCHEDULER_THREADS,
        observer=observer,
        shadow=options.shadow,
        evaluated=metrics.evaluated if metrics else None,
        signer=_signer(options.signing_key) if options.signing_key else None,
    )


def _signer(path: Path) -> Signer:
    from sked_core.model.signing import spelled
    from sked_core.runtime.signing import Signer

    signer = Signer(path, SystemClock())
    log.info("what is issued is signed: %s", spelled(signer.public))
    return signer


def _first_line(settings: Settings) -> str:
    url = masked(settings.backend.value)
    if settings.backend.origin:
        return f"sked: store {url} ({plain(settings.backend.origin)})"
    return f"sked: store {url}: an embedded file, for this host alone (--backend URL or SKED_BACKEND for another)"
