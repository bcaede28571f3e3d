"""Options that several commands take, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from localapi.cli import completing
from localapi.client import Server
from localapi.settings import Settings

if TYPE_CHECKING:
    from localapi.manifest import ManifestSource

type_of_path = click.Path(path_type=Path)
MOST_PORT: Final = 65535


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say which server."""
    for option in (
        click.option(
            "--port",
            type=click.IntRange(0, MOST_PORT),
            metavar="NUMBER",
            help="Port of the server.  [environment PORT; default: 8000]",
        ),
        click.option("--host", help="Address of the server.  [environment HOST; default: 127.0.0.1]"),
    ):
        command = option(command)
    return command


def profile_option(command: Callable[..., None]) -> Callable[..., None]:
    """The flag that says what is laid over the manifest."""
    return click.option(
        "--profile",
        help="Profile to merge over the manifest: configs/NAME.yaml.  [environment LOCALAPI_PROFILE]",
        shell_complete=completing.profiles,
    )(command)


def manifest_option(command: Callable[..., None]) -> Callable[..., None]:
    """The flag that says which file."""
    return click.option(
        "--manifest", type=type_of_path, help="The manifest.  [environment LOCALAPI_MANIFEST; default: models.yaml]"
    )(command)


def source_of(settings: Settings) -> ManifestSource:
    """Where the manifest of these settings is read from."""
    from localapi.manifest import ManifestSource, Overrides  # noqa: PLC0415  # commands that ask a server start sooner

    return ManifestSource(settings.manifest, settings.profile, Overrides.read())


def server_of(settings: Settings) -> Server:
    """The server of these settings, as a client sees it."""
    return Server(settings.address, settings.key_header)
