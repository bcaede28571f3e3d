"""Third-party program as a child process, with everything that it starts.

`system.guard` starts it, and makes sure that nothing is left of it, even if this server is killed.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from localapi.backends import process
from localapi.backends.placeholders import placeholders_in
from localapi.backends.process import ChildProcess, Output, describe_end
from localapi.backends.upstream import Sought
from localapi.system import guard, process_usage
from localapi.system.process_usage import Usage
from localapi.system.threads import aside

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
TREE_SECONDS: Final = 2.0
"""Maximum age of the list of processes that a program has started."""
_KILL_SECONDS: Final = guard.KILL_SECONDS + process.END_SECONDS


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Program to start, with its arguments and environment."""

    name: str
    """Name of the entry."""
    command: list[str]
    """Arguments, with placeholders as in the values of `env`; the first item is the path of the program."""
    env: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    """Further variables, without placeholders, whose values no message may show."""
    folder: Path
    values: Mapping[str, str]
    """Values of the placeholders, except the port and the key."""
    model: Sought
    ready: tuple[str, ...]
    """Paths to probe for readiness; each is tried if the one before does not exist."""
    start_seconds: float
    stop_seconds: float
    memory_bytes: int
    """Minimum memory of the program."""

    @property
    def has_key(self) -> bool:
        """True if the program receives a secret that requests must carry."""
        return any("key" in placeholders_in(text) for text in (*self.command, *self.env.values()))


async def start(
    name: str, command: Sequence[str], *, env: Mapping[str, str], folder: Path, hide: Iterable[str] = ()
) -> Program:
    """Start a program in a folder; `env` is added to the server's own environment.

    Its output is logged with `name`, without the secrets in `hide`. Raise OSError if it cannot be started. After any
    failure or cancellation, nothing of it is left.
    """
    mark = secrets.token_hex(16)
    child, reader, writer = await process.start_connected(
        *(sys.executable, "-I", guard.__file__), on_line=lambda line: log.info("%s: %s", name, line), hide=hide
    )
    program = Program(name, child, writer, mark)
    try:
        what = {"command": list(command), "cwd": str(folder), "env": {**process.inherited(), **env, guard.MARK: mark}}
        writer.write(json.dumps(what).encode() + b"\n")
        program.pid = _pid_of(await reader.readline(), command[0])
        program.watch(reader)
    except BaseException:
        await program.close(0)
        raise
    return program


def _pid_of(reply: bytes, name: str) -> int:
    """Return the process id that a guard reports. Raise OSError if it reports one instead."""
    what = json.loads(reply or b"{}")
    if "pid" in what:
        return int(what["pid"])
    number = int(what.get("errno", errno.ECHILD))
    raise OSError(number, os.strerror(number), name)


class Program:
    """One running program."""

    pid: int
    """Process id of the program itself, not of its guard."""

    def __init__(self, name: str, child: ChildProcess, connection: asyncio.StreamWriter, mark: str) -> None:
        self._name = name
        self._guard = child
        self._connection = connection
        self._mark = mark
        self._tree: tuple[int, ...] = (child.pid,)
        self._tree_known_at = -TREE_SECONDS
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[str] | None = None

    def watch(self, reader: asyncio.StreamReader) -> None:
        """Detect the end of the program by the end of the connection."""
        self._watching = asyncio.create_task(self._watch(reader), name=f"end of {self._name}")

    async def _watch(self, reader: asyncio.StreamReader) -> str:
        await reader.read()
        # A guard that was killed leaves something behind that keeps the output open.
        await aside(self._kill_marked)
        return describe_end(await self._guard.wait())

    def _kill_marked(self) -> None:
        guard.kill(lambda: guard.marked(self._mark))

    @property
    def output(self) -> Output:
        """Output of the program and its children."""
        return self._guard.output

    async def wait(self) -> str:
        """Wait until the program has ended, and describe its end, for people."""
        assert self._watching is not None  # noqa: S101  # it has started
        return await asyncio.shield(self._watching)

    def usage(self) -> Usage | None:
        """Return a recent measurement of all its processes together; None if they have ended."""
        if time.monotonic() - self._tree_known_at >= TREE_SECONDS and self._looking is None:
            self._looking = asyncio.create_task(self._look(), name=f"processes of {self._name}")
        return self._guard.usage(self._tree)

    async def look(self) -> None:
        """Find the processes that it has started, and measure all of them anew."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name=f"processes of {self._name}")
        await self._looking
        self._guard.forget_usage()

    async def _look(self) -> None:
        try:
            self._tree = await aside(lambda: process_usage.with_descendants(self._guard.pid))
        finally:
            self._tree_known_at = time.monotonic()
            self._looking = None

    async def has_port(self, port: int) -> bool:
        """Return False if the program has ended, or if its port is known to be used by another program's process.

        A program in a container gets its port from another process, which may not be identifiable.
        """
        ports = await self.listening_ports()
        if self.pid not in self._tree:  # it has ended, and what it left behind is about to be killed
            return False
        if port in ports:
            return True
        listener = await aside(lambda: process_usage.environment_of_listener(port))
        return not ports if listener is None else listener.get(guard.MARK) == self._mark

    async def listening_ports(self) -> set[int]:
        """Return the TCP ports that the program listens on."""
        await self.look()
        return await aside(lambda: process_usage.listening_ports(*self._tree))

    def kill(self) -> None:
        """Kill the program and everything that it started."""
        self._connection.close()

    async def close(self, seconds: float) -> None:
        """Ask the program to end, kill it after this many seconds, and kill everything that is left of it."""
        if seconds > 0 and not self._connection.is_closing():
            self._connection.write(b"T")
            if not await self._guard.ends_within(seconds):
                log.warning("%s: the program did not end within %g s; killed", self._name, seconds)
        self._connection.close()
        try:
            await aside(self._kill_marked)
            await self._guard.close(_KILL_SECONDS)
        finally:
            tasks = [task for task in (self._looking, self._watching) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
