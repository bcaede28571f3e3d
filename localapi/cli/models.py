"""`localapi models`: the models of a running server, once or as they change."""

from __future__ import annotations

import json
from typing import Any

import click

from localapi.cli import server_status
from localapi.cli.options import server_of, server_options
from localapi.cli.text_table import room, table, wrapped
from localapi.settings import Settings


@click.command("models")
@click.option("-w", "--watch", is_flag=True, help="Update continuously until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output; with --watch, one line per change.")
@server_options
def command(*, watch: bool, as_json: bool, **flags: Any) -> None:
    """Show the models of a running server.

    With --watch, a terminal shows a live table with events above it; without a terminal, each change is one line. A key
    without the admin right only shows the models it may use, and their states.
    """
    server = server_of(Settings.read(**flags))
    if watch:
        from localapi.cli import models_watch  # noqa: PLC0415  # 0.2 s that the list does not need

        models_watch.watch(server, as_json=as_json)
        return
    found, status = server_status.fetch(server)
    if as_json:
        click.echo(json.dumps([row.json() for row in found], indent=2))
        return
    cells = [row.cells() for row in found]
    chosen = server_status.columns(cells, room())
    shown = [[row[at] for at in chosen] for row in cells]
    for line in table([server_status.HEAD[at] for at in chosen], shown, width=room()):
        click.echo(line)
    if status:
        click.echo(f"\n{server_status.footer(status)}")
        for trouble in server_status.troubles(status):
            click.echo(wrapped(trouble, indent=0))
