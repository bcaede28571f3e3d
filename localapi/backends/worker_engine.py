"""The server's end of a worker: starting it, talking to it, and noticing its end.

The worker gets one end of a socket pair as an inherited descriptor: there is no path that could be left behind, guessed
or be too long, and both sides see the other's death as end of file. Knows nothing of what the worker loads.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import re
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, assert_never

import msgspec

from localapi.backends.engine import ReportLoading, Vitals
from localapi.backends.token_rate import Speed
from localapi.backends.variables import inherited
from localapi.errors import (
    ApiError,
    ContextLengthExceeded,
    GenerationFailed,
    InvalidRequest,
    LoadFailed,
    ModelUnavailable,
    OutOfResources,
    WorkerEnded,
)
from localapi.system import openblas_library
from localapi.system.os_errors import advise
from localapi.system.process_usage import Usage, usage
from localapi.worker import protocol
from localapi.worker.protocol import (
    Event,
    Failed,
    Last,
    Loaded,
    Loading,
    LoadRefused,
    Prefill,
    Request,
    Step,
)

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 4096
END_SECONDS = 5
"""How long a worker may take to end itself after its socket has closed."""
USAGE_SECONDS = 0.5
"""How old a measurement of a worker's process may be."""

BOOTSTRAP = Path(protocol.__file__).with_name("bootstrap.py")
_OF_THIS_PYTHON = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"})

_FAILURES: dict[str, type[ApiError]] = {
    "invalid_request": InvalidRequest,
    "context_length_exceeded": ContextLengthExceeded,
    "generation_failed": GenerationFailed,
}


async def start_worker(
    name: str,
    engine: str,
    options: Mapping[str, Any],
    *,
    report: ReportLoading,
    needs: str | None = None,
    interpreter: Path | None = None,
    max_batch: int | None = None,
    writes_tokens: bool = False,
) -> WorkerEngine:
    """Start a worker and load a model in it.

    `needs` is the Python package that the engine imports; `interpreter` the Python of another environment, which has
    it. `max_batch` is how many requests it answers concurrently, if more are queued inside it. Raises LoadFailed;
    whatever goes wrong, also a cancellation, the process has ended when this returns.
    """
    if needs is not None and importlib.util.find_spec(needs) is None:
        package = {"piper": "piper-tts"}.get(needs, needs.replace("_", "-"))
        raise LoadFailed(f"The package {package} is not installed here. Install it: uv pip install {package}")
    worker = await _spawn(name, interpreter)
    worker.max_batch = max_batch
    worker.writes_tokens = writes_tokens
    try:
        worker.send(protocol.Load(engine, dict(options)))
        await worker.wait_until_loaded(report)
    except BaseException:
        await worker.close()
        raise
    return worker


def _command(interpreter: Path | None) -> tuple[str, ...]:
    """What runs a worker, but for its socket."""
    if interpreter is None:
        return sys.executable, "-P", "-m", "localapi.worker"  # -P: no module of the current folder
    return str(interpreter), "-I", "-u", str(BOOTSTRAP)


def _variables(interpreter: Path | None) -> dict[str, str]:
    """A worker's environment. What says where this server's packages are, another Python is not told."""
    kept = {k: v for k, v in inherited().items() if interpreter is None or k not in _OF_THIS_PYTHON}
    library = openblas_library.package_library() if interpreter is not None else None
    if library is not None:  # environments have none of their own
        kept.setdefault(openblas_library.SWITCH, str(library))
    return {**kept, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}


def _folder() -> str:
    """Where a worker starts: where the server is, unless that folder was deleted. In none, engines fail to import."""
    try:
        return os.getcwd()
    except OSError:
        return os.sep


async def _spawn(name: str, interpreter: Path | None) -> WorkerEngine:
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise OutOfResources(f"No socket for a worker could be made: {advise(error)}.") from error
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)  # first: after the process nothing may be cancelled
        try:
            # Its own process group: Ctrl-C in the terminal reaches the server alone. Not its own session: Linux shares
            # the processor out by session (sched_autogroup), and on a busy machine the worker was a third slower so.
            process = await asyncio.create_subprocess_exec(
                *(*_command(interpreter), "--fd", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                process_group=0,
                env=_variables(interpreter),
                cwd=_folder(),
            )
        except BaseException as error:
            writer.close()
            if isinstance(error, OSError):
                raise OutOfResources(f"No worker process could be started: {advise(error)}.") from error
            raise
    return WorkerEngine(name, process, reader, writer)


class Mailbox:
    """Events on their way to one request. Text that nobody has fetched yet is joined: a slow reader costs no more."""

    def __init__(self) -> None:
        self.begun = False
        """Whether anything has come."""
        self.prefill: Prefill | None = None
        """How far the prompt is, while that is what is told."""
        self._events: deque[Event | ApiError] = deque()
        self._arrived = asyncio.Event()

    def put(self, event: Event | ApiError) -> None:
        self.begun = True
        self.prefill = event if isinstance(event, Prefill) else None
        last = self._events[-1] if self._events else None
        if isinstance(last, ApiError) or isinstance(event, ApiError) or not protocol.join(last, event):
            self._events.append(event)
        self._arrived.set()

    async def get(self) -> Event:
        """The next event. Raises the ApiError that was put in its place."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        if isinstance(event, ApiError):
            raise event
        return event


class WorkerEngine:
    """An engine in a process of its own; see `backends.engine.Engine`."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.name = name
        self.loaded = Loaded()
        self.max_batch: int | None = None
        self.writes_tokens = False
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process = process
        self._reader = reader
        self._writer = writer
        self._mailboxes: dict[int, Mailbox] = {}
        self._last_lines: deque[str] = deque(maxlen=5)
        self._output = asyncio.create_task(self._log_output(), name=f"output of {name}")
        self._frames: asyncio.Task[None] | None = None
        self._closing = False
        self._fault = ""
        self._heard_at = time.monotonic()
        """When it last told of a step, or how loading goes on; by the monotonic clock."""
        self._asked_at = self._heard_at
        self._owes_a_sign = False
        """Whether it was told of a client that left, and has told of nothing since."""
        self._speed = Speed()
        self._device_bytes = 0
        """Memory of an accelerator that it told of last."""
        self._queued = 0
        """Requests in the worker's own queue that it told of last."""
        self._usage: Usage | None = None
        self._measured_at = -USAGE_SECONDS

    @property
    def _loading(self) -> bool:
        return self._frames is None

    @property
    def _works(self) -> bool:
        # Clients that leave do not end its silence: one that hangs would never be ended if they all left before that
        # shows.
        return bool(self._mailboxes) or self._owes_a_sign

    def vitals(self) -> Vitals:
        boxes = self._mailboxes.values()
        running = sum(box.begun for box in boxes)
        unanswered = len(boxes) - running
        # What was asked since the worker last told of its queue may have to wait, too.
        beyond = 0 if self.max_batch is None else len(boxes) - self.max_batch
        prompts = [box.prefill for box in boxes if box.prefill is not None and box.prefill.done < box.prefill.total]
        if not boxes:
            self._speed.forget()
        used = self._measured()
        return Vitals(
            running=running,
            unanswered=unanswered,
            queued=min(unanswered, max(self._queued, beyond)),
            max_batch=self.max_batch,
            prompt_tokens_done=sum(prompt.done for prompt in prompts),
            prompt_tokens_total=sum(prompt.total for prompt in prompts),
            tokens_per_second=self._speed.now if self.writes_tokens else None,
            memory_bytes=used.memory_bytes if used else None,
            device_bytes=self._device_bytes,
            cpu_seconds=used.cpu_seconds if used else None,
            loading=self._loading,
            last_step_at=None if self._loading else self._heard_at,
            silent_since=max(self._heard_at, self._asked_at) if self._works or self._loading else None,
            pid=self._process.pid,
        )

    def _measured(self) -> Usage | None:
        now = time.monotonic()
        if now - self._measured_at >= USAGE_SECONDS:
            self._usage = usage(self._process.pid) if self._process.returncode is None else None
            self._measured_at = now
        return self._usage

    def end(self, reason: str) -> None:
        log.error("%s: worker %d %s", self.name, self._process.pid, reason)
        self._fault = reason
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            self._process.kill()

    def send(self, message: protocol.ToWorker) -> None:
        """Put a message on the way. Nothing happens when the worker has gone: `ended` tells that."""
        if not self._writer.is_closing():
            self._writer.write(protocol.frame(message))

    async def wait_until_loaded(self, report: ReportLoading) -> None:
        """Follow the worker until it serves. Raises LoadFailed."""
        report(Loading("starting a worker"), self)
        while True:
            try:
                message = await self._receive()
            except msgspec.MsgspecError as error:
                raise LoadFailed(f"The worker sent something that is no message: {error}") from error
            match message:
                case None:
                    how = self._fault or await self._how_it_ended()
                    raise LoadFailed(f"The worker {how} while it loaded the model.", retryable=None)
                case Loading():
                    self._heard_at = time.monotonic()
                    report(message, self)
                case LoadRefused():
                    raise LoadFailed(message.message)
                case Loaded():
                    self.loaded = message
                    if self.max_batch is not None and not message.batched:
                        self.max_batch = 1
                    self._device_bytes = message.device_bytes
                    self._heard_at = time.monotonic()
                    self._frames = asyncio.create_task(self._distribute(), name=f"frames of {self.name}")
                    return
                case Step():
                    raise LoadFailed("The worker answered before it had loaded.")
                case _:
                    assert_never(message)

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        if self.ended.done() or self._closing:
            raise self._gone("has ended")
        if not self._works:
            self._asked_at = time.monotonic()
        mailbox = self._mailboxes[request.id] = Mailbox()
        try:
            self._ask(request)
            while True:
                event = await mailbox.get()
                if isinstance(event, Failed):
                    raise _FAILURES[event.kind](event.message, param=event.param)
                yield event
                if isinstance(event, Last):
                    return
        finally:
            if self._mailboxes.pop(request.id, None) is not None:
                self.send(protocol.Cancel(request.id))
                self._owes_a_sign = True

    def _ask(self, request: Request) -> None:
        try:
            self.send(request)
        except (OverflowError, RecursionError, TypeError, msgspec.MsgspecError) as error:
            raise InvalidRequest(f"The request holds a value that no model can be sent: {error}") from error

    async def close(self) -> None:
        """Close the socket, on which the worker ends itself; kill it if it does not."""
        self._closing = True
        self._fail_all("was unloaded")
        self._writer.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            log.warning("%s: worker %d did not end by itself; killed", self.name, self._process.pid)
            self._kill()
            await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._kill()
            for task in filter(None, (self._frames, self._output)):
                task.cancel()
            await asyncio.gather(*filter(None, (self._frames, self._output)), return_exceptions=True)

    async def _receive(self) -> protocol.ToServer | None:
        """The next message, or None at the end. Raises msgspec.MsgspecError on a frame that is none."""
        try:
            (length,) = protocol.LENGTH.unpack(await self._reader.readexactly(protocol.LENGTH.size))
            if length > protocol.MAX_FRAME_BYTES:
                raise msgspec.DecodeError(f"a frame of {length} bytes")
            return protocol.decode_to_server(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def _distribute(self) -> None:
        """Bring each event to the request that waits for it, until the worker ends."""
        try:
            while (message := await self._receive()) is not None:
                if not isinstance(message, Step):
                    raise msgspec.ValidationError(f"{type(message).__name__} after loading")
                self._heard_at = time.monotonic()
                self._owes_a_sign = False
                self._device_bytes = message.device_bytes
                self._queued = message.waiting
                self._speed.note(message.tokens)
                for event in message.events:
                    self._deliver(event)
        except msgspec.MsgspecError as error:
            self._kill()
            how = f"sent something that is no message ({error}) and was ended"
        else:
            how = self._fault or await self._how_it_ended()
        self._writer.close()
        if not self._closing:
            self._fail_all(how)
            self.ended.set_result(f"its worker {how}")

    def _deliver(self, event: Event) -> None:
        # The last event takes the mailbox out of the table, so that nothing is cancelled that has already ended.
        finished = isinstance(event, Last)
        mailbox = self._mailboxes.pop(event.id, None) if finished else self._mailboxes.get(event.id)
        if mailbox is not None:
            mailbox.put(event)

    def _fail_all(self, how: str) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.put(self._gone(how))
        self._mailboxes.clear()

    def _gone(self, how: str) -> ModelUnavailable:
        kind = ModelUnavailable if self._closing else WorkerEnded
        return kind(f"The model's worker {how} before the answer was complete. Send the request again.")

    async def _how_it_ended(self) -> str:
        """For people: "was killed by SIGKILL", "ended with exit status 1 (its last words)"."""
        try:
            async with asyncio.timeout(END_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            self._kill()
            return "closed its socket and did not end"
        if status < 0:
            known = {number.value: number.name for number in signal.Signals}
            return f"was killed by {known.get(-status, f'signal {-status}')}"
        await asyncio.wait([self._output], timeout=1)
        words = f" ({self._last_lines[-1]})" if self._last_lines else ""
        return f"ended with exit status {status}{words}"

    async def _log_output(self) -> None:
        """The worker's stdout and stderr, line by line. A progress bar's carriage returns end lines too."""
        assert self._process.stdout is not None  # noqa: S101  # it was started with a pipe
        rest = b""
        while chunk := await self._process.stdout.read(MAX_LINE_BYTES):
            *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
            for line in lines:
                self._log_line(line)
            if len(rest) > MAX_LINE_BYTES:
                self._log_line(rest)
                rest = b""
        self._log_line(rest)

    def _log_line(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            self._last_lines.append(text)
            log.info("%s: %s", self.name, text)
