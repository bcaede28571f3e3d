"""Options and arguments that several commands share, with their shell completions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from localapi.client import Server
from localapi.errors import LocalapiError
from localapi.settings import Settings

if TYPE_CHECKING:
    from localapi.manifest import ManifestSource

type_of_path = click.Path(path_type=Path)
MOST_PORT: Final = 65535
Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose the server."""
    host = click.option("--host", help="Address of the server.  [environment HOST; default: 127.0.0.1]")
    port = click.option(
        "--port",
        type=click.IntRange(0, MOST_PORT),
        metavar="NUMBER",
        help="Port of the server.  [environment PORT; default: 8000]",
    )
    return host(port(command))


def profile_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that chooses a profile to merge over the manifest."""
    return click.option(
        "--profile",
        help="Profile to merge over the manifest: configs/NAME.yaml.  [environment LOCALAPI_PROFILE]",
        shell_complete=complete_profiles,
    )(command)


def manifest_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that chooses the manifest."""
    return click.option(
        "--manifest",
        type=type_of_path,
        help="Path of the manifest.  [environment LOCALAPI_MANIFEST; default: models.yaml]",
    )(command)


def source_of(settings: Settings) -> ManifestSource:
    """Return the source of the manifest for these settings."""
    from localapi.manifest import ManifestSource, Overrides  # noqa: PLC0415  # commands that ask a server start sooner

    return ManifestSource(settings.manifest, settings.profile, Overrides.read())


def server_of(settings: Settings) -> Server:
    """Return the client of the server for these settings."""
    return Server(settings.address, settings.key_header)


def given_text(argument: str | None) -> str:
    """Return the argument, or standard input if it is - or absent. Bytes that are not UTF-8 are replaced."""
    if argument is None or argument == "-":
        # in text mode, they would raise an error in most locales
        return sys.stdin.buffer.read().decode(errors="replace")
    return argument.encode(errors="surrogateescape").decode(errors="replace")


def complete_models(kind: str | None = None) -> Completion:
    """Return a completion function for the ids in the command's manifest, of one kind or all."""

    def offer(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from localapi.manifest import read  # noqa: PLC0415  # only if it is needed

        flags: dict[str, Any] = {name: ctx.params.get(name) for name in ("manifest", "profile")}
        try:
            entries = read(source_of(Settings.read(**flags)), needs_secrets=False).entries.values()
        except (LocalapiError, OSError):  # a completion cannot report errors
            return []
        named = ((entry.id, entry.options.backend_name) for entry in entries if kind in {None, entry.kind.name})
        return _items(named, incomplete)

    return offer


def complete_profiles(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of profiles."""
    from localapi.manifest import profile_names  # noqa: PLC0415  # only if it is needed

    path = ctx.params.get("manifest") or ctx.params.get("file") or Path("models.yaml")
    return _items(((name, None) for name in profile_names(Path(path))), incomplete)


def complete_backends(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of backends."""
    from localapi.kinds import KINDS  # noqa: PLC0415  # only if it is needed

    return _items(((name, kind.name) for kind in KINDS.values() for name in kind.backends), incomplete)


def _items(named: Iterable[tuple[str, str | None]], incomplete: str) -> list[CompletionItem]:
    """Return the names that start with `incomplete`, each once, with their help."""
    helps = {name: text for name, text in named if name.startswith(incomplete)}
    return [CompletionItem(name, help=text) for name, text in helps.items()]
