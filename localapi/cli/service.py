"""`localapi service`: let the system start the server and keep it running."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from localapi.cli.options import manifest_option, profile_option, server_of, server_options, source_of
from localapi.errors import CannotInstall
from localapi.manifest import read
from localapi.manifest.profiles import is_path
from localapi.service import Agent, system
from localapi.settings import Settings


@click.group("service")
def command() -> None:
    """Run the server as a system service: with launchd on macOS, systemd on Linux."""


@command.command("install")
@manifest_option
@profile_option
@server_options
@click.option(
    "--env", "names", multiple=True, metavar="NAME",
    help="Environment variable to pass on with its current value, such as HF_HOME or a key; can be repeated.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the files without writing them.")
def install(names: tuple[str, ...], *, dry_run: bool, **flags: Any) -> None:
    """Start the server now and at each login, and restart it after failures.

    It runs with this Python in the current folder. The values of --env are written to a file that only you can read.
    """
    settings = Settings.read(**flags)
    agent = Agent(_command(settings), Path.cwd(), _values(names))
    if not dry_run:
        read(source_of(settings))  # raises for anything that would prevent its start
        for line in system().install(agent):
            click.echo(line)
        click.echo(f"serving at {settings.address}/v1; check it with: localapi service status")
        return
    for path, text in system().files(agent).items():
        click.echo(f"# {path}")
        click.echo(text)


@command.command("uninstall")
def uninstall() -> None:
    """Stop the server and remove the service. The manifest and the models are kept."""
    there = system().uninstall()
    click.echo("uninstalled; the server has stopped" if there else "the service is not installed")


@command.command("status")
@server_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def status(*, as_json: bool, **flags: Any) -> None:
    """Show whether the service is installed and running. Exit status 1 if it is not running."""
    server = server_of(Settings.read(**flags))
    state = system().state()
    answers = server.is_there()
    if as_json:
        told = {"installed": state.installed, "running": state.running, "pid": state.pid, "says": state.words}
        click.echo(json.dumps({**told, "address": server.address, "answers": answers}))
    elif not state.installed:
        click.echo("the service is not installed; install it with: localapi service install")
    else:
        pid = f", process {state.pid}" if state.pid else ""
        click.echo(f"the service is installed: {state.words}{pid}")
        click.echo(f"{'a server responds' if answers else 'no server responds'} on {server.address}")
    if not state.running:
        sys.exit(1)


def _command(settings: Settings) -> list[str]:
    """Return a command that starts this server from any folder. Raise CannotInstall if its port is 0."""
    if settings.port == 0:
        raise CannotInstall("a service needs a fixed port; set one other than 0")
    words = [sys.executable, "-P", "-m", "localapi", "serve"]
    words += ["--host", settings.host, "--port", str(settings.port)]
    manifest = settings.manifest or Path("models.yaml")
    if settings.manifest is not None or manifest.exists():
        words += ["--manifest", str(manifest.absolute())]
    if settings.profile is not None:
        path = str(Path(settings.profile).absolute())
        words += ["--profile", path if is_path(settings.profile) else settings.profile]
    return words


def _values(names: tuple[str, ...]) -> dict[str, str]:
    """Return the values of the variables that are set. Raise CannotInstall if one cannot be passed on."""
    values: dict[str, str] = {}
    for name in names:
        if name in os.environ:
            values[name] = os.environ[name]
        else:
            click.echo(f"{name} is not set, so it is not passed on; set it and install again", err=True)
    odd = [name for name, value in values.items() if not value.isprintable()]
    if odd:
        raise CannotInstall(
            f"the value of {', '.join(odd)} is not text on one line (it has line breaks, control characters, or bytes "
            "that are not UTF-8), and cannot be passed on"
        )
    return values
