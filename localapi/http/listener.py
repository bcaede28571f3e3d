"""Accept connections on a listening socket, even if the system runs out of descriptors.

In that case, asyncio's own servers log more than a hundred tracebacks per second, because each failed accept starts a
timer (`BaseSelectorEventLoop._accept_connection`). Here new clients wait until a descriptor is free. This module knows
nothing about HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import time
from collections.abc import Callable
from typing import Final

from localapi.system.os_errors import advise
from localapi.system.timer import Timer

log = logging.getLogger(__name__)

AT_ONCE: Final = 100
"""Connections to accept before other tasks run."""
RETRY_SECONDS: Final = 0.5
QUIET_SECONDS: Final = 60.0
"""Minimum seconds between two log lines about the same shortage."""
ENOUGH_DESCRIPTORS: Final = 4096
"""Descriptors that should suffice. A shell's limit may be 256; a worker needs three, and a client one."""


def raise_limit() -> None:
    """Raise this process's limit of descriptors as far as allowed, up to ENOUGH_DESCRIPTORS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a lower limit of the system must not prevent the start
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Reader(asyncio.StreamReader):
    """Reader that sets `ended` at the end of its connection, even while nothing reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.ended.set()


Connected = Callable[[Reader, asyncio.StreamWriter], None]


class Door:
    """Acceptor that passes each connection to `connected` until it is closed."""

    def __init__(self, listening: socket.socket, connected: Connected) -> None:
        """Wrap a socket that does not block."""
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._connected = connected
        self._opening: set[asyncio.Task[None]] = set()
        self._retry = Timer(self._open)
        self._told_at = -QUIET_SECONDS
        self._open()

    def close(self) -> None:
        """Stop accepting connections; keep existing ones."""
        self._retry.stop()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for task in self._opening:
            task.cancel()

    def _open(self) -> None:
        self._loop.add_reader(self._listening, self._take)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._begin(connection), name="connection")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _pause(self, error: OSError) -> None:
        """Stop accepting for a while; because the socket stays readable, retrying at once would use a whole core."""
        self._loop.remove_reader(self._listening)
        self._retry.start(RETRY_SECONDS)
        if time.monotonic() - self._told_at < QUIET_SECONDS:
            return
        self._told_at = time.monotonic()
        log.error("cannot accept connections: %s. New clients wait", advise(error))

    async def _begin(self, connection: socket.socket) -> None:
        reader = Reader(self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, lambda _, w: self._connected(reader, w), loop=self._loop)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError as error:
            log.warning("cannot accept a connection: %s", error.strerror or error)
            connection.close()
