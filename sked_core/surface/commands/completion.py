"""``sked completion``: what a shell reads to complete commands, options and names."""

from __future__ import annotations

import click

from sked_core.surface.options import command
from sked_core.surface.render import out


@command(
    "completion",
    "sked completion bash > ~/.local/share/bash-completion/completions/sked",
    "sked completion zsh > ~/.zfunc/_sked  # where fpath has ~/.zfunc",
    "sked completion fish > ~/.config/fish/completions/sked.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what a shell is to read so that Tab completes what begins with sked."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    out(kind(click.get_current_context().find_root().command, {}, "sked", "_SKED_COMPLETE").source())
