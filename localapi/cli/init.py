"""`localapi init`: write a first manifest."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from localapi.cli.options import type_of_path
from localapi.errors import OperatorError
from localapi.manifest import json_schema
from localapi.manifest.profiles import SCHEMA, first_manifest


@click.command("init")
@click.argument("folder", default=".", type=type_of_path)
def command(folder: Path) -> None:
    """Write a first models.yaml into FOLDER, or into the current one.

    It has a small included model that works at once, and comments about further options. The schema for editors is
    written beside it. An existing models.yaml is never overwritten.
    """
    manifest = folder / "models.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with manifest.open("x", encoding="utf-8") as file:
            file.write(first_manifest())
        (folder / SCHEMA).write_text(json.dumps(json_schema(), indent=2) + "\n", "utf-8")
    except FileExistsError as error:
        if Path(error.filename) != manifest:
            raise OperatorError(f"{error.filename} is not a folder; name another") from None
        raise OperatorError(f"{manifest} already exists and was not changed; see `localapi check {manifest}`") from None
    except OSError as error:
        raise OperatorError(f"{error.filename} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {manifest}, and {folder / SCHEMA} for your editor")
    click.echo(f"next: {'' if folder == Path() else f'cd {shlex.quote(str(folder))} && '}localapi")
