"""`localapi check`: a manifest, read with the server's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from localapi.cli.options import profile_option, server_of, server_options, source_of, type_of_path
from localapi.cli.text_table import table
from localapi.comparison import compare
from localapi.manifest import describe, read
from localapi.settings import Settings


@click.command("check")
@click.argument("file", required=False, type=type_of_path)
@profile_option
@server_options
def command(file: Path | None, **flags: Any) -> None:
    """Check a manifest, and show what it would change.

    Prints every value with the place that said it and, where a server runs, what it would do on a save of this file.
    Exit status 1 with every error and its place.
    """
    settings = Settings.read(manifest=file, **flags)
    manifest = read(source_of(settings), needs_secrets=False)
    rows = describe(manifest)
    for line in table(["value", "is", "said by"], [[row.key, row.value, row.origin] for row in rows]):
        click.echo(line)
    click.echo()
    for problem in manifest.missing_secrets:
        click.secho(f"not here, where the server needs it: {problem}", fg="yellow", err=True)
    click.echo(compare(manifest, server_of(settings)))
