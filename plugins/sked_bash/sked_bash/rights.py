"""What tasks may do on this host, and as whom: the policy's section ``bash``, and how it is judged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from sked_bash.spec import BashSpec, env_names
from sked_core.plugin import Account, Denial, Rejected, account, own_account

ANYONE = "*"


class BashPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``bash`` of a host's policy. What it does not say is denied."""

    run_as: str = ""
    """The user that tasks run as which ask for none. An agent that is not root runs them as its own user."""
    users: list[str] = []
    """Who else a task may ask for (`user`); `*`: anybody but root."""
    root: bool = False
    """Tasks may run as root."""
    env_deny: list[str] = msgspec.field(
        default_factory=lambda: ["LD_*", "BASH_ENV", "BASH_FUNC_*", "ENV", "IFS", "PS4", "PYTHON*"]
    )
    """Names of variables that no task may set; `*` stands for any characters."""
    new_privileges: bool = False
    """Tasks may gain rights by what they execute: `sudo`, setuid bits, file capabilities."""
    cgroups: Literal["auto", "required", "off"] = "auto"
    """Control groups, which limit memory, cpu and the number of processes: `auto` uses them where it can, `required`
    starts nothing without them."""

    @classmethod
    def development(cls) -> BashPolicy:
        """For a machine of one's own: as whoever runs the agent."""
        return cls(users=[ANYONE], root=True, env_deny=[], new_privileges=True)

    def doubts(self) -> list[str]:
        """Whom this host does not have."""
        named = [("run_as", self.run_as), *(("users", name) for name in self.users if name != ANYONE)]
        found = []
        for field, name in filter(lambda one: one[1], named):
            try:
                account(name)
            except LookupError as error:
                found.append(f"bash.{field}: {error}")
        return found


def denials(policy: BashPolicy, spec: BashSpec, provided: Iterable[str] = ()) -> list[Denial]:
    """All that ``policy`` does not allow of ``spec``, ``provided`` being the names of variables from elsewhere.

    A user that this host does not have is none of it: ``who`` tells."""
    found = []
    denied = [name for name in (*env_names(spec), *provided) if any(fnmatchcase(name, one) for one in policy.env_deny)]
    if denied:
        names = ", ".join(dict.fromkeys(name[:60] for name in denied))
        kept = [one for one in policy.env_deny if not any(fnmatchcase(name, one) for name in denied)]
        found.append(Denial("bash.env_deny", f"it sets {names}", f"bash: {{env_deny: [{', '.join(kept)}]}}"))
    wanted = spec.user or policy.run_as
    try:
        one = account(wanted) if wanted else own_account()
    except LookupError:
        return found
    if one.uid == 0:
        if not policy.root and not wanted:
            what = "the agent is root, and the policy names no user for tasks to run as"
            found.append(Denial("bash.run_as", what, "bash: {run_as: sked-tasks}"))
        elif not policy.root:
            found.append(Denial("bash.root", f"it would run as {one.name}, which is root", "bash: {root: true}"))
    if spec.user and not _asked_for(policy, one):
        what = f"it asks to run as {one.name}"
        found.append(Denial("bash.users", what, f"bash: {{users: [{', '.join([*policy.users, one.name])}]}}"))
    return found


def who(policy: BashPolicy, spec: BashSpec) -> Account:
    """Whom a task without denials runs as. Raises Rejected where this host can't do it."""
    wanted = spec.user or policy.run_as
    try:
        one = account(wanted) if wanted else own_account()
    except LookupError as error:
        raise Rejected(str(error)) from None
    mine = os.geteuid()
    if mine not in (0, one.uid):
        raise Rejected(f"the agent runs as {own_account().name}, and only as root could it run tasks as {one.name}")
    return one


def is_known(policy: BashPolicy, uid: int) -> bool:
    """Whether processes of user ``uid`` can be tasks of this agent."""
    if uid in (0, os.geteuid()) or ANYONE in policy.users:
        return True
    for name in filter(None, (policy.run_as, *policy.users)):
        try:
            if account(name).uid == uid:
                return True
        except LookupError:
            continue
    return False


def _asked_for(policy: BashPolicy, one: Account) -> bool:
    if one.uid == 0:
        return policy.root
    own = one.uid == os.geteuid()
    return own or one.name in (policy.run_as, *policy.users) or ANYONE in policy.users
