"""Save an edit, and report how a running server reacts: poll `GET /status` until it has read the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import click

from localapi.cli.server_status import Status, followed, problem_line, status_of, tell_if_another_is_followed
from localapi.client import Server
from localapi.errors import ManifestError, NoServer, OperatorError, Refused
from localapi.manifest import Edit, ManifestSource, read
from localapi.system.byte_sizes import readable

WAIT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1


class NotTaken(OperatorError):
    """The file is saved, but the server that follows it rejects it."""


@contextmanager
def unsaved(source: ManifestSource) -> Iterator[None]:
    """Introduce the errors of an edit by saying that it was not saved, if the file itself has no errors."""
    try:
        yield
    except ManifestError:
        with suppress(ManifestError):
            read(source, needs_secrets=False)
            click.echo(f"{source.manifest} was not changed; the edit would cause these problems:", err=True)
        raise


def save(server: Server, edit: Edit, entry_id: str, done: str) -> None:
    """Save the edit and print the server's reaction. Raise CannotEdit or NotTaken."""
    before: Status | None = None
    unknown, since = "", time.time()
    if server.is_there():
        try:
            before = status_of(server)
        except (NoServer, Refused) as error:
            unknown = f"cannot tell whether the server on {server.address} has applied it: {error}"
    edit.save()
    click.echo(f"{edit.path}: {done}")
    if unknown:
        click.echo(unknown)
    elif before is not None and edit.path.resolve() in followed(before):
        _tell(server, edit, entry_id, since)
    elif before is not None:
        tell_if_another_is_followed(server, before, edit.path)


def _tell(server: Server, edit: Edit, entry_id: str, since: float) -> None:
    """Wait until the server has applied the file, and print the result. Raise NotTaken if it rejects the file.

    A rejection before `since`, in Unix seconds, concerned an earlier version.
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
                f"the server on {server.address} has applied it: revision {status['revision']}, {_of(status, entry_id)}"
            )
            return
        attempt = status["last_attempt"]
        if attempt and not attempt["ok"] and attempt["at"] > since:
            raise NotTaken(f"the server on {server.address} rejects it: {problem_line(attempt['problems'][0])}")
        time.sleep(LOOK_SECONDS)
    click.echo(
        f"the server on {server.address} has not applied it yet: other changes may be loading; see `localapi plan`"
    )


def _of(status: Status, entry_id: str) -> str:
    model = next((model for model in status["models"] if model["id"] == entry_id), None)
    if model is not None:
        size = "" if model.get("download_bytes") is None else f" ({readable(model['download_bytes'])})"
        hints = {"unloaded": "loads it", "not_downloaded": f"downloads it{size}"}
        hint = f": its first request {hints[model['state']]}" if model["state"] in hints else ""
        return f"{entry_id} is {model['state'].replace('_', ' ')}{hint}"
    leaving = sum(each["leases"] for each in status["retiring"] if each["id"] == entry_id)
    if leaving:
        return f"{entry_id} will be removed when its running requests ({leaving}) have finished"
    return f"{entry_id} is removed"
