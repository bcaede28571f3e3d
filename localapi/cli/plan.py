"""`localapi plan`: show what an edit would change on the running server, entry by entry."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Final

import click
from rich.cells import cell_len

from localapi.cli.check import tell_missing_secrets
from localapi.cli.options import profile_option, server_of, server_options, source_of, type_of_path
from localapi.cli.server_status import status_of, tell_if_another_is_followed
from localapi.cli.text_table import GAP, table, wrapped
from localapi.client import Server
from localapi.manifest import Entry, read
from localapi.observability import log
from localapi.reload.fit import need_of, obstacle_of, shortage_of
from localapi.reload.plan import Plan, plan, words_of
from localapi.settings import Settings

CHANGED: Final = 3
"""Exit status of --exit-code; 1 and 2 mean errors."""

SIGNS: Final = {
    "added": "+",
    "warm": "~",
    "cold": "~",
    "not loaded": "~",
    "did not load": "~",
    "in place": "=",
    "removed": "-",
}
COLOURS: Final = {"+": "green", "~": "yellow", "=": "cyan", "-": "red"}


@click.command("plan")
@click.argument("file", required=False, type=type_of_path)
@profile_option
@server_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("--exit-code", is_flag=True, help=f"Exit with status {CHANGED} if anything would change.")
def command(file: Path | None, *, as_json: bool, exit_code: bool, **flags: Any) -> None:
    """Show what an edit of the manifest would change on the running server.

    FILE is the manifest, or a draft of it. Without a running server, everything is new.
    """
    settings = Settings.read(manifest=file, **flags)
    source = source_of(settings)
    server = server_of(settings)
    status = status_of(server) if server.is_there() else None
    switched = status["manifest"].get("profile") if status else None
    # the profile may have been switched at run time; the edit meets that profile too
    if source.profile is None and switched is not None:
        source = dataclasses.replace(source, profile=switched)
    manifest = read(source, needs_secrets=False)
    found = plan(manifest, status)
    tell_missing_secrets(manifest)
    if status and file is None:
        tell_if_another_is_followed(server, status, source.manifest)
    if as_json:
        click.echo(
            json.dumps({"compared_with": server.address if status else None, **dataclasses.asdict(found)}, indent=2)
        )
    else:
        _show(found, server, compared=status is not None)
        for change in found.changes:
            if change.does in ("added", "warm", "cold", "not loaded"):
                tell_if_too_large(manifest.entries[change.id], manifest.server.memory_budget)
    if found and exit_code:
        sys.exit(CHANGED)


def tell_if_too_large(entry: Entry, budget: int | None) -> None:
    """Warn if a model needs more memory than the budget, the machine or what is free."""
    need = need_of(entry.options)
    obstacle = obstacle_of(entry, need, budget)
    if obstacle is not None:
        click.secho(f"{entry.id} cannot be loaded here: {obstacle}", fg="yellow", err=True)
        return
    shortage = shortage_of(need)
    if shortage is not None:
        click.secho(f"{entry.id} may not fit: {shortage}", fg="yellow", err=True)


def _show(found: Plan, server: Server, *, compared: bool) -> None:
    if not compared:
        click.echo(f"no server is running on {server.address}, so everything is new", err=True)
    elif not found:
        click.echo(f"the server on {server.address} already serves this; nothing to do")
    colour = log.wants_colour(sys.stdout)
    rows = [[SIGNS[each.does], f"{each.kind}.{each.id}"] for each in found.changes]
    heads = table(["", ""], rows)[1:]
    widest = max(map(cell_len, heads), default=0) + len(GAP)
    for head, (sign, _), each in zip(heads, rows, found.changes, strict=True):
        line = f"{head}{' ' * (widest - cell_len(head))}{wrapped(words_of(each), indent=widest)}"
        click.secho(line, fg=COLOURS[sign], color=colour)
    if found.server:
        click.secho(f"=  server  changes in place: {', '.join(found.server)}", fg=COLOURS["="], color=colour)
