"""`localapi init`: write a first manifest, with a model that fits this machine."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import click

from localapi.backends.model_path import is_downloaded, is_repository
from localapi.cli.add import Proposal, free_id, propose
from localapi.cli.options import type_of_path
from localapi.cli.pull import Bar, pull
from localapi.cli.text_table import room, table
from localapi.errors import OperatorError
from localapi.kinds import KINDS
from localapi.kinds.first_models import USABLE_SHARE, FirstModel, first_models, suggested
from localapi.manifest import ManifestSource, adding, json_schema, names_in, read
from localapi.manifest.profiles import SCHEMA, first_manifest
from localapi.system.byte_sizes import readable
from localapi.system.memory import room_for_models


@click.command("init")
@click.argument("folder", default=".", type=type_of_path)
@click.option(
    "--model", "models", multiple=True, metavar="NAME",
    help="Model to start with: a name from --list, a repository of the Hugging Face Hub or a folder; can be repeated.",
)  # fmt: skip
@click.option("--pull", "download", is_flag=True, help="Download the models now, instead of at their first request.")
@click.option("--list", "only_list", is_flag=True, help="List models to start with, and show which fit this machine.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask: take the suggested model, and with --pull download it.")
def command(folder: Path, models: tuple[str, ...], *, download: bool, only_list: bool, yes: bool) -> None:
    """Create a models.yaml in FOLDER, or in the current folder.

    It contains a small included model that works at once, and comments about further options. In a terminal, models
    that fit this machine are offered. The schema for editors is written beside it. An existing models.yaml is never
    overwritten.
    """
    usable = room_for_models(None, USABLE_SHARE)
    if only_list:
        _show(usable)
        return
    manifest = folder / "models.yaml"
    if os.path.lexists(manifest):
        raise _exists(manifest)
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not yes and not models
    if asks:
        models = _chosen(usable)
    elif yes and not models:
        models = (suggested(usable).id,)
    proposals = [_proposal(name, folder, usable) for name in models]
    _write(folder, manifest)
    click.echo(f"wrote {manifest}, and {folder / SCHEMA} for your editor")
    for proposal in proposals:
        _add(ManifestSource(manifest), proposal)
    paths = [proposal.path for proposal in proposals if proposal.path is not None]
    missing = [path for path in paths if is_repository(path) and not is_downloaded(path)]
    if missing and (download or asks):
        _download(missing, ask=not yes)
    click.echo(f"next: {'' if folder == Path() else f'cd {shlex.quote(str(folder))} && '}localapi")


def _write(folder: Path, manifest: Path) -> None:
    """Write the manifest and its schema. Raise OperatorError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with manifest.open("x", encoding="utf-8") as file:
            file.write(first_manifest())
        (folder / SCHEMA).write_text(json.dumps(json_schema(), indent=2) + "\n", "utf-8")
    except FileExistsError as error:
        if Path(error.filename) != manifest:
            raise OperatorError(f"{error.filename} is not a folder; name another") from None
        raise _exists(manifest) from None
    except OSError as error:
        raise OperatorError(f"{error.filename} cannot be written: {error.strerror}") from error


def _exists(manifest: Path) -> OperatorError:
    return OperatorError(f"{manifest} already exists and was not changed; see `localapi check {manifest}`")


def _listed(name: str) -> FirstModel | None:
    """Return the listed model with this id or repository."""
    return next((model for model in first_models() if name in (model.id, model.repository)), None)


def _proposal(name: str, folder: Path, usable: int) -> Proposal:
    """Return the entry for a listed or any other model. Raise CannotEdit or CannotDownload."""
    found = _listed(name)
    if found is None:
        return propose(name, folder, kind=None, backend=None)
    if not found.fits(usable):
        need = f"it needs {readable(found.memory_bytes)}, and this machine has {readable(usable)} for models"
        click.secho(f"{found.id} may not fit: {need}", fg="yellow", err=True)
    return Proposal(KINDS[found.kind], found.backend, found.repository, found.id)


def _add(source: ManifestSource, proposal: Proposal) -> None:
    """Add a model to the manifest unless it is already there. Raise CannotEdit or ManifestError."""
    manifest = read(source, needs_secrets=False)
    if proposal.path in [entry.identity.options.get("path") for entry in manifest.entries.values()]:
        click.echo(f"{proposal.path} is already in the manifest")
        return
    entry_id = free_id(proposal.name, names_in(source))
    options: dict[str, object] = {"backend": proposal.backend}
    options |= {"path": proposal.path} if proposal.path is not None else {}
    adding(source, proposal.kind.name, entry_id, options).save()
    click.echo(f"added {proposal.kind}.{entry_id} ({proposal.path or proposal.backend})")


def _show(usable: int) -> None:
    """Print the list."""
    best = suggested(usable)
    rows = []
    for model in first_models():
        state = "downloaded" if is_downloaded(model.repository) else f"{readable(model.download_bytes)} to download"
        fits = "yes, suggested" if model is best else "yes" if model.fits(usable) else "no"
        rows.append([model.id, state, readable(model.memory_bytes), fits, model.licence, model.good_at])
    for line in table(["model", "files", "memory", "fits", "licence", "good at"], rows, width=room()):
        click.echo(line)
    click.echo(f"\nthis machine has {readable(usable)} for models; sizes are approximate")


def _chosen(usable: int) -> tuple[str, ...]:
    """Ask for a listed model; return none if the included one is enough."""
    _show(usable)
    best = suggested(usable)
    names = [*(model.id for model in first_models()), "none"]
    chosen = click.prompt("Model to start with", type=click.Choice(names), default=best.id, show_choices=False)
    return () if chosen == "none" else (str(chosen),)


def _download(repositories: list[str], *, ask: bool) -> None:
    """Download models after printing their sizes. Raise CannotDownload."""
    for repository in repositories:
        found = _listed(repository)
        size = f"about {readable(found.download_bytes)}" if found else "files of unknown size"
        what = f"will download {size} of {repository} from Hugging Face"
        if ask and sys.stdin.isatty():
            if not click.confirm(f"{what}. Now?", default=True):
                continue
        else:
            click.echo(what)
        with Bar(repository) as bar:
            click.echo(pull(repository, None, bar.show))
