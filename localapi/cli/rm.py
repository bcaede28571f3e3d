"""`localapi rm`: remove an entry from the manifest's file, and change nothing else in it."""

from __future__ import annotations

from typing import Any

import click

from localapi.cli import outcome
from localapi.cli.options import complete_models, manifest_option, profile_option, server_of, server_options, source_of
from localapi.manifest import removing
from localapi.settings import Settings


@click.command("rm")
@click.argument("entry_id", metavar="ID", shell_complete=complete_models())
@click.option("--dry-run", is_flag=True, help="Show the change without saving it.")
@manifest_option
@profile_option
@server_options
def command(entry_id: str, *, dry_run: bool, **flags: Any) -> None:
    """Remove a model from the manifest, with its comments.

    Downloaded files stay, and a running server finishes its running requests.
    """
    said = Settings.read(**flags)
    source = source_of(said)
    with outcome.unsaved(source):
        edit = removing(source, entry_id)
    if dry_run:
        click.echo(edit.diff(), nl=False)
        return
    outcome.save(server_of(said), edit, entry_id, f"removed {entry_id}")
