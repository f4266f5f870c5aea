"""The ``sked`` command: a thin group whose commands live in their own modules and are imported when they are used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sked_core.client.notices import noticed
from sked_core.surface.options import Flags, give_global_options, global_options
from sked_core.surface.own_output import own_output

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "run": ("run", "Run an agent, a scheduler, or both."),
        "agent": ("run", "The same as `run agent`."),
        "scheduler": ("run", "The same as `run scheduler`."),
        "combined": ("run", "The same as `run combined`."),
        "init": ("init", "Write a hello-world manifest."),
        "doctor": ("doctor", "Look for the commonest faults of an installation, and say what to do about each."),
    },
    "Change": {
        "validate": ("apply", "Check manifests and report every mistake."),
        "plan": ("plan", "Say what an apply would change, and where every task would go."),
        "apply": ("apply", "Declare what manifests say."),
        "scale": ("scale", "Change how many tasks of a service should run."),
        "rebalance": ("rebalance", "Move tasks to where they had better run, after a look at what that gains."),
        "restart": ("restart", "Restart a task where it is, or all tasks of a service step by step."),
        "stop": ("restart", "Stop a task for good; another one takes its place if that is still wanted."),
        "rollout": ("rollout", "Look at a service's roll-outs; pause, promote, undo them."),
        "delete": ("delete", "Remove a service, cluster or task definition."),
    },
    "Look": {
        "status": ("status", "Show how all of it is, and whether it survives the loss of a host."),
        "tasks": ("listing", "List tasks."),
        "services": ("listing", "List services, and why tasks of them wait."),
        "clusters": ("listing", "List clusters."),
        "hosts": ("listing", "List hosts."),
        "top": ("top", "Show hosts or tasks by what is reserved."),
        "describe": ("describe", "Show all there is to know of one service, host, task, …"),
        "simulate": ("simulate", "Say where everything would go if hosts were lost, services larger, and the like."),
        "explain": ("explain", "Say why tasks are where they are, why others wait, and what would help."),
        "logs": ("afar", "Show what a task wrote, or all tasks of a service, wherever they run."),
        "why": ("why", "Tell the story of a task, dead or alive, and what to do next."),
        "replay": ("replay", "Run decisions again, by the same scheduler or another one."),
        "events": ("events", "Show what was decided and what happened, and why."),
    },
    "Hosts": {
        "cordon": ("marks", "Place no further tasks on hosts."),
        "uncordon": ("marks", "Place tasks on hosts again."),
        "drain": ("marks", "Move all tasks away from hosts."),
    },
    "Tasks": {
        "exec": ("afar", "Run a command in a task, wherever it runs."),
        "report": ("report", "Called by a task with a ttl check: say that it is well."),
    },
    "Operate": {
        "state": ("state", "Look at keys, check them all, dump and restore."),
        "schema": ("about", "Print the JSON Schema of manifests."),
        "policy": ("policy", "Say what a host's policy allows, and what it would deny of manifests."),
        "signing": ("signing", "Make keys that task records are signed with, and sign one by hand."),
        "locks": ("operating", "List the locks of services that are held, by whom and since when."),
        "config": ("operating", "Show each setting, and where it is from."),
        "plugins": ("about", "List plugins and what they offer."),
        "completion": ("completion", "Print what makes a shell complete commands, options and live names."),
        "version": ("about", "Print the version."),
    },
}
OF_PACKAGES = {
    "web": ("sked-web", "Serve the API, and the page in a browser."),
    "prometheus": ("sked-prometheus", "Have Prometheus find tasks."),
    "notify": ("sked-notify", "Look at the webhooks that are told of events, and try them."),
    "compose": ("sked-compose", "Turn docker compose files into manifests."),
}
"""Commands that packages of this project add: shown in the help though plugins are not loaded for it."""
_COMMANDS = {name: place for section in SECTIONS.values() for name, place in section.items()}


class ReaderLeft(Exception):
    """Whoever read standard output has seen enough. Of a BrokenPipeError click itself would make exit code 1."""


class LazyGroup(click.Group):
    """Knows its commands by name and summary; imports a module once one of its commands is called.

    A name that is not among them may be a plugin's: only then are plugins loaded.
    """

    _whose: Mapping[str, str] = {}
    """The plugin of each command that is not Sked's own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *sorted(name for name in self.commands if name not in _COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module = importlib.import_module(f"sked_core.surface.commands.{_COMMANDS[cmd_name][0]}")
            command: click.Command = getattr(module, cmd_name)
            return command
        if cmd_name not in self.commands:
            from sked_core.runtime.plugins.registry import Plugins
            from sked_core.surface.options import settings_of

            self._whose = {**self._whose, **Plugins.load(settings_of(ctx).plugins).add_commands(self)}
        return self.commands.get(cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by what is known of them here: no module is imported for its summary."""
        from click.shell_completion import CompletionItem

        known = {name: summary for section in SECTIONS.values() for name, (_, summary) in section.items()}
        known |= {name: summary for name, (_, summary) in OF_PACKAGES.items()}
        found = [CompletionItem(name, help=known[name]) for name in known if name.startswith(incomplete)]
        if not found and incomplete and not incomplete.startswith("-"):
            self.get_command(click.Context(self), incomplete)  # has plugins add theirs
            found = [CompletionItem(name) for name in self.commands if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """For plugins; the names of Sked's own commands are taken. Raises PluginError."""
        if (name or cmd.name) in _COMMANDS:
            from sked_core.errors import PluginError

            raise PluginError(f"command {name or cmd.name} is one of Sked's own")
        give_global_options(cmd)
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        ctx.ensure_object(Flags)  # which commands of plugins get as their Invocation
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderLeft from None
        except Exception as error:
            self._name(ctx.invoked_subcommand or "", error)
            raise

    def _name(self, command: str, error: Exception) -> None:
        """Raise PluginError instead where a bug in the command of a plugin would pass for one of Sked."""
        from sked_core.errors import PluginError, SkedError

        meant = SkedError, OSError, click.ClickException, click.exceptions.Exit, click.Abort
        if command in self._whose and not isinstance(error, meant):
            from sked_core.runtime.plugins.loading import described

            what = f"command {command} of {self._whose[command]} failed: {described(error)}"
            raise PluginError(what, hint="for the traceback: SKED_DEBUG=1 sked …") from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if ctx.resilient_parsing:  # a shell completes, and wants no words
            return super().resolve_command(ctx, args)
        if args and args[0] not in _COMMANDS:
            _look_ahead(ctx, args)
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from sked_core.model.spec import did_you_mean

            if args[0] in OF_PACKAGES:
                ctx.fail(f'no command "{args[0]}": the package {OF_PACKAGES[args[0]][0]} brings it')
            ctx.fail(f'no command "{args[0]}"{did_you_mean(args[0], self.list_commands(ctx))}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, summary) for name, (_, summary) in section.items()])
        with formatter.section("With packages of their own"):
            rows = [(name, f"{summary} ({package})") for name, (package, summary) in OF_PACKAGES.items()]
            formatter.write_dl(rows)


def _look_ahead(ctx: click.Context, args: Sequence[str]) -> None:
    """Know the configuration file that stands behind a command of a plugin: it says which plugins may be imported, and
    without them nobody knows what else that command takes."""
    flags = ctx.find_root().ensure_object(Flags)
    for word, value in zip(args, [*args[1:], ""], strict=True):
        if word == "--":
            break
        if word == "--config" or word.startswith("--config="):
            flags.config = value if word == "--config" else word.partition("=")[2]


cli = LazyGroup(
    "sked",
    params=global_options(),
    help="Run containers and processes on a group of hosts.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _note(text: str) -> None:
    from sked_core.surface.render import note

    note(text)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script: runs one command and exits with its code."""
    code = run(args)
    loading = sys.modules.get("sked_core.runtime.plugins.loading")
    if loading is not None:
        from sked_core.surface.stragglers import bound_end, leave

        if loading.leaked:
            leave(code, loading.leaked, seconds=0.0)
        bound_end(code)
    sys.exit(code)


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code, having printed what went wrong."""
    try:
        with noticed(_note), own_output():
            result: Any = cli.main(args, prog_name="sked", standalone_mode=False)
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
    except (BrokenPipeError, ReaderLeft):
        # The reader has seen enough. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last place where anything can be turned into a message
        from sked_core.surface.errors import report

        return report(error)
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
