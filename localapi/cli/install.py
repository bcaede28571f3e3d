"""`localapi install`: install the environments that some backends need."""

from __future__ import annotations

import json

import click

from localapi import environments
from localapi.cli.text_table import room, table


@click.command("install")
@click.argument("name", required=False, metavar="[NAME]", type=click.Choice(environments.NAMES))
@click.option("--force", is_flag=True, help="Reinstall it if it is already installed.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable list; only without NAME.")
def command(name: str | None, *, force: bool, as_json: bool) -> None:
    """Install the environment of a backend, such as mlx-audio or faster-whisper.

    Without NAME, list all environments and whether they are installed.
    """
    if name is None:
        known = [environments.Environment.named(each) for each in environments.NAMES]
        if as_json:
            listed = [{"name": each.name, "installed": each.ready, "folder": str(each.folder)} for each in known]
            click.echo(json.dumps(listed, indent=2))
            return
        rows = [[each.name, "installed" if each.ready else "missing", str(each.folder)] for each in known]
        for line in table(["environment", "state", "folder"], rows, width=room()):
            click.echo(line)
        return
    if as_json:
        raise click.UsageError("--json is for the list; omit NAME")
    environment = environments.Environment.named(name)
    environments.install(environment, lambda line: click.echo(line, err=True), force=force)
    for other in environment.others():
        click.echo(f"unused by this version of localapi; can be deleted: {other}", err=True)
