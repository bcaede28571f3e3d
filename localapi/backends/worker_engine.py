"""Engine in a worker: a separate process, with which the server communicates over a channel.

The worker inherits one end of a socket pair: there is no path that could be left behind, guessed or be too long, and
each side sees the end of the other as end of file. This module does not know what the worker loads.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import msgspec

from localapi.backends import process, ray_cluster
from localapi.backends.channel import Channel
from localapi.backends.engine import ReportLoading, Vitals
from localapi.backends.process import ChildProcess
from localapi.backends.ray_cluster import RemoteProcess, RemoteWriter, Site
from localapi.backends.token_rate import TokenRate
from localapi.backends.variables import NO_VARIABLES, NOT_FOR_ENGINES, Variables
from localapi.errors import (
    ApiError,
    ContextLengthExceeded,
    GenerationFailed,
    InvalidRequest,
    LoadBrokenOff,
    LoadFailed,
    ModelUnavailable,
    OutOfResources,
    PortTaken,
    WorkerEnded,
)
from localapi.system import free_ports
from localapi.system.free_ports import NO_PORTS, FreePorts
from localapi.system.os_errors import advise
from localapi.worker import protocol
from localapi.worker.protocol import (
    AWAITING_ROOM,
    Event,
    Failed,
    Last,
    Listening,
    Loaded,
    Loading,
    LoadRefused,
    Prefill,
    Rank,
    Request,
    Speculated,
    Step,
)

log = logging.getLogger(__name__)

_FAILURES: dict[str, type[ApiError]] = {
    "invalid_request": InvalidRequest,
    "context_length_exceeded": ContextLengthExceeded,
    "generation_failed": GenerationFailed,
}


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """Properties of a worker, apart from the model that it loads."""

    needs: str | None = None
    """Python package that the engine imports."""
    interpreter: Path | None = None
    """Python interpreter of another environment that has the package."""
    site: Site | None = None
    """Place on a cluster; None for this machine."""
    max_batch: int | None = None
    """Number of requests that the worker answers concurrently, if it queues more."""
    writes_tokens: bool = False
    variables: Variables = NO_VARIABLES
    """Variables that the entry sets in `env`, which is not an option of the engine."""


async def start_worker(
    name: str, engine: str, options: Mapping[str, Any], setup: WorkerSetup, report: ReportLoading
) -> WorkerEngine:
    """Start a worker, load a model in it, and return the engine. Raise LoadFailed.

    After any failure or cancellation, the process has ended when this returns.
    """
    if setup.site is not None:
        report(Loading(f"looking for a node of the cluster {setup.site.cluster}"))

    def on_wait(reason: str) -> None:
        report(Loading(AWAITING_ROOM, detail=reason))

    worker = await open_worker(name, setup, on_wait=on_wait)
    try:
        worker.load(engine, options)
        await worker.wait_until_loaded(report)
    except BaseException:
        await worker.close()
        raise
    return worker


async def open_worker(
    name: str, setup: WorkerSetup, *, ports: int = 0, on_wait: Callable[[str], None] = lambda _: None
) -> WorkerEngine:
    """Start a worker that does not load anything yet. Raise LoadFailed.

    `ports` ports are reserved for it until it loads something. `on_wait` is called with the reason if the cluster has
    no room for it now.
    """
    child: ChildProcess | RemoteProcess
    variables = setup.variables
    if setup.site is None:
        _check_package(setup.needs)
        child, reader, writer = await process.start_worker_process(
            lambda line: log.info("%s: %s", name, line),
            setup.interpreter,
            env=variables.all,
            hide=variables.secret.values(),
        )
        channel = Channel(reader, writer)
        try:
            kept = free_ports.keep("127.0.0.1", ports)
        except OSError as error:
            channel.close()
            await child.close()
            raise OutOfResources(f"No port for a worker is free: {advise(error)}.", number=error.errno) from error
    else:
        child = await ray_cluster.spawn(name, setup.site, setup.needs, variables, ports=ports, on_wait=on_wait)
        channel = Channel(child.reader, RemoteWriter(child))
        kept = FreePorts(child.addresses)
    return WorkerEngine(name, child, channel, kept, max_batch=setup.max_batch, writes_tokens=setup.writes_tokens)


def _check_package(needs: str | None) -> None:
    if needs is not None and importlib.util.find_spec(needs) is None:
        package = {"piper": "piper-tts"}.get(needs, needs.replace("_", "-"))
        raise LoadFailed(f"The package {package} is not installed here. Install it: uv pip install {package}")


class Mailbox:
    """Queue that passes events on to one request. It does not buffer: its reader takes the events as they arrive.

    `http.read_ahead` keeps and bounds what a slow client has not read yet.
    """

    def __init__(self) -> None:
        self.begun = False
        """True once an event has arrived."""
        self.progress: Prefill | Listening | None = None
        """Last event, if it was the progress of the work before the response."""
        self._events: deque[Event | ApiError] = deque()
        self._arrived = asyncio.Event()

    def put(self, event: Event | ApiError) -> None:
        self.begun = True
        self.progress = event if isinstance(event, Prefill | Listening) else None
        last = self._events[-1] if self._events else None
        if isinstance(last, ApiError) or isinstance(event, ApiError) or not protocol.join(last, event):
            self._events.append(event)
        self._arrived.set()

    async def get(self) -> Event:
        """Wait for the next event and return it, or raise the ApiError that took its place."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        if isinstance(event, ApiError):
            raise event
        return event


class WorkerEngine:
    """Engine in a worker; see `backends.engine.Engine`."""

    def __init__(
        self,
        name: str,
        child: ChildProcess | RemoteProcess,
        channel: Channel,
        ports: FreePorts = NO_PORTS,
        *,
        max_batch: int | None = None,
        writes_tokens: bool = False,
    ) -> None:
        self.name = name
        self.addresses = ports.addresses
        """Addresses at which it can listen: their ports are reserved until it loads something."""
        self.loaded = Loaded()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._child = child
        self._channel = channel
        self._ports = ports
        self._max_batch = max_batch
        self._writes_tokens = writes_tokens
        self._mailboxes: dict[int, Mailbox] = {}
        self._steps: asyncio.Task[None] | None = None
        """Task that distributes the worker's steps; None while the model loads."""
        self._closing = False
        self._fault = ""
        """Reason why the worker was ended, for people."""
        self._heard_at = time.monotonic()
        """Time of the last step, or of the last progress during loading; monotonic clock."""
        self._asked_at = self._heard_at
        self._owes_a_sign = False
        """True after a cancellation until the worker reports a step."""
        self._rate = TokenRate()
        self._device_bytes = 0
        """Accelerator memory, by the worker's last report."""
        self._speculated: Speculated | None = None
        self._queued = 0
        """Length of the worker's own queue, by its last report."""

    @property
    def _loading(self) -> bool:
        return self._steps is None

    @property
    def _works(self) -> bool:
        # A cancellation does not end the silence: otherwise, a hanging worker would never be ended if all clients
        # gave up before the watchdog acts.
        return bool(self._mailboxes) or self._owes_a_sign

    @property
    def _on_node(self) -> str:
        return f" on {self._child.node}" if self._child.node else ""

    def vitals(self) -> Vitals:
        boxes = self._mailboxes.values()
        running = sum(box.begun for box in boxes)
        unanswered = len(boxes) - running
        # Requests since the worker's last report may be queued too.
        beyond = 0 if self._max_batch is None else len(boxes) - self._max_batch
        working = [box.progress for box in boxes]
        prompts = [each for each in working if isinstance(each, Prefill) and each.done < each.total]
        files = [each for each in working if isinstance(each, Listening)]
        if not boxes:
            self._rate.reset()
        used = self._child.usage()
        return Vitals(
            running=running,
            unanswered=unanswered,
            queued=min(unanswered, max(self._queued, beyond)),
            max_batch=self._max_batch,
            prompt_tokens_done=sum(prompt.done for prompt in prompts),
            prompt_tokens_total=sum(prompt.total for prompt in prompts),
            sound_seconds_done=sum(file.done_seconds for file in files),
            sound_seconds_total=sum(max(file.done_seconds, file.total_seconds) for file in files),
            tokens_per_second=self._rate.per_second if self._writes_tokens else None,
            speculated=self._speculated,
            memory_bytes=used.memory_bytes if used else None,
            device_bytes=self._device_bytes,
            cpu_seconds=used.cpu_seconds if used else None,
            loading=self._loading,
            last_step_at=None if self._loading else self._heard_at,
            silent_since=max(self._heard_at, self._asked_at) if self._works or self._loading else None,
            pid=self._child.pid,
            node=self._child.node,
        )

    def end(self, reason: str) -> None:
        log.error("%s: worker %d%s %s", self.name, self._child.pid, self._on_node, reason)
        self._fault = reason
        self._child.kill()

    def load(self, engine: str, options: Mapping[str, Any], rank: Rank | None = None) -> None:
        """Let the worker load a model. `rank` is its place if other workers hold the rest of the model."""
        self._ports.release()
        its_own = {option: value for option, value in options.items() if option not in NOT_FOR_ENGINES}
        self._channel.send(protocol.LoadModel(engine, its_own, rank))

    async def wait_until_loaded(self, report: ReportLoading) -> None:
        """Report the progress until the model is loaded. Raise LoadFailed."""
        report(Loading("starting a worker"), self)
        while True:
            try:
                message = await self._channel.receive()
            except msgspec.MsgspecError as error:
                raise LoadFailed(f"The worker sent an invalid message: {error}") from error
            match message:
                case None:
                    how = self._fault or await self._child.how_it_ended()
                    raise LoadBrokenOff(f"The worker {how} while it loaded the model.")
                case Loading():
                    self._heard_at = time.monotonic()
                    report(message, self)
                case LoadRefused():
                    on_node = f"On the node {self._child.node}: " if self._child.node else ""
                    raise (PortTaken if message.port_taken else LoadFailed)(f"{on_node}{message.message}")
                case Loaded():
                    self._take(message)
                    return
                case Step():
                    raise LoadFailed("The worker replied before it had loaded the model.")
                case _:
                    assert_never(message)

    def _take(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._child.forget_usage()  # it grew during loading, and memory is planned by its size now
        if self._max_batch is not None and not loaded.batched:
            self._max_batch = 1
        self._device_bytes = loaded.device_bytes
        self._heard_at = time.monotonic()
        self._steps = asyncio.create_task(self._distribute(), name=f"steps of {self.name}")

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
                self._channel.send(protocol.Cancel(request.id))
                self._owes_a_sign = True

    def _ask(self, request: Request) -> None:
        try:
            self._channel.send(request)
        except (OverflowError, RecursionError, TypeError, msgspec.MsgspecError) as error:
            raise InvalidRequest(f"The request contains a value that cannot be sent to a model: {error}") from error

    async def close(self) -> None:
        """Close the channel, which makes the worker exit; kill it if it does not."""
        self._closing = True
        self._ports.release()
        self._fail_all("was unloaded")
        self._channel.close()
        try:
            if not await self._child.close():
                log.warning("%s: worker %d%s did not end by itself; killed", self.name, self._child.pid, self._on_node)
        finally:
            if self._steps is not None:
                self._steps.cancel()
                await asyncio.gather(self._steps, return_exceptions=True)

    async def _distribute(self) -> None:
        """Put each event into its request's mailbox until the worker ends."""
        try:
            while (message := await self._channel.receive()) is not None:
                if not isinstance(message, Step):
                    raise msgspec.ValidationError(f"{type(message).__name__} after loading")
                self._heard_at = time.monotonic()
                self._owes_a_sign = False
                self._device_bytes = message.device_bytes
                self._queued = message.waiting
                self._rate.note(message.tokens)
                self._speculated = message.speculated
                for event in message.events:
                    self._deliver(event)
        except msgspec.MsgspecError as error:
            self._child.kill()
            how = f"sent an invalid message ({error}) and was ended"
        else:
            how = self._fault or await self._child.how_it_ended()
        self._channel.close()
        if not self._closing:
            self._fail_all(how)
            self.ended.set_result(f"its worker {how}")

    def _deliver(self, event: Event) -> None:
        # The last event removes the mailbox, so that a completed request is not cancelled.
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
        return kind(f"The model's worker {how} before the response was complete. Send the request again.")
