"""`localapi add`: one more entry in the manifest's file, where nothing else changes."""

from __future__ import annotations

from typing import Any

import click

from localapi.cli import completing, outcome
from localapi.cli.options import manifest_option, profile_option, server_of, server_options, source_of
from localapi.cli.proposal import free_id, propose
from localapi.kinds import KINDS
from localapi.manifest import adding, names_in, value_of
from localapi.settings import Settings


@click.command("add")
@click.argument("model", required=False, metavar="[REPO_OR_PATH]")
@click.option("--id", "entry_id", help="What clients call it.  [default: made of the name]")
@click.option("--kind", type=click.Choice(list(KINDS)), help="What it is for.  [default: as its files say]")
@click.option("--backend", help="What runs it.  [default: as its files say]", shell_complete=completing.backends)
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Another name for it; may be given again.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="One of its settings, in YAML, such as pin=true or defaults.temperature=0.7; may be given again.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show how the file would change.")
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

    Comments, order and layout of the file stay. What would be saved is checked first, so a mistake changes nothing.
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
    if dry_run:
        click.echo(edit.diff(), nl=False)
        return
    outcome.save(server_of(said), edit, name, f"added {proposal.kind}.{name} ({proposal.backend})")


def _put(options: dict[str, object], setting: str) -> None:
    """One --set into the entry. Raises click.UsageError."""
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
