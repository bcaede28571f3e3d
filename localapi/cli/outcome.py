"""An edit saved, and what a running server makes of it: asked of `GET /status` until it has read the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from localapi.cli.model_rows import problem_line
from localapi.cli.server_status import Status, status_of
from localapi.client import Server
from localapi.errors import ManifestError, NoServer, OperatorError, Refused
from localapi.manifest import Edit, ManifestSource, read

WAIT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1


class NotTaken(OperatorError):
    """The file is saved, and the server that follows it refuses it."""


@contextmanager
def unsaved(source: ManifestSource) -> Iterator[None]:
    """Before the problems of a manifest that is not saved because of them, say that it is not: their lines are its."""
    try:
        yield
    except ManifestError:
        if _is_well(source):
            click.echo(f"{source.manifest} is as it was: changed so, it would have these problems", err=True)
        raise


def _is_well(source: ManifestSource) -> bool:
    """Whether the file as it is has no problems of its own."""
    try:
        read(source, needs_secrets=False)
    except ManifestError:
        return False
    return True


def save(server: Server, edit: Edit, entry_id: str, done: str) -> None:
    """Save the edit, say that it is done, and what the server makes of it. Raises CannotEdit, NotTaken."""
    followed, since = _follows(server, edit), time.time()
    edit.save()
    click.echo(f"{edit.path}: {done}")
    if followed:
        _tell(server, edit, entry_id, since)
    elif server.is_there():
        click.echo(f"the server on {server.address} does not follow {edit.path}, or does not tell without a key")


def _follows(server: Server, edit: Edit) -> bool:
    """Whether a server runs there that follows the file; it may be busy with an earlier change, or refuse that."""
    if not server.is_there():
        return False
    try:
        return bool(_contents(status_of(server), edit))
    except (NoServer, Refused):  # nobody, no key for it, another program
        return False


def _tell(server: Server, edit: Edit, entry_id: str, since: float) -> None:
    """Wait until the server has taken the file, and say what it did. Raises NotTaken where it refuses it.

    A refusal before `since`, in Unix seconds, was of something else.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            status = status_of(server)
        except (NoServer, Refused) as error:
            click.echo(str(error), err=True)
            return
        if edit.sha256 in _contents(status, edit):
            click.echo(
                f"the server on {server.address} follows: revision {status['revision']}, {_of(status, entry_id)}"
            )
            return
        attempt = status["last_attempt"]
        if attempt and not attempt["ok"] and attempt["at"] > since:
            raise NotTaken(f"the server on {server.address} refuses it: {problem_line(attempt['problems'][0])}")
        time.sleep(LOOK_SECONDS)
    click.echo(
        f"the server on {server.address} has not taken it yet: other changes may be loading; see `localapi plan`"
    )


def _contents(status: Status, edit: Edit) -> list[str]:
    """The digest of what the server has taken of this file; none where it follows another."""
    folder, files = Path(status["manifest"]["folder"]), status["manifest"]["files"]
    place = edit.path.resolve()
    return [file["sha256"] for file in files if (folder / file["path"]).resolve() == place]


def _of(status: Status, entry_id: str) -> str:
    model = next((model for model in status["models"] if model["id"] == entry_id), None)
    if model is not None:
        hint = ": its first request loads it" if model["state"] == "unloaded" else ""
        return f"{entry_id} is {model['state']}{hint}"
    leaving = sum(each["leases"] for each in status["retiring"] if each["id"] == entry_id)
    return f"{entry_id} is gone" if not leaving else f"{entry_id} goes when its running requests ({leaving}) have ended"
