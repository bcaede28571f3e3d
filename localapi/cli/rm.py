"""`localapi rm`: remove an entry from the manifest file, and change nothing else in it."""

from __future__ import annotations

from typing import Any

import click

from localapi.backends.model_path import downloaded, remove
from localapi.cli import outcome
from localapi.cli.options import complete_models, manifest_option, profile_option, server_of, server_options, source_of
from localapi.errors import CannotEdit
from localapi.manifest import ManifestSource, read, removing
from localapi.settings import Settings
from localapi.system.byte_sizes import readable


@click.command("rm")
@click.argument("entry_id", metavar="ID", shell_complete=complete_models())
@click.option("--files", is_flag=True, help="Also delete its downloaded files, unless another entry uses them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before deleting files.")
@click.option("--dry-run", is_flag=True, help="Show the change without saving it.")
@manifest_option
@profile_option
@server_options
def command(entry_id: str, *, files: bool, yes: bool, dry_run: bool, **flags: Any) -> None:
    """Remove a model from the manifest, with its comments.

    Downloaded files are kept unless --files is given. A running server finishes the model's running requests.
    """
    said = Settings.read(**flags)
    source = source_of(said)
    with outcome.unsaved(source):
        edit = removing(source, entry_id)
    unused = _unused(source, entry_id) if files else []
    if dry_run:
        click.echo(edit.diff(), nl=False)
        for repository, size in unused:
            click.echo(f"would remove {repository} ({readable(size)})")
        return
    if unused and not yes:
        names = ", ".join(f"{repository} ({readable(size)})" for repository, size in unused)
        click.confirm(f"Remove {entry_id} and the files of {names}?", abort=True)
    outcome.save(server_of(said), edit, entry_id, f"removed {entry_id}")
    for repository, _ in unused:
        try:
            click.echo(f"removed the files of {repository}: {readable(remove(repository))}")
        except OSError as error:
            raise CannotEdit(f"the files of {repository} cannot be removed: {error.strerror}") from None


def _unused(source: ManifestSource, entry_id: str) -> list[tuple[str, int]]:
    """Return the downloaded repositories that only this entry uses, with their sizes; print why others are kept."""
    entries = read(source, needs_secrets=False).entries
    sizes = {each.repository: each.size_bytes for each in downloaded()}
    found: list[tuple[str, int]] = []
    for repository, _ in entries[entry_id].options.repositories():
        others = [
            entry.id
            for entry in entries.values()
            if entry.id != entry_id and repository in dict(entry.options.repositories())
        ]
        if others:
            click.echo(f"the files of {repository} are kept: {', '.join(others)} uses them", err=True)
        elif repository in sizes:
            found.append((repository, sizes[repository]))
    if not found:
        click.echo(f"{entry_id} has no downloaded files to remove", err=True)
    return found
