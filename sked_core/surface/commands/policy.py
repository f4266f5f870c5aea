"""``sked policy``: what a host allows, and what it would say of manifests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sked_core.surface.options import command, current_settings, files_option, global_options, installed, output_option

if TYPE_CHECKING:
    from sked_core.runtime.agent.policy_file import HostPolicy
    from sked_core.runtime.plugins.registry import Plugins

policy = click.Group("policy", params=global_options(), help="What tasks may do on a host, by its policy.")
_NAMED = {"metavar": "FILE|development", "help": "Another one than the agent of this host would have."}


@command("test", "sked policy test -f web.yml", "sked policy test -f web.yml --policy policy.yml -o json")
@files_option()
@click.option("--policy", "named", **_NAMED)  # type: ignore[arg-type]
@output_option
def test(files: Sequence[str], named: str | None, output: str) -> int:
    """Say of each container whether the policy would let it start, or each gate that would not, and the line to add.

    Judged as an agent on this machine would judge that runs as who asks, without any store. Ends with 7 where anything
    is denied.
    """
    from sked_core.client import outcomes
    from sked_core.client.acting.declaring import validate
    from sked_core.client.looking.permitting import together, verdicts
    from sked_core.model.spec import plain
    from sked_core.runtime.sources import load_sources
    from sked_core.surface.render import emit, note, out

    plugins = installed()
    found = _load(named, plugins)
    _doubt(found, plugins)
    manifest = validate(load_sources(files, sys.stdin.buffer), plugins)
    said = verdicts(manifest, found.policy, plugins, address=current_settings().file.address or "")
    denied = [one for verdict in said for one in verdict.denials]
    if output == "json":
        emit("PolicyVerdictList", [one.json() for one in said])
        return outcomes.DENIED if denied else 0
    note(f"sked: {found.line()}")
    for one in said:
        who = f" as {one.service}" + (f" in {one.cluster}" if one.cluster else "") if one.service else ""
        out(f"{plain(one.of)}{plain(who)}: {'denied' if one.denials else 'allowed'}")
        for denial in one.denials:
            out(f"  {denial.gate}: {plain(denial.what)}")
            out(f"    add  {plain(denial.line)}")
    if denied:
        from sked_core.surface.render import in_yaml

        note("to allow all of it, add")
        out(in_yaml(together(denied)))
    return outcomes.DENIED if denied else 0


@command("show", "sked policy show", "sked policy show --policy policy.yml -o json")
@click.option("--policy", "named", **_NAMED)  # type: ignore[arg-type]
@output_option
def show(named: str | None, output: str) -> None:
    """Show what holds: every key of the policy, those that it leaves out with their defaults."""
    import msgspec

    from sked_core.runtime.agent.policy_file import with_defaults
    from sked_core.surface.render import emit, in_yaml, note, out

    plugins = installed()
    found = _load(named, plugins)
    whole = msgspec.to_builtins(with_defaults(found.policy, plugins))
    said = {**{name: value for name, value in whole.items() if name != "sections"}, **whole["sections"]}
    if output == "json":
        return emit("Policy", [{"from": found.line(), "policy": said}])
    note(f"sked: {found.line()}")
    return out(in_yaml(said))


@command("check", "sked policy check /etc/sked/policy.yml")
@click.argument("file", metavar="[FILE]", default="")
def check(file: str) -> None:
    """Read a policy as an agent would that runs as who asks, and say what is wrong with it. Exit code 3 where it is."""
    from sked_core.surface.render import note

    plugins = installed()
    found = _load(file or None, plugins)
    _doubt(found, plugins)
    note(f"valid: {found.line()}")


def _doubt(found: HostPolicy, plugins: Plugins) -> None:
    from sked_core.runtime.agent.policy_file import doubts
    from sked_core.surface.render import note

    for doubt in doubts(found.policy, plugins):
        note(f"warning: {doubt}")


def _load(named: str | None, plugins: Plugins) -> HostPolicy:
    from sked_core.runtime.agent.policy_file import load

    said = current_settings().policy
    return load(named, plugins) if named else load(said.value, plugins, named_in=said.file)


for _one in (test, show, check):
    policy.add_command(_one)
