"""`localapi check`: check a manifest with the server's own code."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import click

from localapi.backends.peer import faults
from localapi.cli.options import profile_option, server_of, server_options, source_of, type_of_path
from localapi.cli.server_status import status_of, tell_if_another_is_followed
from localapi.cli.text_table import room, table
from localapi.client import Server
from localapi.errors import ManifestError, NoServer, Refused
from localapi.manifest import Manifest, describe, read
from localapi.reload.plan import diff, own_models
from localapi.settings import Settings

PEER_SECONDS: Final = 3.0
"""Time limit for the reply of a peer."""


@click.command("check")
@click.argument("file", required=False, type=type_of_path)
@profile_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output, including errors.")
@server_options
def command(file: Path | None, *, as_json: bool, **flags: Any) -> None:
    """Check a manifest, and show what it would change.

    Every value is shown with its source. If a server is running, the changes that saving the file would make are shown
    too. If the manifest is invalid, every error is shown with its place, and the exit status is 1.
    """
    settings = Settings.read(manifest=file, **flags)
    source = source_of(settings)
    try:
        manifest = read(source, needs_secrets=False)
    except ManifestError as error:
        if as_json:
            _print_json(valid=False, problems=[asdict(problem) for problem in error.problems])
        raise
    rows, changes = describe(manifest), _changes(manifest, server_of(settings), None if file else source.manifest)
    obstacles = [(entry.id, entry.options.obstacle()) for entry in manifest.entries.values()]
    obstacles = [(name, obstacle) for name, obstacle in obstacles if obstacle is not None]
    away = asyncio.run(faults(manifest.peers, seconds=PEER_SECONDS)) if manifest.peers else {}
    if as_json:
        values = [{"key": row.key, "value": row.value, "said_by": row.origin} for row in rows]
        missing = [asdict(problem) for problem in manifest.missing_secrets]
        unloadable = [{"model": name, "reason": obstacle} for name, obstacle in obstacles]
        _print_json(
            valid=True, values=values, missing_secrets=missing, unloadable=unloadable, peers=away, server=changes
        )
        return
    for line in table(["key", "value", "source"], [[row.key, row.value, row.origin] for row in rows], width=room()):
        click.echo(line)
    click.echo()
    tell_missing_secrets(manifest)
    for name, obstacle in obstacles:
        click.secho(f"{name} cannot be loaded here: {obstacle}", fg="yellow", err=True)
    for name, reason in away.items():
        click.secho(f"peers.{name}: {reason}", fg="yellow", err=True)
    click.echo(changes)


def _changes(manifest: Manifest, server: Server, place: Path | None) -> str:
    """Describe what the server would add, change, update and remove, or why it cannot be compared.

    `place` is the path of the manifest; None if it is a draft.
    """
    at = server.address
    if not server.is_there():
        return f"valid; no server is running on {at} to compare it with"
    try:
        status = status_of(server)
    except Refused as error:
        if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return f"valid; to compare with the server on {at}, set LOCALAPI_API_KEY to a key with the admin right"
        return f"valid; it cannot be compared with the server on {at}: {error}"
    except NoServer as error:
        return f"valid; it cannot be compared with a server: {error}"
    if place is not None:
        tell_if_another_is_followed(server, status, place)
    changes = diff(manifest, own_models(status))
    if not changes:
        return f"valid; the server on {at} already serves this"
    return f"valid; the server on {at} would change: {changes}"


def tell_missing_secrets(manifest: Manifest) -> None:
    """Report secrets of keys that are missing here. This is no error, because only the server needs them."""
    for problem in manifest.missing_secrets:
        click.secho(f"missing here, but needed by the server: {problem}", fg="yellow", err=True)


def _print_json(**content: object) -> None:
    click.echo(json.dumps(content, indent=2))
