"""Child processes: start, environment, output, resource usage and end, however they behave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from localapi.errors import OutOfResources
from localapi.system import openblas_library, process_usage
from localapi.system.os_errors import advise
from localapi.system.process_usage import Usage
from localapi.worker import protocol

MAX_LINE_BYTES: Final = 4096
MOST_LINES: Final = 500
"""Maximum lines passed on within WINDOW_SECONDS."""
WINDOW_SECONDS: Final = 10.0
KEPT_LINES: Final = 20
"""Number of last lines that are remembered."""
SHORTEST_HIDDEN: Final = 4
"""Length of the shortest value that is hidden as a secret; shorter ones would be found in ordinary words."""
_READ_BYTES: Final = 2**16
_HIDDEN: Final = "[hidden]"


class Output:
    """Reader of stdout and stderr of one process. `on_line` gets the lines; secrets in `hide` are removed from them."""

    def __init__(self, on_line: Callable[[str], None], hide: Iterable[str] = ()) -> None:
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self._hide = [secret for secret in hide if len(secret) >= SHORTEST_HIDDEN]
        self._window_began = -WINDOW_SECONDS
        self._lines = 0
        """Lines passed on in this window."""
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        """Timer that reports the number of dropped lines at the end of the window."""

    @property
    def last_line(self) -> str:
        """Last line so far; empty if there is none."""
        return self.last_lines[-1] if self.last_lines else ""

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read line by line until the end. A carriage return, as in a progress bar, also ends a line."""
        rest = b""
        try:
            while chunk := await stream.read(_READ_BYTES):
                *lines, rest = re.split(rb"[\r\n]+", self._shortened(rest + chunk))
                while len(rest) > MAX_LINE_BYTES:
                    lines.append(rest[:MAX_LINE_BYTES])
                    rest = rest[MAX_LINE_BYTES:]
                for line in lines:
                    self._take(line)
            self._take(rest)
        finally:
            self._tell_dropped()

    def _shortened(self, chunk: bytes) -> bytes:
        """Return only the end of a chunk if no more lines are passed on, because splitting all of it takes long."""
        if not self._is_full or len(chunk) <= MAX_LINE_BYTES:
            return chunk
        skipped, kept = chunk[:-MAX_LINE_BYTES], chunk[-MAX_LINE_BYTES:]
        self._drop(max(1, skipped.count(b"\n")))
        return kept

    @property
    def _is_full(self) -> bool:
        return self._lines >= MOST_LINES and time.monotonic() - self._window_began < WINDOW_SECONDS

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if not text:
            return
        for secret in self._hide:
            text = text.replace(secret, _HIDDEN)
        self.last_lines.append(text)
        if self._is_full:
            self._drop(1)
            return
        now = time.monotonic()
        if now - self._window_began >= WINDOW_SECONDS:
            self._tell_dropped()
            self._window_began, self._lines = now, 0
        self._lines += 1
        self._on_line(text)

    def _drop(self, lines: int) -> None:
        self._dropped += lines
        if self._timer is None:
            seconds = self._window_began + WINDOW_SECONDS - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(seconds, self._tell_dropped)

    def _tell_dropped(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dropped:
            self._on_line(f"[{self._dropped} more lines were dropped: more than {MOST_LINES} in {WINDOW_SECONDS:g} s]")
            self._dropped = 0


END_SECONDS: Final = 5
"""Time for a process to end after its connection was closed."""
USAGE_SECONDS: Final = 0.5
"""Maximum age of a measurement."""

CLUSTER_TOKEN: Final = "RAY_AUTH_TOKEN"  # noqa: S105  # its name
"""Variable that grants access to a Ray cluster, for the gateway only."""
BOOTSTRAP = Path(protocol.__file__).parent.with_name("bootstrap.py")
_OF_THIS_PYTHON = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"})
_withheld = {"LOCALAPI_API_KEY", CLUSTER_TOKEN}

_OF_THE_HUB: Final = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
"""Variables that workers need for downloads, even if another option also names them as secrets."""


def withhold(names: Iterable[str]) -> None:
    """Withhold these variables from all children from now on. A former key stays withheld if the manifest changes."""
    _withheld.update(set(names) - _OF_THE_HUB)


def inherited() -> dict[str, str]:
    """Return the environment of a child process: the server's own, without API keys and other secrets of entries.

    A child runs other people's libraries on other people's files, and needs no key. It is unknown which other variables
    it needs (HF_HOME, proxies, settings of libraries), so all of them are passed on.
    """
    return {name: value for name, value in os.environ.items() if name not in _withheld}


async def start(
    *command: str,
    on_line: Callable[[str], None],
    fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    hide: Iterable[str] = (),
) -> ChildProcess:
    """Start a program; `on_line` gets the lines of its output, without the secrets in `hide`.

    Raise OSError if it cannot be started.
    """
    await process_usage.prepare()
    # Its own process group: Ctrl-C in the terminal reaches only the server. Not its own session: Linux distributes
    # processor time by session (sched_autogroup), and with sessions a worker was a third slower on a busy machine.
    process = await asyncio.create_subprocess_exec(
        *command,
        pass_fds=fds,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        process_group=0,
        env=inherited() if env is None else env,
        cwd=_folder(),
    )
    assert process.stdout is not None  # noqa: S101  # it was started with a pipe
    output = Output(on_line, hide)
    reading = asyncio.create_task(output.read(process.stdout), name=f"output of process {process.pid}")
    return ChildProcess(process, output, reading)


async def start_connected(
    *command: str,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    hide: Iterable[str] = (),
) -> tuple[ChildProcess, StreamReader, StreamWriter]:
    """Start a program that inherits one end of a socket pair, and return it with our end.

    The descriptor is the program's last argument. See `start` for the rest.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        # first, because nothing may be cancelled once the process exists
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            fd = theirs.fileno()
            return await start(*command, str(fd), on_line=on_line, fds=[fd], env=env, hide=hide), reader, writer
        except BaseException:
            writer.close()
            raise


async def start_worker_process(
    on_line: Callable[[str], None],
    interpreter: Path | None = None,
    *,
    env: Mapping[str, str] = MappingProxyType({}),
    hide: Iterable[str] = (),
) -> tuple[ChildProcess, StreamReader, StreamWriter]:
    """Start a worker and return its process and our end of its socket. Raise OutOfResources.

    `on_line` gets the lines of its output, without the secrets in `hide`; `interpreter` is the Python of another
    environment. `env` is added to the server's own variables.
    """
    command = [sys.executable, "-P", "-m", "localapi.worker"]  # -P: no module of the current folder
    if interpreter is not None:
        command = [str(interpreter), "-I", "-u", str(BOOTSTRAP)]
    env = {**worker_variables(interpreter), **env}
    try:
        return await start_connected(*command, "--fd", on_line=on_line, env=env, hide=hide)
    except OSError as error:
        raise OutOfResources(f"No worker process could be started: {advise(error)}.", number=error.errno) from error


def worker_variables(interpreter: Path | None) -> dict[str, str]:
    """Return a worker's environment. Another interpreter is not told where this server's packages are."""
    variables = {**inherited(), "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if interpreter is None:
        return variables
    library = openblas_library.package_library()
    if library is not None:  # environments have no packages of their own
        variables.setdefault(openblas_library.SWITCH, str(library))
    return {name: value for name, value in variables.items() if name not in _OF_THIS_PYTHON}


def _folder() -> str:
    """Return the server's folder, or the root if that folder was deleted, because Python needs one to import."""
    try:
        return os.getcwd()
    except OSError:
        return os.sep


def kill_group(process: Process) -> None:
    """Kill a process that leads a process group, and everything that it started."""
    if process.returncode is None:
        # macOS returns EPERM if only a zombie is left of the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def describe_end(status: int) -> str:
    """Return how a process ended, for people: "was killed by SIGKILL", "ended with exit status 1"."""
    if status >= 0:
        return f"ended with exit status {status}"
    known = {number.value: number.name for number in signal.Signals}
    return f"was killed by {known.get(-status, f'signal {-status}')}"


class ChildProcess:
    """Program with its own process group, whose output is read as it arrives."""

    node: None = None
    """Node on which it runs; None, because that is this machine."""

    def __init__(self, process: Process, output: Output, reading: asyncio.Task[None]) -> None:
        self.pid = process.pid
        self.output = output
        self._process = process
        self._reading = reading
        """Task that reads the output to its end."""
        self._usage: Usage | None = None
        self._measured_at = -USAGE_SECONDS

    def usage(self, pids: Sequence[int] = ()) -> Usage | None:
        """Return a recent measurement, or None if the process has ended.

        `pids` are the processes to measure together; default: only this one.
        """
        now = time.monotonic()
        if now - self._measured_at >= USAGE_SECONDS:
            ended = self._process.returncode is not None
            self._usage = None if ended else process_usage.usage(*(pids or (self.pid,)))
            self._measured_at = now
        return self._usage

    def forget_usage(self) -> None:
        """Measure anew at the next call: earlier measurements no longer show how large the process is."""
        self._measured_at = -USAGE_SECONDS

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        kill_group(self._process)

    async def wait(self) -> int:
        """Wait until the process has ended and its output is read. Return its exit status, -9 if it was killed."""
        status = await self._process.wait()
        # Another process may have inherited the output and keep it open.
        await asyncio.wait([self._reading], timeout=1)
        return status

    async def how_it_ended(self) -> str:
        """Return how the process ended, for people. Kill it if it does not end although its connection is closed."""
        try:
            async with asyncio.timeout(END_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            self.kill()
            return "closed its socket and did not end"
        if status < 0:
            return describe_end(status)
        await self.wait()
        return f"{describe_end(status)} ({self.output.last_line})" if self.output.last_line else describe_end(status)

    async def ends_within(self, seconds: float) -> bool:
        """Return whether the process ends within this time."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, seconds: float = END_SECONDS) -> bool:
        """Wait until the process ends, and kill it after this many seconds. Return whether it ended by itself."""
        try:
            ended = await self.ends_within(seconds)
            if not ended:
                self.kill()
                await self._process.wait()
        finally:
            self.kill()
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        return ended
