"""A server for one command: the one that runs, or one that is started for it and ended afterwards."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

from localapi.client import Server
from localapi.errors import NoServer


@contextlib.contextmanager
def or_temporary(server: Server, profile: str | None, *, start: bool) -> Iterator[Server]:
    """The given server where none is to be started; else one on a free port, for as long as needed.

    Raises NoServer where the one that was started ends at once, with its last words.
    """
    if not start:
        yield server
        return
    command = [sys.executable, "-P", "-m", "localapi", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--profile", profile] if profile is not None else []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:  # noqa: S603
        try:
            yield Server(_address_of(process), server.headers)
        finally:
            process.terminate()


def _address_of(process: subprocess.Popen[str]) -> str:
    """Where a server that starts will listen; its log is read from then on, so that it never waits for a reader."""
    assert process.stderr is not None  # noqa: S101  # it was started with a pipe
    line = ""
    for line in process.stderr:
        if found := re.search(r" on (http://\S+)/v1", line):
            threading.Thread(target=_read_out, args=(process,), daemon=True).start()
            return found[1]
    raise NoServer(f"no server runs, and none could be started: {line.strip()}")


def _read_out(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None  # noqa: S101  # it was started with a pipe
    with contextlib.suppress(ValueError, OSError):
        for _ in process.stderr:
            pass
