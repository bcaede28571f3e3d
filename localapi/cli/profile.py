"""`localapi profile`: show the profiles of a running server, or switch to another one."""

from __future__ import annotations

from typing import Any

import click

from localapi.cli.options import complete_profiles, server_of, server_options
from localapi.settings import Settings


@click.command("profile")
@click.argument("name", required=False, shell_complete=complete_profiles)
@click.option("--none", "without", is_flag=True, help="Serve the manifest without a profile.")
@server_options
def command(name: str | None, *, without: bool, **flags: Any) -> None:
    """Show the profiles of a running server, or switch to one.

    The profile is checked first; an invalid profile is rejected, and nothing changes. A switch lasts until the server
    stops.
    """
    if without and name is not None:
        raise click.UsageError("give a NAME or --none, not both")
    server = server_of(Settings.read(**flags))
    if name is None and not without:
        found = server.get("/admin/profiles")
        for each in found["available"]:
            click.echo(f"{'*' if each == found['active'] else ' '} {each}")
        if found["active"] is None:
            click.echo("no profile is active")
        return
    attempt = server.post("/admin/profile", {"profile": name})
    active = "no profile" if name is None else f"the profile {name}"
    click.echo(f"the server on {server.address} serves {active}: revision {attempt['revision']}")
    for entry_id, error in attempt["not_loaded"].items():
        click.echo(f"{entry_id}: {error}", err=True)
