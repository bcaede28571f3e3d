"""Temporary server for commands that work without a running one."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from localapi.client import Server
from localapi.errors import NoServer


@contextlib.contextmanager
def or_temporary(server: Server, options: Sequence[str], *, start: bool) -> Iterator[Server]:
    """Yield the given server, or, if `start` is true, a temporary one on a free port with these options of `serve`.

    Raise NoServer, with its last output, if the temporary server exits at once.
    """
    if not start:
        yield server
        return
    command = [sys.executable, "-P", "-m", "localapi", "serve", "--host", "127.0.0.1", "--port", "0", *options]
    # In its own process group, so that Ctrl-C reaches only the command, which may continue.
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0
    ) as process:
        before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            yield Server(_address_of(process), server.headers)
        finally:
            process.terminate()
            signal.signal(signal.SIGTERM, before)


def _address_of(process: subprocess.Popen[str]) -> str:
    """Return the address of a server that is starting. Its log is read to the end, so that it never blocks."""
    log = process.stderr
    assert log is not None  # noqa: S101  # it was started with a pipe

    def read_out() -> None:
        with contextlib.suppress(ValueError, OSError):
            for _ in log:
                pass

    line = ""
    for line in log:
        if found := re.search(r" on (http://\S+)/v1", line):
            threading.Thread(target=read_out, daemon=True).start()
            return found[1]
    raise NoServer(f"no server is running, and none could be started: {line.strip()}")
