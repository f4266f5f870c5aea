"""``sked completion``: what a shell has to be told to complete command lines."""

from __future__ import annotations

import click

from sked_core.surface.options import command
from sked_core.surface.render import out


@command(
    "completion",
    "sked completion bash > ~/.local/share/bash-completion/completions/sked",
    "sked completion zsh > ~/.zfunc/_sked  # with fpath+=~/.zfunc before compinit in ~/.zshrc",
    "sked completion fish > ~/.config/fish/completions/sked.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, and names as they are in the store.

    Names are those of services, tasks, hosts, clusters and task definitions. Where the store does not answer, they are
    not completed. For this shell alone:  source <(sked completion bash)
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    made = kind(root, {}, "sked", "_SKED_COMPLETE")
    out((made.source_template % made.source_vars()).strip())
