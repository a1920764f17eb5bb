"""`plumb completion`: the script that a shell sources."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

COMPLETION_VARIABLE = "_PLUMB_COMPLETE"  # click's own way of being asked for completions


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Examples:
      plumb completion bash > /etc/bash_completion.d/plumb
      plumb completion zsh > ~/.zfunc/_plumb
      plumb completion fish > ~/.config/fish/completions/plumb.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "plumb", COMPLETION_VARIABLE).source())
