"""The program `localapi` and its commands.

Exit status: 0 success, 1 errors (one line each), 2 wrong usage, 130 interrupted by Ctrl-C. Commands that run until they
are stopped (`serve`, `chat`, `models --watch`) return 0 after Ctrl-C.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Final

import click
from click.shell_completion import CompletionItem

import localapi
from localapi.errors import ManifestError, OperatorError

SECTIONS: Final = {
    "Server": {
        "serve": "Serve the models in the manifest, and apply its changes while running.",
        "service": "Run the server as a system service.",
        "doctor": "Check what works on this machine, what is missing, and how to fix it.",
    },
    "Manifest": {
        "init": "Create a models.yaml in FOLDER, or in the current folder.",
        "check": "Check a manifest, and show what it would change.",
        "plan": "Show what an edit of the manifest would change on the running server.",
        "add": "Add a model to the manifest.",
        "rm": "Remove a model from the manifest.",
        "profile": "Show the profiles of a running server, or switch to one.",
        "schema": "Print the JSON Schema of models.yaml and of profiles.",
    },
    "Use": {
        "models": "Show the models of a running server.",
        "chat": "Chat with a model of a running server.",
        "launch": "Start an agent, such as Claude Code, that uses a model of the server.",
        "say": "Speak TEXT, or standard input if TEXT is - or omitted.",
        "transcribe": "Transcribe audio and video files.",
        "bench": "Measure the speed of a model on a running server.",
    },
    "Downloads": {
        "search": "Search the Hugging Face Hub for models; MLX models come first.",
        "ls": "List the downloaded models: size, last use, and the entries that use them.",
        "pull": "Download a model from the Hugging Face Hub, or all models in the manifest.",
        "install": "Install the environment of a backend.",
    },
    "Shell": {
        "completion": "Print a completion script for bash, zsh or fish.",
    },
}
COMMANDS: Final = {name: text for section in SECTIONS.values() for name, text in section.items()}
"""Commands by section. Each is `command` in the file of its name, imported only when it is called, so that the program
starts quickly."""


def command_named(name: str) -> click.Command:
    """Return one of COMMANDS."""
    command: click.Command = import_module(f"localapi.cli.{name}").command
    return command


class Commands(click.Group):
    """Command group whose default is `serve`: `localapi --port 9000` means `localapi serve --port 9000`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "serve":
            # A service may be told to reload right after its start, when the manifest is read anyway. Later, app
            # handles the signal.
            signal.signal(signal.SIGHUP, lambda *_: None)
        return command_named(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, COMMANDS))
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(widest), text) for name, text in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands without importing them, and the options of `serve`, which needs no name."""
        if not incomplete.startswith("-"):
            return [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        serve = command_named("serve")
        return [
            *super().shell_complete(ctx, incomplete),
            *serve.shell_complete(click.Context(serve, parent=ctx, resilient_parsing=True), incomplete),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:
            return super().parse_args(ctx, args)  # nothing typed yet that a shell could complete for `serve`
        named = args[:1] and (args[0] in COMMANDS or args[0] in ("--help", "-h", "--version"))
        if args and not named and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise click.UsageError(f"There is no command {args[0]!r}{hint}", ctx)
        return super().parse_args(ctx, args if named else ["serve", *args])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(localapi.__version__, prog_name="localapi")
def cli() -> None:
    """Run a local model server that follows one file, models.yaml.

    The default command is serve; `localapi serve --help` lists its options.
    """


def _prepare_streams() -> None:
    """Open closed standard streams on /dev/null, so that no socket gets one of their numbers.

    Characters that the terminal's encoding lacks, such as ✓ in Latin-1, are printed as ? instead of raising an error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def main() -> None:
    """Run the program `localapi`."""
    _prepare_streams()
    try:
        sys.exit(cli.main(prog_name="localapi", standalone_mode=False))  # None is 0; click gives what `Exit` says
    except BrokenPipeError:  # such as `localapi models | head -1`: nobody reads on
        _forget_output()
        sys.exit(1)
    except OSError as error:
        if not (words := _told(error)):
            raise
        _forget_output()
        click.echo(f"localapi: {words}", err=True)
        sys.exit(1)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ManifestError as error:
        count = len(error.problems)
        for problem in error.problems:
            click.echo(problem, err=True)
        if count > 1:
            click.echo(f"localapi: {count} problems in the manifest", err=True)
        sys.exit(1)
    except OperatorError as error:
        click.echo(f"localapi: {error}", err=True)
        sys.exit(1)


def _told(error: OSError) -> str:
    """Describe an error that any command may meet (no space for the output, no current folder); otherwise return ""."""
    if error.errno == errno.ENOSPC:
        return f"the output is incomplete: {error.strerror}"
    try:
        os.getcwd()
    except OSError:
        return "the current folder no longer exists; change to another one"
    return ""


def _forget_output() -> None:
    """Discard the remaining output, which Python would try to write again on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
