"""The gateway to a Ray cluster: `python -P -m localapi.cluster --fd N --address ADDRESS`.

It is a separate process because Ray takes memory, blocks, and may crash: the server keeps its size and its event loop,
and a crash costs only the workers on the cluster. N is an inherited end of a socket pair. When the server's end closes,
the gateway leaves the cluster, and Ray ends all of its actors, which belong to this job.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import AuthenticationError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

import localapi
from localapi.backends.channel import read_frame
from localapi.cluster import protocol
from localapi.cluster.node import NodeWorker
from localapi.cluster.placing import bundles, nodes_now, scheduling
from localapi.cluster.protocol import (
    Ended,
    FromNode,
    Node,
    Nodes,
    NotConnected,
    NotReserved,
    NotStarted,
    Release,
    Reserve,
    Reserved,
    Start,
    Started,
    Stop,
    ToNode,
    ToServer,
    Waiting,
)
from localapi.cluster.rooms import CannotStart, has_room_now, wanted
from localapi.system.threads import aside
from localapi.worker.protocol import frame

ANSWER_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 30.0
"""Time limit for joining the cluster; Ray itself tries for minutes."""
PLACE_SECONDS: Final = 120.0
"""Time limit for finding a node with room and starting the process there."""
TRIES: Final = 4
RETRY_SECONDS: Final = 5.0
"""Pause before retrying to start a worker whose node was lost in the meantime."""
REPORT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 20.0
"""Time without a report after which a node is considered lost."""
LOOK_SECONDS: Final = 2.0
"""Interval for reading the list of nodes."""
LEAVE_SECONDS: Final = 5.0
UNAUTHENTICATED: Final = (
    "it requires a token, which is missing here or wrong. Set RAY_AUTH_MODE=token for the server, and RAY_AUTH_TOKEN "
    "or ~/.ray/auth_token"
)


def main() -> None:
    """Join the cluster, then relay between the server and its workers until the server's end of the socket closes."""
    parser = argparse.ArgumentParser(prog="localapi.cluster", description="For internal use by the server.")
    parser.add_argument("--fd", type=int, required=True, help="inherited end of a socket pair")
    parser.add_argument("--address", required=True, help="auto, or host:port of the cluster")
    arguments = parser.parse_args()
    server = socket.socket(fileno=arguments.fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server handles Ctrl-C in the terminal

    def refuse(message: str) -> None:
        server.sendall(frame(NotConnected(message)))
        server.shutdown(socket.SHUT_WR)  # so that sent data arrives before the end of file
        os._exit(1)

    late = threading.Timer(CONNECT_SECONDS, refuse, [f"it did not respond within {CONNECT_SECONDS:g} s"])
    late.start()
    try:
        connect(arguments.address)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
        refuse(reason_of(error))
    late.cancel()
    asyncio.run(relay(server))
    os._exit(0)


def connect(address: str) -> None:
    """Join a running cluster, never start one. Raise OSError and whatever Ray raises."""
    named = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, colon, port = named.rpartition(":")
    if colon:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            pass  # Ray itself would not report that there is no response
    try:
        ray.init(
            address=address,
            namespace="localapi",
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={
                # The nodes run this very version of the code, whatever is installed there.
                "py_modules": [str(Path(localapi.__file__).parent)],
                # Ray uses uvloop if it is installed, as beside vLLM; it cannot start a process group.
                "env_vars": {"RAY_USE_UVLOOP": "0"},
            },
        )
    except (ConnectionError, AuthenticationError) as error:
        if "authentication token" in f"{error} {error.__cause__}".lower():
            raise ConnectionError(UNAUTHENTICATED) from error
        if named == "auto":
            raise ConnectionError(
                "none is running on this machine, and RAY_ADDRESS is not set. Start one (`ray start`), or set "
                "its address"
            ) from error
        raise


def no_room(what: str) -> str:
    """Return the error that there was no room in time, for people."""
    return (
        f"No node of the cluster had room for {what} within {PLACE_SECONDS:g} s. Free some resources, or request less."
    )


def reason_of(error: BaseException) -> str:
    """Return an error of Ray for people, without the paragraphs that Ray adds."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:7])[:400] or type(error).__name__


async def relay(server: socket.socket) -> None:
    """Serve the server's messages until it is gone, then leave the cluster."""
    reader, writer = await asyncio.open_connection(sock=server)
    gateway = Gateway(writer)
    watching = asyncio.create_task(gateway.watch_nodes(), name="nodes")
    try:
        await gateway.serve(reader)
    finally:
        # A cluster that is gone may block all calls.
        threading.Timer(LEAVE_SECONDS, lambda: os._exit(0)).start()
        watching.cancel()
        gateway.end_all()
        ray.shutdown()


class Gateway:
    """The workers of one server on one cluster."""

    def __init__(self, writer: StreamWriter) -> None:
        self._writer = writer
        self._workers: dict[int, Placed] = {}
        self.groups: dict[int, Group] = {}

    def send(self, message: ToServer) -> None:
        """Send a message to the server, or nothing if it is gone."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def serve(self, reader: StreamReader) -> None:
        """Handle the server's messages until the end."""
        while (body := await read_frame(reader)) is not None:
            match protocol.decode_to_gateway(body):
                case Reserve() as reserve:
                    self.groups[reserve.group] = Group(self, reserve)
                case Release(group=number):
                    if number in self.groups:
                        self.groups.pop(number).release()
                case Start() as start:
                    placed = self._workers[start.worker] = Placed(self, start)
                    placed.task.add_done_callback(functools.partial(self._forget, start.worker))
                case ToNode(worker=number, data=data):
                    if number in self._workers:
                        self._workers[number].outgoing.put_nowait(data)
                case Stop(worker=number, seconds=seconds):
                    if number in self._workers:
                        self._workers[number].stop(seconds)

    def _forget(self, worker: int, _: asyncio.Task[None]) -> None:
        self._workers.pop(worker, None)

    async def watch_nodes(self) -> None:
        """Report the nodes to the server, at first and whenever they change."""
        told: list[Node] | None = None
        while True:
            nodes = await nodes_now()
            if nodes != told:
                told = nodes
                self.send(Nodes(nodes))
            await asyncio.sleep(LOOK_SECONDS)

    def end_all(self) -> None:
        """End all actors; their processes take the workers with them."""
        for placed in self._workers.values():
            placed.kill_actor()
        for group in self.groups.values():
            group.release()


class Group:
    """Room for all ranks of one model."""

    def __init__(self, gateway: Gateway, reserve: Reserve) -> None:
        self.placement: PlacementGroup | None = None
        self._gateway = gateway
        self._reserve = reserve
        self._task = asyncio.create_task(self._run(), name=f"room for group {reserve.group}")

    async def _run(self) -> None:
        number, place, count = self._reserve.group, self._reserve.place, self._reserve.count
        try:
            self.placement = placement_group(**bundles(place, count, await nodes_now()))
            async with asyncio.timeout(PLACE_SECONDS):
                # In short waits, because a waiting thread cannot be ended.
                while not await aside(functools.partial(self.placement.wait, 1)):
                    pass
        except CannotStart as error:
            self._gateway.send(NotReserved(number, str(error)))
        except TimeoutError:
            message = no_room(f"{count} ranks with {wanted(place)} each")
            self._gateway.send(NotReserved(number, message))
        except (RayError, ValueError) as error:
            message = f"Ray could not reserve room for {count} ranks: {reason_of(error)}"
            self._gateway.send(NotReserved(number, message))
        else:
            self._gateway.send(Reserved(number))

    def release(self) -> None:
        """Release the room. Workers that still run in it are killed."""
        self._task.cancel()
        if self.placement is not None:
            with contextlib.suppress(Exception):  # the cluster may be gone
                remove_placement_group(self.placement)


class Placed:
    """One worker on a node, from the choice of the node until its process has ended."""

    def __init__(self, gateway: Gateway, start: Start) -> None:
        self.outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        """Bytes for the worker."""
        self._gateway = gateway
        self._start = start
        self._actor: Any = None
        self._node: Node | None = None
        self._addresses: list[str] = []
        self._stopping: asyncio.Task[None] | None = None
        self.task = asyncio.create_task(self._run(), name=f"worker {start.worker}")

    async def _run(self) -> None:
        number = self._start.worker
        try:
            node, pid = await self._begin()
        except CannotStart as error:
            self._gateway.send(NotStarted(number, str(error)))
            return
        except asyncio.CancelledError:
            self._gateway.send(NotStarted(number, "It was no longer needed."))
            return
        finally:
            if self._node is None:
                self.kill_actor()
        sending = asyncio.create_task(self._send(), name=f"bytes for worker {number}")
        self._gateway.send(Started(number, node.name, pid, self._addresses))
        try:
            how = await self._receive()
        except (RayError, TimeoutError):
            how = f"was lost: its node {node.name} does not respond"
        finally:
            sending.cancel()
            self.kill_actor()
        self._gateway.send(Ended(number, how))

    async def _begin(self) -> tuple[Node, int]:
        """Start the worker on a node. Return the node and the worker's process id. Raise CannotStart."""
        place = self._start.place
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                for tries_left in reversed(range(TRIES)):
                    try:
                        return await self._try()
                    except RayActorError as error:
                        # A node that dies counts as alive for a while, and Ray may choose it.
                        if tries_left == 0:
                            raise CannotStart(f"Ray could not start the worker: {reason_of(error)}") from error
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            raise CannotStart(no_room(wanted(place))) from None
        except RayError as error:
            raise CannotStart(f"Ray could not start the worker: {reason_of(error)}") from error
        raise AssertionError

    async def _try(self) -> tuple[Node, int]:
        options = scheduling(self._start.place, await nodes_now(), self._seat())
        self._actor = ray.remote(NodeWorker).options(**options).remote()
        waiting = asyncio.create_task(self._tell_if_waiting(), name=f"room for worker {self._start.worker}")
        try:
            node_id, missing = await self._actor.look.remote(self._start.needs)
        finally:
            waiting.cancel()
        node = next(node for node in await nodes_now() if node.id == node_id)
        if missing:
            raise CannotStart(
                f"The node {node.name} lacks {' and '.join(missing)}. Install localapi with its packages there: "
                f"pip install 'localapi[ray]=={localapi.__version__}'."
            )
        start = self._start
        pid, self._addresses = await self._actor.start.remote(start.env, start.secrets, start.ports)
        self._node = node
        return node, pid

    async def _tell_if_waiting(self) -> None:
        """Tell the server once if there is no room although nothing is being started."""
        place, number = self._start.place, self._start.worker
        while self._start.seat is None:
            await asyncio.sleep(LOOK_SECONDS)
            if not has_room_now(place, await nodes_now()):
                self._gateway.send(Waiting(number, f"no node has {wanted(place)} free"))
                return

    def _seat(self) -> tuple[PlacementGroup, int] | None:
        """Return this worker's part of a reservation. Raise CannotStart if it is no longer reserved."""
        seat = self._start.seat
        if seat is None:
            return None
        group = self._gateway.groups.get(seat.group)
        if group is None or group.placement is None:
            raise CannotStart("The room that was reserved for its ranks is gone.")
        return group.placement, seat.number

    async def _send(self) -> None:
        # One call at a time, because Ray does not keep the order of calls to an asynchronous actor.
        while True:
            data = await self.outgoing.get()
            while not self.outgoing.empty():
                data += self.outgoing.get_nowait()
            try:
                await self._actor.send.remote(data)
            except RayError:
                return  # `_receive` gets the same error

    async def _receive(self) -> str:
        """Pass on what the worker sends. Return how it ended. Raise RayError or TimeoutError if its node is lost."""
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                data, lines, memory_bytes, cpu_seconds, how = await self._actor.receive.remote(REPORT_SECONDS)
            self._gateway.send(
                FromNode(
                    worker=self._start.worker,
                    data=data,
                    lines=lines,
                    memory_bytes=memory_bytes,
                    cpu_seconds=cpu_seconds,
                )
            )
            if how is not None:
                return str(how)

    def stop(self, seconds: float) -> None:
        """End the worker, by force after this many seconds, or abandon its start."""
        if self._node is None:
            self.task.cancel()
            return
        if self._stopping is not None:
            self._stopping.cancel()
        self._stopping = asyncio.create_task(self._stop(seconds), name=f"end of worker {self._start.worker}")

    async def _stop(self, seconds: float) -> None:
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(seconds + LEAVE_SECONDS):
                await self._actor.stop.remote(seconds)
        self.kill_actor()

    def kill_actor(self) -> None:
        """End the actor's process, and the worker's with it."""
        if self._actor is not None:
            with contextlib.suppress(Exception):  # the cluster may be gone
                ray.kill(self._actor, no_restart=True)


if __name__ == "__main__":
    main()
