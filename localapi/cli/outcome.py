"""What a running server made of a saved manifest: asked of `GET /status` until it has read the file, and told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import click

from localapi.client import Server
from localapi.comparison import SECONDS
from localapi.errors import NoServer, OperatorError, Refused
from localapi.manifest import Edit

WAIT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1


class NotTaken(OperatorError):
    """The file is saved, and the server that follows it refuses it."""


def follows(server: Server, edit: Edit) -> bool:
    """Whether a server runs there that serves the file as it was before."""
    if not server.is_there():
        return False
    try:
        return _serves(server.get("/status", seconds=SECONDS), edit, edit.sha256_before)
    except (NoServer, Refused):
        return False


def tell(server: Server, edit: Edit, entry_id: str, *, followed: bool) -> None:
    """Wait until the server has taken the file, and say what it did. Raises NotTaken where it refuses it."""
    if not followed:
        if server.is_there():
            click.echo(f"the server on {server.address} does not follow {edit.path}, or does not tell without a key")
        return
    saved, deadline = time.time(), time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            status = server.get("/status", seconds=SECONDS)
        except (NoServer, Refused) as error:
            click.echo(str(error), err=True)
            return
        if _serves(status, edit, edit.sha256):
            click.echo(
                f"the server on {server.address} follows: revision {status['revision']}, {_of(status, entry_id)}"
            )
            return
        attempt = status["last_attempt"]
        if attempt and not attempt["ok"] and attempt["at"] > saved:
            problem = attempt["problems"][0]
            raise NotTaken(f"the server on {server.address} refuses it: {problem['key']}: {problem['message']}")
        time.sleep(LOOK_SECONDS)
    click.echo(
        f"the server on {server.address} has not taken it yet: other changes may be loading; see `localapi plan`"
    )


def _serves(status: dict[str, Any], edit: Edit, sha256: str) -> bool:
    """Whether the server serves this file, with this content."""
    folder, files = Path(status["manifest"]["folder"]), status["manifest"]["files"]
    place = edit.path.resolve()
    return any(file["sha256"] == sha256 and (folder / file["path"]).resolve() == place for file in files)


def _of(status: dict[str, Any], entry_id: str) -> str:
    model = next((model for model in status["models"] if model["id"] == entry_id), None)
    if model is not None:
        hint = ": its first request loads it" if model["state"] == "unloaded" else ""
        return f"{entry_id} is {model['state']}{hint}"
    leaving = sum(each["leases"] for each in status["retiring"] if each["id"] == entry_id)
    return f"{entry_id} is gone" if not leaving else f"{entry_id} goes when its {leaving} running requests have ended"
