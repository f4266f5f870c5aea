"""What every command shares: the global options, before or behind the command's name, and the way to the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sked_core.surface import completing

if TYPE_CHECKING:
    from sked_core.client.session import Session
    from sked_core.client.settings import Settings
    from sked_core.interfaces.invocation import Reading
    from sked_core.interfaces.store import Store
    from sked_core.runtime.plugins.registry import Plugins

COLLECT_EVERY = 200_000
"""New objects: what commands read stays until they end, and looking for rubbish among it takes up to a third longer."""
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Flags:
    """Global options as given on the command line; None where they were not."""

    backend: str | None = None
    prefix: str | None = None
    config: str | None = None

    @contextmanager
    def store(self) -> Iterator[Store]:
        """For commands of plugins: see Invocation."""
        with session(self.settings()) as opened:
            yield opened.store

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """The same."""
        from sked_core.surface.for_plugins import SessionReading

        with session(self.settings()) as opened:
            yield SessionReading(opened)

    def settings(self) -> Settings:
        """What they come to. Raises InvalidManifest for a bad configuration file."""
        from sked_core.client.settings import resolve

        return resolve(backend=self.backend, prefix=self.prefix, config=self.config)


def _remember(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None and param.name is not None:
        setattr(ctx.find_root().ensure_object(Flags), param.name, value)


def global_options() -> list[click.Parameter]:
    """Fresh parameters for one command. The one nearest to the end of the line wins."""
    options = {
        "--backend": ("URL", "Store: consul://127.0.0.1:8500, sqlite:///absolute/path.db, … [env: SKED_BACKEND]"),
        "--prefix": ("TEXT", "Put all keys of the store below this one. [env: SKED_PREFIX]"),
        "--config": ("FILE", "Settings in TOML, before /etc/sked/sked.toml. [env: SKED_CONFIG]"),
    }
    return [
        click.Option([name], metavar=metavar, help=text, expose_value=False, callback=_remember)
        for name, (metavar, text) in options.items()
    ]


def give_global_options(command: click.Command) -> None:
    """Have a plugin's command, and all below it, take ``--backend`` and the like behind its name as well."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            give_global_options(inner)
        return
    taken = {name for param in command.params for name in (*param.opts, param.name)}
    command.params += [one for one in global_options() if not taken.intersection((*one.opts, one.name))]


class Command(click.Command):
    """A command that takes the global options as well. ``examples``: command lines that its help shows, each with what
    it does behind a ``#`` where that is not plain."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options()
        self.examples = tuple(examples)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The whole first sentence: lists of commands have more than one line for it."""
        return super().get_short_help_str(max(limit, 1000))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in self.examples))


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], Command]:
    """Decorator: make a function a command of this name; ``examples``: see Command."""
    return click.command(name, cls=Command, examples=examples)


def output_option(function: F) -> F:
    """``-o table|json|jsonl|yaml``, handed over as ``output``: table, or json for any format that programs read."""
    return _output("table", "json", "jsonl", "yaml")(function)


def listing_option(function: F) -> F:
    """``-o table|wide|json|jsonl|yaml|name``, handed over as ``output``: table, wide, name, or json for the rest."""
    return _output("table", "wide", "json", "jsonl", "yaml", "name")(function)


def _output(*formats: str) -> Callable[[F], F]:
    from sked_core.surface.render import choose

    kind = click.Choice(formats)
    return click.option(
        "-o", "--output", type=kind, callback=choose, default="table", help="How to print.", show_default=True
    )


def by_option(kind: str, text: str) -> Callable[[F], F]:
    """``--by-KIND``, handed over as ``by_KIND``; empty where it was not given."""
    names, metavar = completing.NAMES[kind], "ID" if kind == "task" else kind.upper()
    return click.option(f"--by-{kind}", metavar=metavar, shell_complete=names, default="", help=text)


def watch_option(function: F) -> F:
    """``-w``, handed over as ``watch``; see ``watching``."""
    return click.option("-w", "--watch", is_flag=True, help="Go on showing what changes, until Ctrl-C.")(function)


def files_option(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``-f``, handed over as ``files``."""
    text = "File, folder, or - ; repeatable."
    return click.option("-f", "--file", "files", metavar="FILE", multiple=True, required=required, help=text)


def timeout_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--timeout``, handed over as seconds."""
    return click.option(
        "--timeout", default=default, callback=duration, help="How long to wait at most.", show_default=True
    )


def duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Callback of an option: its seconds, or None where it was not given."""
    return None if value is None else seconds(value)


def seconds(text: str) -> float:
    """Seconds of ``10s``, ``1m30s``. Raises click.BadParameter."""
    from sked_core.errors import InvalidValue
    from sked_core.model.duration import to_seconds

    try:
        return to_seconds(text)
    except InvalidValue as error:
        raise click.BadParameter(str(error)) from None


def current_settings() -> Settings:
    """The settings of this invocation. Raises InvalidManifest for a bad configuration file."""
    return settings_of(click.get_current_context())


def settings_of(ctx: click.Context) -> Settings:
    """The settings of the command line that ``ctx`` belongs to. Raises InvalidManifest."""
    return ctx.find_root().ensure_object(Flags).settings()


def installed() -> Plugins:
    """The plugins that the settings of this invocation allow. See ``load_plugins``."""
    from sked_core.client.session import load_plugins

    return load_plugins(current_settings())


@contextmanager
def session(settings: Settings | None = None, *, required: bool = False) -> Iterator[Session]:
    """Open the store of this invocation, or of ``settings``, for whoever types. See ``open_session``."""
    import gc

    gc.set_threshold(COLLECT_EVERY)
    from sked_core.client.identity import by_whom
    from sked_core.client.session import open_session

    with open_session(settings or current_settings(), by_whom(), required=required) as opened:
        yield opened
