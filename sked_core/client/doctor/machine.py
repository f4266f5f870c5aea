"""Whether this machine is fit for an agent."""

from __future__ import annotations

import os
import resource
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sked_core.client.doctor.exam import Check, Exam, Fault
from sked_core.client.outcomes import hints_of
from sked_core.errors import ExecutorError, SkedError
from sked_core.interfaces.executor import ExecutorContext
from sked_core.model import keys
from sked_core.model.types import Service, Task, TaskDefinition
from sked_core.runtime.agent import host_facts
from sked_core.runtime.plugins import asked

MIN_FREE_SHARE, MIN_FREE_MB = 0.05, 500
MIN_OPEN_FILES = 1024
"""An agent keeps a few files open for each task, and what checks and stops them some more."""


def engines(exam: Exam) -> Iterator[Fault]:
    allowed = exam.given.file.allow_executors
    for kind in exam.plugins().names("executor"):
        if allowed is not None and kind not in allowed:
            continue
        with tempfile.TemporaryDirectory(prefix="sked-doctor-") as folder:
            context = ExecutorContext(host="sked-doctor", store_uid="sked-doctor", state_dir=Path(folder))
            try:
                executor = asked.executor(exam.plugins(), kind, context)
            except SkedError as error:
                yield Fault(f"executor {kind}: {error}", "\n".join(hints_of(error)) or "see `sked plugins`")
                continue
            try:
                executor.recover()
            except ExecutorError as error:
                remedy = "\n".join(hints_of(error)) or "start its engine, or give this user a right to it"
                yield Fault(
                    f"executor {kind}: {error}", f"{remedy}\nor do without it here: --allow-executor of the others"
                )
            finally:
                executor.close()


def outgoing_ports(exam: Exam) -> Iterator[Fault]:
    for doubt in host_facts.doubts(exam.agent(), exam.machine) if exam.has_agent else ():
        if doubt.startswith("ports "):
            what, _, remedy = doubt.partition(": ")
            yield Fault(what, remedy)


def granted(exam: Exam) -> Iterator[Fault]:
    for doubt in host_facts.doubts(exam.agent(), exam.machine):
        if doubt.startswith("--"):
            yield Fault(doubt, "grant tasks no more than there is: correct it in the configuration")


def held_ports(exam: Exam) -> Iterator[Fault]:
    if not exam.has_agent:
        return
    definitions = exam.objects(keys.TASK_DEFINITIONS, TaskDefinition)
    wanted: dict[int, str] = {}
    for name, service in exam.objects(keys.SERVICES, Service).items():
        found = definitions.get(f"{service.task_name}/{service.task_version}")
        if found is not None and found.port and not found.provide_port:
            wanted[found.port] = name
    own = {task.port for task in exam.objects(keys.TASKS, Task).values() if task.host == exam.host}
    for port in sorted(exam.machine.ports_in_use() & wanted.keys() - own):
        what = f"port {port}, which service {wanted[port]} needs, is taken here by something that is none of its tasks"
        yield Fault(what, f"see who has it:  ss -ltnp sport = :{port}")


def disk(exam: Exam) -> Iterator[Fault]:
    folder = exam.state_dir
    free, total = exam.machine.free_disk_mb(folder), exam.machine.disk_mb(folder)
    if free < max(MIN_FREE_MB, total * MIN_FREE_SHARE) and free < total:
        what = f"{free} MB of {total} MB are free where {folder} is: notes and logs of tasks can't be written soon"
        yield Fault(what, "make room, or choose another --state-dir")


def state_folder(exam: Exam) -> Iterator[Fault]:
    folder = exam.state_dir
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except PermissionError:
        yield Fault(
            f"{folder} is where this user may not look", "run it as the agent's user, or choose another --state-dir"
        )
        return
    if not there.is_dir():
        yield Fault(f"{there} is no folder", "remove it, or choose another --state-dir")
        return
    if there != folder:
        if not os.access(there, os.W_OK | os.X_OK):
            yield Fault(f"{folder} can't be made: {there} may not be written", "choose another --state-dir")
        elif why := _refused(there):
            yield Fault(f"{folder} can't be made: {there} takes no folder ({why})", "choose another --state-dir")
        return
    about = folder.stat()
    if about.st_uid != os.geteuid() and os.geteuid() != 0:
        yield Fault(f"{folder} belongs to user {about.st_uid}, this is {os.geteuid()}", f"sudo chown -R $USER {folder}")
    elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Fault(f"{folder} may not be written (mode {stat.S_IMODE(about.st_mode):04o})", f"chmod 700 {folder}")
    elif not (folder / "identity.json").exists() and (why := _refused(folder)):
        yield Fault(f"{folder} takes no folder ({why})", "choose another --state-dir")
    elif about.st_mode & 0o022:
        yield Fault(f"others may write to {folder} (mode {stat.S_IMODE(about.st_mode):04o})", f"chmod 700 {folder}")
    elif strangers := [one.name for one in folder.iterdir() if one.stat().st_uid != about.st_uid]:
        what = f"{folder / strangers[0]} belongs to another user than its folder: an agent was run as somebody else"
        yield Fault(what, f"sudo chown -R --reference={folder} {folder}")


def _refused(folder: Path) -> str:
    """Why no folder can be made there; empty if one can. Root may write everywhere, as far as the rights tell, and
    still can't where the file system has no room for it (/proc, one that is read-only or full): only trying tells."""
    try:
        Path(tempfile.mkdtemp(prefix=".sked-doctor-", dir=folder)).rmdir()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def open_files(exam: Exam) -> Iterator[Fault]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        what = f"a process may open {soft} files, an agent wants {MIN_OPEN_FILES}"
        yield Fault(what, "ulimit -n 65536; for a unit LimitNOFILE=65536")


def units(exam: Exam) -> Iterator[Fault]:
    """A unit's own file, then its drop-ins, of which the last word counts (systemd.unit(5))."""
    for root in exam.roots:
        for unit in sorted(root.glob("*.service")):
            lines = _lines(unit)
            starts = [line for line in lines if line.startswith("ExecStart=")]
            if not any("sked" in line and ("agent" in line or "combined" in line) for line in starts):
                continue
            for other in exam.roots:
                lines += [line for file in sorted(other.glob(f"{unit.name}.d/*.conf")) for line in _lines(file)]
            modes = [line.partition("=")[2].strip() for line in lines if line.startswith("KillMode=")]
            if not modes or modes[-1] != "process":
                mode = modes[-1] if modes else "control-group, its default"
                what = f"{unit} has KillMode {mode}: to restart the agent ends all tasks of executor bash"
                yield Fault(what, f"systemctl edit {unit.name}, with [Service] KillMode=process; then daemon-reload")


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(errors="replace").splitlines()]
    except OSError:
        return []


def own_name(exam: Exam) -> Iterator[Fault]:
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        yield Fault(f"the name of this machine, {name}, can't be resolved", f"add it to /etc/hosts:  127.0.1.1 {name}")


def secret_providers(exam: Exam) -> Iterator[Fault]:
    from sked_core.runtime.agent.task_secrets import open_source

    if not exam.has_agent and not exam.given.policy.value:
        return
    secrets = exam.policy().policy.secrets
    if not secrets.allow:
        return  # no task has any
    try:
        source = open_source(secrets, exam.plugins(), exam.host)
    except SkedError as error:
        remedy = "\n".join(hints_of(error)) or "correct it in the policy: docs/secrets.md"
        yield Fault(f"the policy's providers of secrets: {error}", f"{remedy}\nno agent starts with it")
        return
    try:
        for name, provider in source.providers.items():
            for what in provider.problems():
                yield Fault(f"secrets of {name}: {what}", "tasks that name secrets don't start here until then")
    finally:
        source.close()


def policy(exam: Exam) -> Iterator[Fault]:
    from sked_core.runtime.agent.policy_file import DEVELOPMENT, SYSTEM_FILE, doubts

    if not _has_policy(exam):
        return
    try:
        found = exam.policy()
    except SkedError as error:
        yield Fault(f"the policy: {error}", "\n".join(hints_of(error)) or "correct it; no agent starts with it")
        return
    for doubt in doubts(found.policy, exam.plugins()):
        yield Fault(f"the policy: {doubt}", "correct the name, or add to this host what it names")
    if found.development and not _of_this_machine(exam.given.backend.value):
        what = f"the policy is {DEVELOPMENT}, on a store that others reach: who can write it may do anything here"
        yield Fault(what, f"say in {SYSTEM_FILE} what tasks may do, and start the agent without it: docs/policy.md")


def cgroups(exam: Exam) -> Iterator[Fault | str]:
    if not _has_policy(exam):
        return
    allowed = exam.policy().policy
    for kind in sorted({*allowed.executors} & {*exam.plugins().names("executor")}):
        context = ExecutorContext(host="", store_uid="", state_dir=Path(os.devnull), policy=allowed)
        executor = asked.executor(exam.plugins(), kind, context)
        told = executor.attributes().get("cgroups") if hasattr(executor, "attributes") else None
        executor.close()
        if told is None or getattr(allowed.sections.get(kind), "cgroups", "") == "off":
            continue
        lacks = [one for one in ("memory", "cpu", "pids") if one not in told.split()]
        if not lacks:
            yield f"executor {kind}: {told}"
            continue
        remedy = "run the agent as root, or have its unit delegate them (Delegate=yes)"
        yield Fault(f"executor {kind} can't limit its tasks in {', '.join(lacks)}: control groups here: {told}", remedy)


def _has_policy(exam: Exam) -> bool:
    from sked_core.runtime.agent.policy_file import SYSTEM_FILE

    return exam.has_agent or bool(exam.given.policy.value) or os.path.lexists(SYSTEM_FILE)


def _of_this_machine(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    host = urlsplit(f"//{rest}").hostname or ""
    return scheme in ("sqlite", "memory", "file") or host in ("localhost", "::1") or host.startswith("127.")


CHECKS = (
    Check("engines", "an engine (Docker) that is down, or that this user may not use", engines),
    Check("policy", "a policy that no agent starts with, or that allows too much for its store", policy),
    Check("cgroups", "tasks that control groups (v1 or v2) can't hold to their limits here", cgroups),
    Check("secret-providers", "providers of tasks' secrets that can't be read, or by others too", secret_providers),
    Check("outgoing-ports", "ports of tasks that the kernel gives to outgoing connections too", outgoing_ports),
    Check("held-ports", "fixed ports of services that something else holds here", held_ports),
    Check("granted", "more memory or disk granted to tasks than the machine has", granted),
    Check("disk", "a disk that is nearly full where the agent keeps its notes", disk),
    Check("state-folder", "a state folder that can't be written, or that others own or may write", state_folder),
    Check("open-files", "too few open files allowed", open_files),
    Check("units", "systemd units of agents that would end the tasks with the agent", units),
    Check("own-name", "a name of this machine that can't be resolved", own_name),
)
