"""`localapi ls`: the downloaded models, their size, and the entries that use them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import Any

import click

from localapi.backends.model_path import cache_folder, downloaded
from localapi.cli.options import manifest_option, profile_option, source_of
from localapi.cli.text_table import room, table
from localapi.errors import ManifestError
from localapi.manifest import read
from localapi.settings import Settings
from localapi.system.byte_sizes import readable

_DAY = 86400.0


@click.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@manifest_option
@profile_option
def command(*, as_json: bool, **flags: Any) -> None:
    """List the downloaded models: size, last use, and the entries that use them.

    These are the repositories in the Hugging Face cache, which other programs may use too.
    """
    users = _users(flags)
    found = downloaded()
    if as_json:
        rows = [
            {**dataclasses.asdict(each), "folder": str(each.folder), "entries": users.get(each.repository, [])}
            for each in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    now = time.time()
    cells = [
        [
            each.repository, readable(each.size_bytes), "" if each.is_complete else "incomplete",
            ", ".join(users.get(each.repository, [])), _age(now - each.used_at),
        ]
        for each in found
    ]  # fmt: skip
    for line in table(["model", "size", "state", "used by", "last use"], cells, width=room()):
        click.echo(line)
    total = readable(sum(each.size_bytes for each in found))
    click.echo(f"\n{len(found)} in {cache_folder()}, {total}")


def _users(flags: dict[str, Any]) -> dict[str, list[str]]:
    """Return the ids of the entries that use each repository; none without a valid manifest."""
    users: dict[str, list[str]] = {}
    source = source_of(Settings.read(**flags))
    if source.path is None and not os.path.lexists(source.manifest):
        return users
    try:
        entries = read(source, needs_secrets=False).entries.values()
    except ManifestError as error:
        click.echo(
            f"the manifest cannot be read, so the entries that use them are unknown: {error.problems[0]}", err=True
        )
        return users
    for entry in entries:
        for repository, _ in entry.options.repositories():
            users.setdefault(repository, []).append(entry.id)
    return users


def _age(seconds: float) -> str:
    days = int(seconds // _DAY)
    return "today" if days <= 0 else "yesterday" if days == 1 else f"{days} days ago"
