"""``sked run agent|scheduler|combined`` and its aliases."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sked_core.surface.options import Command, global_options, seconds

if TYPE_CHECKING:
    from sked_core.client.settings import ConfigFile, Setting, Settings
    from sked_core.serving.listening import Listen

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
DEFAULT_LOST_AFTER = "60s"


def _together(*decorators: Decorator) -> Decorator:
    """All of them as one; options stand in this order in the help."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return add


def _tags(_ctx: click.Context, _param: click.Parameter, value: Sequence[str]) -> dict[str, str]:
    pairs = [tag.partition("=") for tag in value]
    wrong = [tag for tag, (name, equals, _) in zip(value, pairs, strict=True) if not equals or not name]
    if wrong:
        raise click.BadParameter(f'expected NAME=VALUE, got "{wrong[0]}"')
    return {name: text for name, _, text in pairs}


_agent_options = _together(
    click.option("--host", metavar="NAME", help="This host's name in Sked. Default: the machine's host name."),
    click.option("--address", metavar="ADDR", help="Where others reach this host. Default: found out."),
    click.option("--state-dir", metavar="DIR", help="Logs and notes of the agent. Default: beside the user's state."),
    click.option(
        "--policy",
        metavar="FILE|development",
        help="What tasks may do here; development: anything, on a machine of your own. Default: "
        "/etc/sked/policy.yml; without that file unprivileged docker containers only. [env: SKED_POLICY]",
    ),
    click.option("--tag", "tags", metavar="K=V", multiple=True, callback=_tags, help="Say more of this host."),
    click.option("--allow-executor", "allow_executors", metavar="X", multiple=True, help="Run these types only."),
    click.option("--allow-cluster", "allow_clusters", metavar="X", multiple=True, help="Run these clusters only."),
    click.option("--max-tasks", type=click.IntRange(min=1), help="Most tasks at once. Default: no limit."),
    click.option("--memory", metavar="SIZE", help="What tasks may use together, such as 4g. Default: all."),
    click.option("--cpu", metavar="CORES", help="Cores that tasks may use together. Default: all."),
    click.option("--disk", metavar="SIZE", help="Disk that tasks may use together. Default: all."),
    click.option("--port-range", metavar="A-B", help="Ports for tasks that get one. Default: 20000-29999."),
    click.option(
        "--accept-store", is_flag=True, help="Go on with a store that is not the one known (wiped or restored)."
    ),
)


_scheduler_options = _together(
    click.option(
        "--lost-after",
        metavar="TIME",
        help=f"Replace the tasks of a host whose agent was not heard of for so long. Default: {DEFAULT_LOST_AFTER}.",
    ),
    click.option("--shadow", metavar="NAME", help="Ask this scheduler as well, and tell where it would differ."),
    click.option(
        "--signing-key", metavar="FILE", help="Sign what is issued with this key. Default: nothing is signed."
    ),
)


_serving_options = _together(
    click.option(
        "--listen",
        metavar="HOST:PORT",
        help="Serve /metrics and /healthz there, an agent also logs and exec. Default: nowhere; an agent's own "
        "machine reaches it by a socket anyway.",
    ),
    click.option("--tokens", metavar="FILE", help="Who may ask: lines of NAME ROLE TOKEN."),
    click.option("--tls-cert", metavar="FILE", help="Certificate of the server, in PEM."),
    click.option("--tls-key", metavar="FILE", help="Its key."),
    click.option("--allow-host", "allow_hosts", metavar="NAME", multiple=True, help="Answer by this name as well."),
)


def _listen(options: Mapping[str, Any], file: ConfigFile) -> Listen | None:
    """Where to serve HTTP, by flags and files; None where that was not said."""
    address = options.get("listen") or file.listen
    if not address:
        return None
    from sked_core.serving.listening import Listen

    def path(name: str) -> Path | None:
        said = options.get(name) or getattr(file, name)
        return Path(said).absolute() if said else None

    hosts = tuple(options.get("allow_hosts") or file.allow_hosts or ())
    return Listen(address, path("tokens"), path("tls_cert"), path("tls_key"), hosts)


_logging = _together(
    click.option("-v", "--verbose", is_flag=True, help="Log what was decided and why."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        envvar="SKED_LOG_FORMAT",
        help="Log for people, or one JSON object per line. Default: text. [env: SKED_LOG_FORMAT]",
    ),
)


def _command(name: str, roles: Sequence[str], text: str, options: Sequence[Decorator], *examples: str) -> Command:
    def function(verbose: bool, **options: Any) -> int:
        return _run(roles, options, verbose)

    of_all = _together(*options, _serving_options, _logging)
    return click.command(name, cls=Command, help=text, examples=examples)(of_all(function))


agent = _command(
    "agent",
    ("agent",),
    "Run the agent of this host: it starts and stops the host's tasks.",
    [_agent_options],
    "sked run agent --backend consul://127.0.0.1:8500",
    "sked run agent --tag rack=r7 --memory 8g --policy /etc/sked/policy.yml",
)
scheduler = _command(
    "scheduler",
    ("scheduler",),
    "Run a scheduler; any number of them share the work.",
    [_scheduler_options],
    "sked run scheduler --backend consul://127.0.0.1:8500",
)
combined = _command(
    "combined",
    ("agent", "scheduler"),
    "Run an agent and a scheduler in one process.",
    [_agent_options, _scheduler_options],
    "sked run combined --policy development  # all that one's own machine needs",
)

run = click.Group(
    "run",
    help="Run an agent, a scheduler, or both.",
    commands=[agent, scheduler, combined],
    params=global_options(),
    no_args_is_help=True,
)


def _granted(options: Mapping[str, Any], file: ConfigFile) -> dict[str, Any]:
    """What of the machine is for tasks, as fields of ``AgentSettings``; what was not said is not in it."""
    from sked_core.errors import InvalidValue
    from sked_core.model.amount import to_cpu_units, to_mb, to_port_range

    granted: dict[str, Any] = {}
    parsers = {"memory": to_mb, "cpu": to_cpu_units, "disk": to_mb, "port_range": to_port_range}
    for name, parse in parsers.items():
        said = options.get(name) if options.get(name) is not None else getattr(file, name)
        try:
            if said is not None:
                granted["cpu_units" if name == "cpu" else name] = parse(str(said))
        except InvalidValue as error:
            raise click.BadParameter(str(error), param_hint=f"--{name.replace('_', '-')}") from None
    return granted


def _policy(options: Mapping[str, Any], settings: Settings) -> Setting:
    from sked_core.client.settings import Setting

    named = options.get("policy")
    if named == "":
        raise click.BadParameter("expected a file, or development", param_hint="--policy")
    return Setting(named, f"--policy {named}") if named else settings.policy


def _run(roles: Sequence[str], options: dict[str, Any], verbose: bool) -> int:
    """Settings from flags and files, then the loops until a signal; returns the exit code."""
    from sked_core.client.settings import own_state_dir
    from sked_core.runtime.agent.host_ports import own_address
    from sked_core.runtime.agent.settings import AgentSettings
    from sked_core.surface.options import current_settings
    from sked_core.surface.processes import Options, run_roles
    from sked_core.surface.stragglers import leave_stragglers

    settings = current_settings()
    file = settings.file
    lost_after = options.get("lost_after") or file.lost_after or DEFAULT_LOST_AFTER
    allow_executors = options.get("allow_executors") or file.allow_executors
    allow_clusters = options.get("allow_clusters") or file.allow_clusters
    signing_key = options.get("signing_key") or file.signing_key
    host = options.get("host") or file.host or socket.gethostname()
    state_dir = options.get("state_dir") or file.state_dir or ""
    if not state_dir and "agent" in roles:  # a scheduler alone may be run by who has no home
        state_dir = own_state_dir(settings, host)
    agent = AgentSettings(
        host=host,
        address=options.get("address") or file.address or own_address(),
        state_dir=Path(state_dir).absolute(),
        tags=(file.tags or {}) | options.get("tags", {}),
        allow_executors=frozenset(allow_executors) if allow_executors else None,
        allow_clusters=frozenset(allow_clusters) if allow_clusters else None,
        max_tasks=options.get("max_tasks") or file.max_tasks or 0,
        **_granted(options, file),
        accept_store=options.get("accept_store", False),
    )
    chosen = Options(
        agent=agent,
        policy=_policy(options, settings),
        lost_after=seconds(lost_after),
        shadow=options.get("shadow") or "",
        signing_key=Path(signing_key).absolute() if signing_key else None,
        listen=_listen(options, file),
        verbose=verbose,
        log_format=options.get("log_format") or file.log_format or "text",
    )
    code = run_roles(roles, settings, chosen)
    leave_stragglers(code)
    return code
