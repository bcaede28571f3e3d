"""What a shell offers after the Tab key. Errors are silence: nobody can read them there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from localapi.errors import LocalapiError

if TYPE_CHECKING:
    from localapi.manifest import Entry

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def models(kind: str | None = None) -> Completion:
    """Offers the ids of the manifest's models, of one kind or all; the manifest is the one that the command reads."""

    def offer(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        entries = [entry for entry in _entries(ctx) if kind in {None, entry.kind.name}]
        return _items(((entry.id, entry.options.backend_name) for entry in entries), incomplete)

    return offer


def profiles(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offers the names of profiles."""
    from localapi.manifest import profile_names  # noqa: PLC0415  # only where it is asked for

    path = ctx.params.get("manifest") or ctx.params.get("file") or Path("models.yaml")
    return _items(((name, None) for name in profile_names(Path(path))), incomplete)


def backends(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offers the names of backends."""
    from localapi.kinds import KINDS  # noqa: PLC0415  # only where it is asked for

    return _items(((name, kind.name) for kind in KINDS.values() for name in kind.backends), incomplete)


def _entries(ctx: click.Context) -> list[Entry]:
    from localapi.manifest import ManifestSource, Overrides, read  # noqa: PLC0415  # only where it is asked for
    from localapi.settings import Settings  # noqa: PLC0415

    flags: dict[str, Any] = {name: ctx.params.get(name) for name in ("manifest", "profile")}
    try:
        settings = Settings.read(**flags)
        source = ManifestSource(settings.manifest, settings.profile, Overrides.read())
        return list(read(source, needs_secrets=False).entries.values())
    except (LocalapiError, OSError):
        return []


def _items(named: Iterable[tuple[str, str | None]], incomplete: str) -> list[CompletionItem]:
    """Those that begin so, each once."""
    helps = {name: text for name, text in named if name.startswith(incomplete)}
    return [CompletionItem(name, help=text) for name, text in helps.items()]
