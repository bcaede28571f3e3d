"""`localapi install`: the environments that some speech backends need."""

from __future__ import annotations

import click

from localapi import environments
from localapi.cli.text_table import table


@click.command("install")
@click.argument("name", required=False, metavar="[NAME]", type=click.Choice(environments.NAMES))
@click.option("--force", is_flag=True, help="Make it again, although it is there.")
def command(name: str | None, *, force: bool) -> None:
    """Install the environment of a speech backend: mlx-audio-plus or mlx-audio. Without NAME: list them."""
    if name is None:
        _list_environments()
        return
    environment = environments.Environment.named(name)
    environments.install(environment, lambda line: click.echo(line, err=True), force=force)
    for other in environment.others():
        click.echo(f"not used by this version of localapi, and may be deleted: {other}", err=True)


def _list_environments() -> None:
    known = [environments.Environment.named(name) for name in environments.NAMES]
    rows = [[each.name, "installed" if each.ready else "missing", str(each.folder)] for each in known]
    for line in table(["environment", "state", "folder"], rows):
        click.echo(line)
