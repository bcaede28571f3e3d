"""The status of a running server, asked of it: what it serves, and what it is to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import click

from localapi.client import Server
from localapi.errors import NoServer, Refused

Status = Mapping[str, Any]

SECONDS: Final = 2.0
_KEYS: Final = frozenset({"revision", "manifest", "server", "last_attempt", "models", "retiring"})
_OF_MODELS: Final = frozenset({"id", "kind", "state", "leases", "identity", "serving", "keys"})


def status_of(server: Server, *, seconds: float = SECONDS) -> Status:
    """What `GET /status` gives. Raises Refused, and NoServer also where another program answers."""
    try:
        status = server.get("/status", seconds=seconds)
    except Refused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        raise _not_ours(server) from None
    try:
        ours = status.keys() >= _KEYS and all(model.keys() >= _OF_MODELS for model in status["models"])
    except (AttributeError, TypeError):
        ours = False
    if not ours:
        raise _not_ours(server)
    return status  # type: ignore[no-any-return]  # JSON, of the shape that was looked at


def followed(status: Status) -> dict[Path, str]:
    """The files that the server follows, on its machine, each with the digest of what it has taken of it."""
    folder = Path(status["manifest"]["folder"])
    return {(folder / file["path"]).resolve(): str(file["sha256"]) for file in status["manifest"]["files"]}


def tell_if_another_is_followed(server: Server, status: Status, manifest: Path) -> None:
    """Say that a save of this manifest would not reach the server, where that follows another one."""
    files = list(followed(status))
    if manifest.exists() and manifest.resolve() not in files:
        what = str(files[0]) if files else "no file"
        click.echo(f"the server on {server.address} follows {what}, not {manifest.absolute()}", err=True)


def needs_key(error: Refused) -> bool:
    """Whether the server tells its status only with another key, or with one."""
    return error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def _not_ours(server: Server) -> NoServer:
    return NoServer(f"what runs on {server.address} is not localapi, or another version of it")
