"""Reading the policy of this host: a file that only root or the agent's own user can write, or nothing at all.

What is wrong with it is raised; nothing of it is guessed: an agent that can't read its policy must not start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sked_core.as_user import account
from sked_core.errors import InvalidConfig, Problem, SkedError
from sked_core.interfaces.executor import ExecutorContext, Policed
from sked_core.logic.gates import target_problem
from sked_core.model import yaml_source
from sked_core.model.first_party import install_hint
from sked_core.model.policy import Artifacts, ChecksGate, Policy, Secrets, SetupGate
from sked_core.model.spec import UNKNOWN_FIELD, check_spec, did_you_mean, plain
from sked_core.runtime.plugins import asked
from sked_core.runtime.plugins.registry import Plugins
from sked_core.trust import open_trusted

SYSTEM_FILE = Path("/etc/sked/policy.yml")
"""Read where no other is named; the only one that may be missing."""
DEVELOPMENT = "development"
"""Said instead of a file: the policy for a machine of one's own."""
_OWN = tuple(name for name in Policy.__struct_fields__ if name != "sections")


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """A policy and where it is from. ``file``: None for the development policy, and for the built-in one, which
    denies all that can be denied."""

    policy: Policy
    file: Path | None = None
    development: bool = False

    def line(self) -> str:
        """What an agent says of it when it starts."""
        if self.development:
            return (
                "POLICY development: tasks may run any command on this machine, as the agent's own user"
                f"{' (ROOT)' if os.geteuid() == 0 else ''}, and see any file. For a machine of your own only"
            )
        if self.file is None:
            return f"policy: there is no {SYSTEM_FILE}, so unprivileged docker containers are all that may run here"
        return f"policy: {plain(str(self.file))}"


def load(named: str, plugins: Plugins, *, named_in: Path | None = None) -> HostPolicy:
    """The policy that ``named`` stands for: ``development``, a path, or nothing for SYSTEM_FILE, which may be missing.

    ``named_in``: the configuration file that names it, which nobody else may write either. Raises InvalidConfig with
    all that is wrong, and where.
    """
    if named_in is not None and named:
        _read(named_in.absolute())
    if named == DEVELOPMENT:
        return HostPolicy(development(plugins), development=True)
    if not named and not os.path.lexists(SYSTEM_FILE):
        return HostPolicy(Policy())
    path = Path(named or SYSTEM_FILE).absolute()
    policy, problems = parse(_read(path), str(path), plugins)
    if problems:
        raise InvalidConfig("\n".join(map(str, problems)), hint="every key: docs/policy.md")
    return HostPolicy(policy, path)


def development(plugins: Plugins) -> Policy:
    """What somebody wants of a machine of their own: whatever is installed may do all that it can."""
    sections = {name: kind.development() for name, kind in _kinds(plugins).items() if kind is not None}
    return Policy(
        executors=list(plugins.names("executor")),
        setup=SetupGate(allow=True, root=True),
        checks=ChecksGate(scripts=True, root=True, targets=["*"]),
        artifacts=Artifacts(plain_http=True, without_checksum=True, private_addresses=True),
        secrets=Secrets(provider="environment", allow={"*": ["**"]}),
        sections=sections,
    )


def parse(data: bytes, file: str, plugins: Plugins) -> tuple[Policy, list[Problem]]:
    """The policy in ``data``, the content of ``file``, and all that is wrong with it; it counts only if nothing is."""
    source = yaml_source.parse(data, file, expected="of the policy's sections")
    problems = list(source.problems)
    if len(source.documents) > 1:
        problems.append(Problem("", "only one document can be a policy", file, *source.documents[1].place("")))
    document = source.documents[0] if source.documents else yaml_source.Document(file, {}, {}, {})
    own = {name: value for name, value in document.data.items() if name in _OWN}
    others = {name: value for name, value in document.data.items() if name not in _OWN}
    found = check_spec(own, Policy)
    kinds = _kinds(plugins) if others else {}
    sections: dict[str, Any] = {}
    for name, value in others.items():
        kind = kinds.get(name)
        if kind is None:
            found.append(Problem(plain(name[:80]), _no_section(name, kinds)))
        elif wrong := check_spec(value, kind, name):
            found += wrong
        else:
            sections[name] = _convert(value, kind, name, found)
    targets = own.get("checks", {}).get("targets", []) if not found else []
    wrong_targets = [(number, said) for number, one in enumerate(targets) if (said := target_problem(one))]
    found += [Problem(f"checks.targets[{number}]", said) for number, said in wrong_targets]
    policy = Policy() if found else _convert(own, Policy, "", found)
    for one in found:
        line, column = document.place(one.path, key=one.message.startswith(UNKNOWN_FIELD))
        problems.append(Problem(one.path, one.message, file, line, column))
    if problems:
        return Policy(), problems
    return msgspec.structs.replace(policy, sections=sections), []


def with_defaults(policy: Policy, plugins: Plugins) -> Policy:
    """The same, with the sections that its file leaves out, as each executor has them then."""
    kinds = {name: kind for name, kind in _kinds(plugins).items() if kind is not None}
    return msgspec.structs.replace(policy, sections={name: policy.section(name, kind) for name, kind in kinds.items()})


def doubts(policy: Policy, plugins: Plugins) -> Iterator[str]:
    """What is allowed but can't be meant."""
    installed = plugins.names("executor")
    for name in policy.executors:
        if name not in installed and name != "docker":
            near = did_you_mean(name, installed)
            yield f"it allows executor {plain(name)}, which is not installed{near}"
    for gate, user in (("setup", policy.setup.user), ("checks", policy.checks.user)):
        try:
            if user:
                account(user)
        except LookupError as error:
            yield f"{gate}.user: {error}"
    for section in policy.sections.values():
        yield from getattr(section, "doubts", tuple)()


def _convert(value: Any, kind: type[Any], path: str, found: list[Problem]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, SkedError, ValueError) as error:  # what a struct checks of itself
        text, _, inner = str(error).partition(" - at `$")
        below = inner.rstrip("`").removeprefix("" if path else ".")
        found.append(Problem(path + plain(below), plain(text)))
        return None


def _kinds(plugins: Plugins) -> Mapping[str, type[Any] | None]:
    """The type of each installed executor's section; None for one that has no section, or can't be made."""
    context = ExecutorContext(host="", store_uid="", state_dir=Path(os.devnull))
    kinds: dict[str, type[Any] | None] = {}
    for name in plugins.names("executor"):
        try:
            executor = asked.executor(plugins, name, context)
            kinds[name] = executor.policy_type if isinstance(executor, Policed) else None
        except SkedError:
            kinds[name] = None
    return kinds


def _no_section(name: str, kinds: Mapping[str, type[Any] | None]) -> str:
    if name in kinds:
        return f"executor {name} takes no settings here (`sked plugins` tells whether it is broken)"
    if (hint := install_hint("executor", name)).startswith("pip install sked-"):
        return f"executor {name} is not installed on this host: {hint}, or take its section out"
    known = [*_OWN, *(one for one, kind in kinds.items() if kind is not None)]
    near = did_you_mean(name, known) or "; known are " + ", ".join(known)
    return f"{UNKNOWN_FIELD}, and no executor of that name is installed on this host{near}"


def trusted(path: Path) -> bytes:
    """The content of a file that a policy names, which nobody else may have written either. Raises InvalidConfig."""
    return _read(path.absolute())


# --- the file itself ---------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    """The content of a file that nobody can have written but root and this process's user. Raises InvalidConfig."""
    try:
        with os.fdopen(open_trusted(path), "rb") as stream:
            return stream.read(yaml_source.MAX_BYTES + 1)
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> InvalidConfig:
    shown = plain(str(path))
    if path.is_symlink():
        return InvalidConfig(f"{shown} is a symbolic link: name the file itself")
    return InvalidConfig(
        f"policy {shown} can't be read: {error.strerror}", hint=f"--policy {DEVELOPMENT} needs no file"
    )
