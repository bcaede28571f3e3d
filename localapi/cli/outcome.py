"""An edit saved, and what a running server makes of it: asked of `GET /status` until it has read the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from localapi.cli.server_status import Status, followed, problem_line, status_of, tell_if_another_is_followed
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
    """Save the edit and print the server's reaction. Raise CannotEdit or NotTaken."""
    before, since = _status(server), time.time()
    edit.save()
    click.echo(f"{edit.path}: {done}")
    if isinstance(before, Exception):
        click.echo(f"whether the server on {server.address} follows is not known: {before}")
    elif before is not None and edit.path.resolve() in followed(before):
        _tell(server, edit, entry_id, since)
    elif before is not None:
        tell_if_another_is_followed(server, before, edit.path)


def _status(server: Server) -> Status | NoServer | Refused | None:
    """Return the server's status; None if no server runs; the error if the status cannot be had."""
    if not server.is_there():
        return None
    try:
        return status_of(server)
    except (NoServer, Refused) as error:
        return error


def _tell(server: Server, edit: Edit, entry_id: str, since: float) -> None:
    """Wait until the server has applied the file, and print the result. Raise NotTaken if it rejects the file.

    A rejection before `since`, in Unix seconds, was of something else.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            status = status_of(server)
        except (NoServer, Refused) as error:
            click.echo(str(error), err=True)
            return
        if followed(status).get(edit.path.resolve()) == edit.sha256:
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


def _of(status: Status, entry_id: str) -> str:
    model = next((model for model in status["models"] if model["id"] == entry_id), None)
    if model is not None:
        hint = ": its first request loads it" if model["state"] == "unloaded" else ""
        return f"{entry_id} is {model['state']}{hint}"
    leaving = sum(each["leases"] for each in status["retiring"] if each["id"] == entry_id)
    return f"{entry_id} is gone" if not leaving else f"{entry_id} goes when its running requests ({leaving}) have ended"
