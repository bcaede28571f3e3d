"""`localapi completion`: a shell script that completes the commands of this program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_LOCALAPI_COMPLETE"
"""Variable that the script sets when it calls the program; click derives its name from the program's."""


@click.command("completion")
@click.argument("shell", required=False, type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str | None) -> None:
    """Print a completion script for bash, zsh or fish; by default for the current shell.

    \b
    bash   eval "$(localapi completion bash)"                  in ~/.bashrc
    zsh    eval "$(localapi completion zsh)"                   in ~/.zshrc, after compinit
    fish   localapi completion fish > ~/.config/fish/completions/localapi.fish
    """  # noqa: D301  # click keeps the line breaks of a paragraph after this character
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise click.UsageError(f"name the shell: {', '.join(SHELLS)}")
    completion = get_completion_class(name)
    assert completion is not None  # noqa: S101  # click knows these shells
    click.echo(completion(ctx.find_root().command, {}, "localapi", VARIABLE).source())
