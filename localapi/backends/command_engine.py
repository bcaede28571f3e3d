"""Engine in a program that this server has started and queries over HTTP.

Loaded only by servers that need it, because of the HTTP client.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from errno import EACCES, ENOENT, ENOEXEC, ENOTDIR
from http import HTTPStatus
from typing import Final

from localapi.backends import program
from localapi.backends.engine import ReportLoading, Vitals
from localapi.backends.http_engine import HttpEngine
from localapi.backends.placeholders import filled
from localapi.backends.process import describe_end
from localapi.backends.program import HOST, Launch, Program
from localapi.backends.upstream import Upstream
from localapi.errors import (
    ApiError,
    FilesUnreadable,
    LoadBrokenOff,
    LoadFailed,
    ModelUnavailable,
    PortTaken,
    UpstreamFailed,
    UpstreamUnavailable,
    WorkerEnded,
)
from localapi.system.os_errors import advise
from localapi.worker.protocol import Event, Loaded, Loading, Request

log = logging.getLogger(__name__)

PORT_ATTEMPTS: Final = 3
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0
PROBE_SECONDS: Final = 5.0
BROKEN_SECONDS: Final = 0.3
"""Pause between a broken connection and a check of its program."""
END_SECONDS: Final = 5.0
"""Time to wait for the end of a program whose connection has broken."""
SHOWN_LINES: Final = 5
SHOWN_CHARACTERS: Final = 300
"""Maximum length of an output line in an error."""
_NO_PROGRAM: Final = frozenset({ENOENT, ENOTDIR, EACCES, ENOEXEC})
_MISSING: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
_WANTS_KEY: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

_promised: set[int] = set()
"""Ports promised to programs that may not listen yet."""


async def start(launch: Launch, report: ReportLoading) -> CommandEngine:
    """Start a program and return its engine once it is ready. Raise LoadFailed, after which the program is gone."""
    for _ in range(PORT_ATTEMPTS):
        engine = CommandEngine(launch, _free_port())
        try:
            await engine.load(report)
        except PortTaken:
            await engine.close()
            log.info("%s: another program has taken port %d; trying another one", launch.name, engine.port)
        except BaseException:
            await engine.close()
            raise
        else:
            return engine
    raise LoadBrokenOff(f"Other programs took {PORT_ATTEMPTS} ports before this one could listen.")


def _free_port() -> int:
    """Return a port on which nothing listens, and reserve it within this process."""
    while True:
        with socket.socket() as free:
            free.bind((HOST, 0))
            port: int = free.getsockname()[1]
        if port not in _promised:
            _promised.add(port)
            return port


def _is_taken(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return True
    return False


class CommandEngine:
    """Engine in a program; see `backends.engine.Engine`."""

    def __init__(self, launch: Launch, port: int) -> None:
        self.name = launch.name
        self.port = port
        self.loaded = Loaded()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._launch = launch
        self._key = secrets.token_urlsafe(24) if launch.has_key else None
        self._program: Program | None = None
        self._watching: asyncio.Task[str] | None = None
        """Task that waits for the end of the program; its result describes the end, for people."""
        self._http: HttpEngine | None = None
        """None until the program is ready."""
        self._closing = False
        self._fault = ""
        """Reason why the program was ended, for people."""
        self._refusal = "nothing listens there"
        """Reason why the program is not ready, for people."""
        self._waiting = 0
        """Requests that wait for output of the program, not for a client."""
        self._heard_at = time.monotonic()

    # Loading

    async def load(self, report: ReportLoading) -> None:
        """Start the program and wait until it is ready. Raise LoadFailed or PortTaken."""
        launch = self._launch
        values = {**launch.values, "port": str(self.port), "key": self._key or ""}
        env = {name: filled(value, values) for name, value in launch.env.items()}
        hidden = [*launch.secrets.values(), *([self._key] if self._key else [])]
        report(Loading("starting the program"), self)
        try:
            self._program = await program.start(
                self.name,
                [filled(argument, values) for argument in launch.command],
                env={"PYTHONUNBUFFERED": "1", **env, **launch.secrets},
                folder=launch.folder,
                hide=hidden,
            )
        except OSError as error:
            if error.errno in _NO_PROGRAM:
                raise FilesUnreadable(f"The program cannot be started: {advise(error)}.") from error
            raise
        began = time.monotonic()
        self._watching = asyncio.create_task(self._watch(self._program), name=f"end of the program of {self.name}")
        probing = asyncio.create_task(self._until_ready(self._program, report, began), name=f"probes of {self.name}")
        try:
            await asyncio.wait(
                [probing, self._watching], timeout=launch.start_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if self._watching.done():
                raise self._ended_early(time.monotonic() - began)
            if not probing.done():
                raise await self._too_late(self._program)
            await probing
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        try:
            report(Loading("connecting"), self)
            place = Upstream(url=f"http://{HOST}:{self.port}", key=self._key, probe_path=f"/..{launch.ready[0]}")
            http = HttpEngine(self.name, place, launch.model)
            await http.connect()
            self._http = http
        except LoadFailed:
            await asyncio.wait([self._watching], timeout=END_SECONDS)
            if self._watching.done():
                raise self._ended_early(time.monotonic() - began) from None
            raise
        if self._watching.done():
            raise self._ended_early(time.monotonic() - began)
        self.loaded = self._http.loaded

    async def _until_ready(self, running: Program, report: ReportLoading, began: float) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not await self._is_ready(running):
            detail = f"{time.monotonic() - began:.0f} s"
            if running.output.last_line:
                detail += f", {running.output.last_line[:SHOWN_CHARACTERS]}"
            report(Loading("waiting until the program is ready", detail=detail), self)
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, LONGEST_PAUSE_SECONDS)

    async def _is_ready(self, running: Program) -> bool:
        for path in self._launch.ready:
            status = await self._status_of(path)
            if status is None:
                self._refusal = "nothing listens there"
                return False
            if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES or status in _WANTS_KEY:
                if await running.has_port(self.port):
                    return True
                self._refusal = "another program responds there"
                return False
            self._refusal = f"{path} has status {status}"
            if status not in _MISSING:
                return False
        return False

    async def _status_of(self, path: str) -> int | None:
        """Return the status of a path; None if the program does not respond."""
        with suppress(OSError, ValueError, IndexError, TimeoutError):
            async with asyncio.timeout(PROBE_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                try:
                    key = f"Authorization: Bearer {self._key}\r\n" if self._key else ""
                    writer.write(
                        f"GET {path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n{key}Connection: close\r\n\r\n".encode()
                    )
                    return int((await reader.readuntil(b"\r\n")).split()[1])
                finally:
                    writer.close()
        return None

    def _ended_early(self, seconds: float) -> LoadFailed:
        assert self._watching is not None  # noqa: S101  # the caller has looked
        if not self._fault and _is_taken(self.port):
            return PortTaken("Another program has taken the port meanwhile.")
        how = self._fault or self._watching.result()
        advice = " Keep it in the foreground." if how == describe_end(0) else ""
        return LoadBrokenOff(
            f"The program {how} after {seconds:.1f} s, before it was ready.{advice} {self._last_lines()}"
        )

    async def _too_late(self, running: Program) -> LoadFailed:
        ports = await running.listening_ports()
        if ports and self.port not in ports:
            listens_on = f"port{'s' * (len(ports) > 1)} {', '.join(map(str, sorted(ports)))}"
            self._refusal = f"it listens on {listens_on} instead; check how `command` passes {{port}} to it"
        elif ports and await self._status_of("/") is None:
            self._refusal = f"it does not respond at {HOST}; check how `command` passes {{host}} to it"
        return LoadBrokenOff(
            f"The program was not ready at http://{HOST}:{self.port} within {self._launch.start_seconds:g} s "
            f"(start_timeout): {self._refusal}. {self._last_lines()}"
        )

    def _last_lines(self) -> str:
        lines = list(self._program.output.last_lines)[-SHOWN_LINES:] if self._program is not None else []
        if not lines:
            return "It has printed nothing."
        return "Its last lines: " + " | ".join(line[:SHOWN_CHARACTERS] for line in lines)

    # Running

    async def _watch(self, running: Program) -> str:
        how = await running.wait()
        how = self._fault or how
        if self._http is not None and not self._closing:
            log.debug("%s: the last lines of the program: %s", self.name, self._last_lines())
            self.ended.set_result(f"its program {how}")
        return how

    def vitals(self) -> Vitals:
        used = self._program.usage() if self._program is not None else None
        memory_bytes = max(used.memory_bytes, self._launch.memory_bytes) if used is not None else None
        pid = self._program.pid if self._program is not None else None
        if self._http is None:
            return Vitals(loading=True, memory_bytes=memory_bytes, pid=pid)
        return replace(
            self._http.vitals(),
            memory_bytes=memory_bytes,
            # Only if it has requests: at other times, programs may compute as they like.
            cpu_seconds=used.cpu_seconds if used is not None and self._waiting else None,
            silent_since=self._heard_at if self._waiting else None,
            pid=pid,
        )

    def end(self, reason: str) -> None:
        log.error("%s: the program %s", self.name, reason)
        self._fault = reason
        if self._program is not None:
            self._program.kill()

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        if self._http is None or self.ended.done() or self._closing:
            raise self._gone("has ended")
        try:
            async with aclosing(self._http.answer(request)) as events:
                while True:
                    event = await self._next(events)
                    if event is None:
                        return
                    yield event
        except (UpstreamFailed, UpstreamUnavailable) as error:
            how = await self._fate()
            if how is None:
                raise
            raise self._gone(how) from error
        except Exception as error:
            if self._closing and not isinstance(error, ApiError):
                raise self._gone("was unloaded") from error
            raise

    async def _next(self, events: AsyncGenerator[Event, None]) -> Event | None:
        if not self._waiting:
            self._heard_at = time.monotonic()
        self._waiting += 1
        try:
            return await anext(events, None)
        finally:
            self._waiting -= 1
            self._heard_at = time.monotonic()

    async def _fate(self) -> str | None:
        """Return why the program can no longer answer, for people; None if it can."""
        if self._closing:
            return "was unloaded"
        assert self._watching is not None  # noqa: S101  # there was a request
        # A process that is ending may close a connection before its port.
        await asyncio.wait([self._watching], timeout=BROKEN_SECONDS)
        if not self._watching.done() and not await self._listens() and not self._closing:
            await asyncio.wait([self._watching], timeout=END_SECONDS)
            if not self._watching.done() and not self._closing:
                self.end("closed its port and was ended")
                await asyncio.wait([self._watching])
        return self._watching.result() if self._watching.done() else None

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except ConnectionError:
            return False
        except OSError:  # this server has run out of descriptors
            return True
        writer.close()
        return True

    def _gone(self, how: str) -> ModelUnavailable:
        kind = ModelUnavailable if self._closing else WorkerEnded
        return kind(f"The model's program {how} before the response was complete. Send the request again.")

    async def close(self) -> None:
        """Close the connections, and end the program and everything that it started."""
        self._closing = True
        try:
            if self._http is not None:
                await self._http.close()
        finally:
            if self._program is not None:
                await self._program.close(self._launch.stop_seconds)
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.gather(self._watching, return_exceptions=True)
            _promised.discard(self.port)
