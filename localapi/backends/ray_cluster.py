"""A Ray cluster as the server sees it: the gateway process that talks to Ray, and workers on its nodes.

The gateway of an address starts with its first user, and ends with its last one. After it has ended, it can start
again: Ray may crash, or the cluster may be restarted.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import logging
import os
import sys
from asyncio import StreamReader
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from localapi.backends import process
from localapi.backends.channel import Writer, read_frame
from localapi.backends.process import END_SECONDS, ChildProcess
from localapi.backends.variables import Variables
from localapi.cluster import protocol
from localapi.cluster.protocol import (
    Ended,
    FromNode,
    Node,
    Nodes,
    NotConnected,
    NotReserved,
    NotStarted,
    Release,
    Requirements,
    Reserve,
    Reserved,
    Seat,
    Start,
    Started,
    Stop,
    ToGateway,
    ToNode,
    Waiting,
)
from localapi.errors import LoadBrokenOff, LoadFailed, OutOfResources
from localapi.system.os_errors import advise
from localapi.system.process_usage import Usage
from localapi.worker.protocol import frame

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 10.0
"""Extra time that a node may take to report the end of its worker."""


class ClusterUnavailable(LoadFailed):
    """The cluster cannot be used now. The next attempt may or may not succeed."""

    retryable = None


@dataclass(frozen=True)
class Site:
    """Place where a worker should run."""

    cluster: str
    """Address of the cluster, or "auto"."""
    place: Requirements
    seat: Seat | None = None
    """Part of a reservation to use, if there is one."""


class RemoteProcess:
    """Worker on a node: the counterpart of `ChildProcess` for workers on this machine."""

    def __init__(self, gateway: Gateway, number: int, name: str) -> None:
        self.pid = 0
        self.node: str | None = None
        """Name of the node, once there is one."""
        self.addresses: Sequence[str] = ()
        """Addresses of the ports that the node reserves for it until its first message."""
        self.held = AsyncExitStack()
        """Resource that keeps the gateway running."""
        self.reader = StreamReader()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the process runs; LoadFailed if it could not be started."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done when the process has ended; the result describes the end, for people."""
        self._gateway = gateway
        self._number = number
        self._name = name
        self._usage: Usage | None = None
        self.on_wait: Callable[[str], None] = lambda _: None
        """Function that is called with the reason if the worker waits for room."""

    def take(self, message: Started | Waiting | NotStarted | FromNode | Ended) -> None:
        """Handle a message of the gateway about this worker."""
        match message:
            case Started():
                self.node, self.pid, self.addresses = message.node, message.pid, message.addresses
                if not self.started.done():
                    self.started.set_result(None)
            case Waiting(message=text):
                self.on_wait(text)
            case NotStarted(message=text):
                self._settle(text, LoadBrokenOff(text))
            case FromNode():
                for line in message.lines:
                    log.info("%s: %s", self._name, line)
                if message.memory_bytes is not None and message.cpu_seconds is not None:
                    self._usage = Usage(message.memory_bytes, message.cpu_seconds)
                if message.data:
                    self.reader.feed_data(message.data)
            case Ended(how=how):
                self.lose(how)

    def lose(self, how: str) -> None:
        """Record that nothing more arrives from this worker."""
        self._settle(how, LoadBrokenOff(f"The worker {how}."))

    def _settle(self, how: str, failure: LoadFailed) -> None:
        if not self.started.done():
            self.started.set_exception(failure)
        if not self.ended.done():
            self.ended.set_result(how)
            self.reader.feed_eof()

    def usage(self) -> Usage | None:
        """Return the last measurement, up to a second old, or None if there is none or the process has ended."""
        return None if self.ended.done() else self._usage

    def forget_usage(self) -> None:
        """Do nothing: measurements arrive by themselves."""

    def write(self, data: bytes) -> None:
        self._gateway.send(ToNode(self._number, data))

    def stop(self, seconds: float) -> None:
        if not self.ended.done():
            self._gateway.send(Stop(self._number, seconds))

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        self.stop(0)

    async def how_it_ended(self) -> str:
        """Return how the process ended, for people. Kill it if it does not end although its connection is closed."""
        return await self.ended

    async def close(self, seconds: float = END_SECONDS) -> bool:
        """Wait until the process ends, and kill it after this many seconds. Return whether it ended by itself."""
        self.stop(seconds)
        done, _ = await asyncio.wait([self.ended], timeout=seconds + GRACE_SECONDS)
        await self.held.aclose()
        return bool(done)


class RemoteWriter:
    """Sink of bytes for a worker on a node; see `backends.channel.Writer`."""

    def __init__(self, remote: RemoteProcess) -> None:
        self._remote = remote
        self._closed = False

    def write(self, data: bytes) -> None:
        self._remote.write(data)

    def is_closing(self) -> bool:
        return self._closed or self._remote.ended.done()

    def close(self) -> None:
        if not self.is_closing():
            self._remote.stop(END_SECONDS)
        self._closed = True


class Gateway:
    """Process that talks to one cluster. Create it with `_open`; use it with `using`."""

    def __init__(self, address: str, child: ChildProcess, reader: StreamReader, writer: Writer) -> None:
        self.address = address
        self.nodes: list[Node] = []
        self.ended = False
        """True if the process has ended, or is ending."""
        self.listeners: list[Callable[[], None]] = []
        """Functions that are called when the nodes have changed, or the process has ended."""
        self._child = child
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._workers: dict[int, RemoteProcess] = {}
        self._groups: dict[int, asyncio.Future[None]] = {}
        """Reservations that wait for room."""
        self._messages: asyncio.Task[None]

    def send(self, message: ToGateway) -> None:
        """Send a message, or nothing if the process has ended."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def connected(self) -> None:
        """Wait until the gateway has joined the cluster. Raise ClusterUnavailable."""
        message = await self._next()
        match message:
            case Nodes(nodes=nodes):
                self.nodes = nodes
            case NotConnected(message=reason):
                raise ClusterUnavailable(f"The Ray cluster {self.address} cannot be used: {reason}")
            case _:
                how = await self._child.how_it_ended()
                raise ClusterUnavailable(f"The gateway to the Ray cluster {self.address} {how}.")
        self._messages = asyncio.create_task(self._distribute(), name=f"gateway to {self.address}")

    async def _next(self) -> protocol.ToServer | None:
        body = await read_frame(self._reader)
        return None if body is None else protocol.decode_to_server(body)

    async def _distribute(self) -> None:
        """Pass each message on to its worker, until the process ends."""
        try:
            while True:
                message = await self._next()
                match message:
                    case None:
                        break
                    case Nodes(nodes=nodes):
                        self.nodes = nodes
                        self._tell()
                    case NotConnected():
                        pass
                    case Reserved(group=number):
                        self._answer_group(number, None)
                    case NotReserved(group=number, message=text):
                        self._answer_group(number, LoadBrokenOff(text))
                    case _:
                        worker = self._workers.get(message.worker)
                        if worker is not None:
                            worker.take(message)
                            if worker.ended.done():
                                del self._workers[message.worker]
            how = process.describe_end(await self._child.wait())
        except msgspec.MsgspecError as error:
            how = f"sent an invalid message ({error})"
        log.error("cluster %s: the gateway %s", self.address, how)
        self._lose_all(f"was lost: the gateway to its cluster {how}")

    def _answer_group(self, number: int, failure: LoadFailed | None) -> None:
        waiting = self._groups.get(number)
        if waiting is None or waiting.done():
            return
        if failure is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(failure)

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()

    def _lose_all(self, how: str) -> None:
        self._writer.close()
        self.ended = True
        self._tell()
        for worker in self._workers.values():
            worker.lose(how)
        self._workers.clear()
        for number in self._groups:
            self._answer_group(number, ClusterUnavailable(f"The room for its ranks {how}."))

    async def reserve(self, group: int, place: Requirements, count: int) -> None:
        """Wait until there is room for this many workers at once. Raise LoadFailed."""
        if self.ended:
            raise ClusterUnavailable(f"The gateway to the Ray cluster {self.address} has ended.")
        waiting = self._groups[group] = asyncio.get_running_loop().create_future()
        try:
            self.send(Reserve(group, place, count))
            await waiting
        finally:
            del self._groups[group]

    def start(self, name: str, site: Site, needs: str | None, variables: Variables, ports: int) -> RemoteProcess:
        """Return a worker that is about to be started on a node."""
        number = next(self._numbers)
        remote = RemoteProcess(self, number, name)
        if self.ended:
            remote.lose("was not started: the gateway to its cluster has ended")
        else:
            self._workers[number] = remote
            env, secrets = dict(variables.all), list(variables.secret.values())
            start = Start(
                worker=number, place=site.place, needs=needs, env=env, secrets=secrets, seat=site.seat, ports=ports
            )
            self.send(start)
        return remote

    async def close(self) -> None:
        """Leave the cluster: Ray ends all workers that are left."""
        if hasattr(self, "_messages"):
            self._messages.cancel()
            await asyncio.gather(self._messages, return_exceptions=True)
        self._lose_all("was ended with the gateway to its cluster")
        await self._child.close(GRACE_SECONDS)


@asynccontextmanager
async def reserved(site: Site, count: int) -> AsyncIterator[list[Site]]:
    """Reserve room for this many workers at once, and yield the site of each. Raise LoadFailed."""
    group = next(_group_numbers)
    async with using(site.cluster) as gateway:
        try:
            await gateway.reserve(group, site.place, count)
            yield [replace(site, seat=Seat(group, number)) for number in range(count)]
        finally:
            gateway.send(Release(group))


async def spawn(
    name: str,
    site: Site,
    needs: str | None,
    variables: Variables,
    *,
    ports: int,
    on_wait: Callable[[str], None],
) -> RemoteProcess:
    """Start a worker on a node and return it when its process runs. Raise LoadFailed.

    The node reserves `ports` ports for it until its first message. `on_wait` is called with the reason if there is no
    room for it now.

    After any failure or cancellation, the process has ended when this returns.
    """
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(using(site.cluster))
        remote = gateway.start(name, site, needs, variables, ports)
        remote.on_wait = on_wait
        remote.held = stack.pop_all()
    try:
        await remote.started
    except BaseException:
        await remote.close()
        raise
    return remote


async def _open(address: str) -> Gateway:
    """Start a gateway, and return it when it has joined the cluster. Raise ClusterUnavailable and OutOfResources."""
    if importlib.util.find_spec("ray") is None:
        raise ClusterUnavailable("The package ray is not installed here. Install it: uv pip install 'localapi[ray]'")
    token = {name: os.environ[name] for name in (process.CLUSTER_TOKEN,) if name in os.environ}
    try:
        child, reader, writer = await process.start_connected(
            *(sys.executable, "-P", "-m", "localapi.cluster", "--address", address, "--fd"),
            on_line=lambda line: log.debug("cluster %s: %s", address, line),  # Ray prints much, also about other jobs
            env={**process.inherited(), **token},
        )
    except OSError as error:
        raise OutOfResources(
            f"No gateway to the cluster could be started: {advise(error)}.", number=error.errno
        ) from error
    gateway = Gateway(address, child, reader, writer)
    try:
        await gateway.connected()
    except BaseException:
        await gateway.close()
        raise
    return gateway


class _Shared:
    """Gateway shared by all users of a cluster."""

    def __init__(self, address: str) -> None:
        self.holders = 0
        self._address = address
        self._opening: asyncio.Task[Gateway] | None = None

    async def gateway(self) -> Gateway:
        """Return the gateway. Callers during its start share the result, including a failure."""
        if self._opening is not None and self._opening.done():
            opened = self._opening
            if opened.cancelled() or opened.exception() is not None or opened.result().ended:
                await self.close()
        if self._opening is None:
            self._opening = asyncio.create_task(_open(self._address), name=f"gateway to {self._address}")
        return await asyncio.shield(self._opening)

    async def close(self) -> None:
        """End the gateway, or its start."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            (opened,) = await asyncio.gather(opening, return_exceptions=True)
            if isinstance(opened, Gateway):
                await opened.close()


_shared: dict[str, _Shared] = {}
_group_numbers = itertools.count(1)


@asynccontextmanager
async def using(address: str) -> AsyncIterator[Gateway]:
    """Yield the gateway of a cluster, and keep it running meanwhile. Raise ClusterUnavailable and OutOfResources."""
    shared = _shared.get(address)
    if shared is None:
        shared = _shared[address] = _Shared(address)
    shared.holders += 1
    try:
        yield await shared.gateway()
    finally:
        shared.holders -= 1
        if shared.holders == 0:
            del _shared[address]
            await asyncio.shield(shared.close())
