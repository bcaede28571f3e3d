"""Second port for the same application, which an edit of the manifest opens, moves or closes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from localapi.errors import StartError
from localapi.http.hypercorn_server import serve

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.typing import ASGIFramework

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 5.0
"""Seconds between attempts to open a port that another program uses."""


class SecondPort:
    """Server on the port that was last requested. Requests on an earlier port are answered to their end."""

    def __init__(self, what: str, listen: Callable[[int], socket.socket], drain_seconds: Callable[[], float]) -> None:
        """Set what is served, for the log. `listen` returns a socket, or raises StartError."""
        self.port: int | None = None
        """Open port."""
        self.warning: str | None = None
        self._what = what
        self._listen = listen
        self._drain_seconds = drain_seconds
        self._wanted: int | None = None
        self._changed = asyncio.Event()
        self._closing: asyncio.Event | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def follow(self, port: int | None) -> None:
        """Set the port to serve on; None for no port."""
        self._wanted = port
        self._changed.set()

    async def run(self, app: ASGIFramework, config: Config) -> None:
        """Serve until cancelled."""
        try:
            while True:
                self._changed.clear()
                self._move(app, config)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_SECONDS if self.warning else None):
                        await self._changed.wait()
        finally:
            self._close()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def _move(self, app: ASGIFramework, config: Config) -> None:
        if self._wanted == self.port:
            self.warning = None
            return
        self._close()
        if self._wanted is None:
            self.warning = None
            return
        try:
            listening = self._listen(self._wanted)
        except StartError as error:
            if self.warning is None:
                log.warning("%s is not served: %s", self._what, error)
            self.warning = f"{self._what} is not served: {error}"
            return
        self.port, self.warning = self._wanted, None
        self._closing = asyncio.Event()
        task = asyncio.create_task(
            serve(app, config, listening, self._closing.wait(), grace_seconds=self._drain_seconds),
            name=f"port {self.port}",
        )
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        log.info("%s on port %d", self._what, self.port)

    def _close(self) -> None:
        if self._closing is not None:
            log.info("%s no longer on port %d", self._what, self.port)
            self._closing.set()
        self._closing, self.port = None, None
