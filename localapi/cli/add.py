"""`localapi add`: add an entry for a model to the manifest file, and change nothing else in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from localapi.backends import model_path
from localapi.backends.auto import cached_config
from localapi.cli import outcome
from localapi.cli.options import (
    complete_backends,
    manifest_option,
    profile_option,
    server_of,
    server_options,
    source_of,
)
from localapi.cli.plan import tell_if_too_large
from localapi.cli.pull import file_of
from localapi.errors import CannotDownload, CannotEdit
from localapi.kinds import CHAT, KINDS, Kind, recognize, recognize_place
from localapi.kinds.first_models import first_models
from localapi.manifest import Manifest, adding, names_in, read, value_of
from localapi.settings import Settings
from localapi.system.byte_sizes import readable

SAY: Final = f"give {' or '.join(f'--kind {name}' for name in KINDS)}, or --backend"
Recognized = tuple[Kind, str]
"""Kind and backend of a model."""


@click.command("add")
@click.argument("model", required=False, metavar="[REPO_OR_PATH]")
@click.option("--id", "entry_id", help="Id of the model.  [default: derived from the name]")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Kind of the model.  [default: from its files]")
@click.option("--backend", help="Backend of the model.  [default: from its files]", shell_complete=complete_backends)
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Alias of the model; can be repeated.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Option of the entry, in YAML: pin=true, defaults.temperature=0.7; can be repeated.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the change without saving it.")
@manifest_option
@profile_option
@server_options
def command(
    model: str | None,
    entry_id: str | None,
    kind: str | None,
    backend: str | None,
    *,
    aliases: tuple[str, ...],
    settings: tuple[str, ...],
    dry_run: bool,
    **flags: Any,
) -> None:
    """Add a model to the manifest: a repository of the Hugging Face Hub, a folder, or a Piper voice (.onnx).

    Comments, order and layout of the file are kept. The result is checked before it is saved.
    """
    said = Settings.read(**flags)
    source = source_of(said)
    proposal = propose(model, source.manifest.parent, kind=KINDS[kind] if kind else None, backend=backend)
    options: dict[str, object] = {"backend": proposal.backend}
    options |= {"path": proposal.path} if proposal.path is not None else {}
    options |= {"aliases": list(aliases)} if aliases else {}
    for setting in settings:
        _put(options, setting)
    name = entry_id or free_id(proposal.name, names_in(source))
    with outcome.unsaved(source):
        edit = adding(source, proposal.kind.name, name, options)
    manifest = read(source, edit.text, needs_secrets=False)
    _tell_need(manifest, name)
    if proposal.path is not None:
        _tell_twin(manifest, name)
    if dry_run:
        click.echo(edit.diff(), nl=False)
        return
    done = f"added {proposal.kind}.{name} ({proposal.backend})"
    outcome.save(server_of(said), edit, name, done if edit.before is not None else f"{done}, in a new file")


def _tell_need(manifest: Manifest, name: str) -> None:
    """Print how much memory a new model needs and how much it will download, as far as these are known."""
    entry = manifest.entries[name]
    tell_if_too_large(entry, manifest.server.memory_budget)
    sizes = {model.repository: model.download_bytes for model in first_models()}
    for repository, revision in entry.options.repositories():
        if not model_path.is_downloaded(repository, revision):
            size = f"about {readable(sizes[repository])}" if repository in sizes else "it"
            click.echo(
                f"{repository} is not downloaded yet; its first request or `localapi pull` downloads {size}", err=True
            )


def _tell_twin(manifest: Manifest, name: str) -> None:
    """Warn if another entry has the same model: each loads its own copy, and an alias may have been meant."""
    entries = manifest.entries
    for other in entries.values():
        if other.id != name and other.identity == entries[name].identity:
            click.echo(
                f"{other.id} uses the same model, and each entry loads its own copy; for one more name, add to "
                f"`aliases` of "
                f"{other.id} instead, and run: localapi rm {name}",
                err=True,
            )
            return


def _put(options: dict[str, object], setting: str) -> None:
    """Put the value of one --set into the entry. Raise click.UsageError if it is malformed."""
    key, equals, text = setting.partition("=")
    *above, last = key.split(".")
    if not equals or not all((*above, last)):
        raise click.UsageError(f"--set takes KEY=VALUE; found {setting!r}")
    for part in above:
        inner = options.setdefault(part, {})
        if not isinstance(inner, dict):
            raise click.UsageError(f"--set {setting}: {part} is not a mapping")
        options = inner
    options[last] = value_of(text, f"--set {key}")


@dataclass(frozen=True)
class Proposal:
    """An entry without its id."""

    kind: Kind
    backend: str
    path: str | None
    """Path as the manifest writes it."""
    name: str
    """Name from which an id is derived."""


def propose(named: str | None, folder: Path, *, kind: Kind | None, backend: str | None) -> Proposal:
    """Return an entry for a repository, or for a folder or file relative to the current folder.

    `folder` is the folder of the manifest. Kind and backend, if not given, are read from the model's files, if
    necessary from the Hub. Raise CannotEdit or CannotDownload.
    """
    section = _kind(backend, kind)
    if named is None:
        if backend is None or section is None:
            raise CannotEdit("nothing to add; name a repository or a folder, or a --backend that needs neither")
        return Proposal(section, backend, None, "voice" if backend == "auto" else backend)
    place = model_path.placed(named, Path())
    if named == model_path.DEMO:
        return Proposal(section or CHAT, backend or CHAT.usual_backend, named, named)
    if os.path.exists(place) or model_path.is_place(named):
        found = _found(place, section, backend)
        return Proposal(*found, _written(place, folder), place.stem if place.is_file() else place.resolve().name)
    if named in _backends():
        raise CannotEdit(f"{named!r} is a backend, not a model; give --backend {named}, and a model if it needs one")
    if not model_path.is_repository(named):
        raise CannotEdit(
            f"{named!r} is neither a folder ({place} does not exist) nor a Hugging Face repository (owner/name)"
        )
    name = named.rpartition("/")[2]
    if section is not None and backend is not None:
        return Proposal(section, backend, named, name)
    config = cached_config(named)
    if config is None and section is not None:
        return Proposal(section, section.usual_backend, named, name)
    recognized = recognize(_config(named) if config is None else config, named)
    return Proposal(*_completed(recognized, section, named), named, name)


def free_id(name: str, taken: Collection[str]) -> str:
    """Return an unused id made from the name."""
    wanted = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "model"
    found, number = wanted, 1
    while found in taken:
        number += 1
        found = f"{wanted}-{number}"
    return found


def _kind(backend: str | None, kind: Kind | None) -> Kind | None:
    """Return the kind that a backend requires. Raise CannotEdit if another kind was given."""
    if backend is None:
        return kind
    has = [each for each in KINDS.values() if backend in each.backends]
    if not has:
        raise CannotEdit(f"there is no backend {backend!r}; available: {', '.join(_backends())}")
    if kind is not None and kind not in has:
        raise CannotEdit(f"the backend {backend} is for {has[0]}, not for {kind}")
    return kind or has[0]


def _backends() -> list[str]:
    return list(dict.fromkeys(name for kind in KINDS.values() for name in kind.backends))


def _found(place: Path, section: Kind | None, backend: str | None) -> Recognized:
    if not os.path.exists(place):
        raise CannotEdit(f"{place} does not exist")
    if section is not None and backend is not None:
        return section, backend
    try:
        found = recognize_place(place)
    except (OSError, ValueError) as error:
        raise CannotEdit(f"{place / 'config.json'} cannot be read: {error}") from None
    return _completed(found, section, str(place))


def _completed(found: Recognized | None, section: Kind | None, name: str) -> Recognized:
    if found is not None and section in (None, found[0]):
        return found
    if section is not None:
        return section, section.usual_backend
    raise CannotEdit(f"the kind of the model {name} is unknown; {SAY}")


def _config(repository: str) -> dict[str, Any]:
    """Return a repository's config.json from the Hub. Raise CannotDownload."""
    try:
        content = json.loads(file_of(repository, "config.json").read_text("utf-8"))
    except CannotDownload as error:
        raise CannotDownload(f"{error} To add it without reading its files, {SAY}.") from None
    except (OSError, ValueError) as error:
        raise CannotDownload(f"the config.json of {repository} cannot be read ({error}); {SAY}") from None
    return content if isinstance(content, dict) else {}


def _written(place: Path, folder: Path) -> str:
    """Return the path as the manifest should write it: relative if it is inside the folder, otherwise absolute."""
    absolute = Path(os.path.normpath(place))
    try:
        return f"./{absolute.relative_to(os.path.normpath(folder.absolute()))}"
    except ValueError:
        return str(absolute)
