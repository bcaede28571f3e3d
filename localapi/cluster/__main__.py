"""The gateway to a Ray cluster: `python -P -m localapi.cluster --fd N --address ADDRESS`.

It is a process of its own because Ray takes memory, blocks, and may crash: the server keeps its size and its event
loop, and a crash costs the workers of the cluster and nothing else. N is an inherited end of a socket pair. When the
server's end closes, the gateway leaves the cluster, and Ray ends all of its actors, which belong to this job.
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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import localapi
from localapi.backends.channel import read_frame
from localapi.cluster import protocol
from localapi.cluster.node import NodeWorker
from localapi.cluster.protocol import (
    Ended,
    FromNode,
    Node,
    Nodes,
    NotConnected,
    NotStarted,
    Requirements,
    Start,
    Started,
    Stop,
    ToNode,
    ToServer,
)
from localapi.system.byte_sizes import readable
from localapi.system.threads import aside

ANSWER_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 30.0
"""How long to try to join the cluster; Ray itself tries for minutes."""
PLACE_SECONDS: Final = 120.0
"""How long a worker waits for a node with room, and for its process to start."""
TRIES: Final = 4
RETRY_SECONDS: Final = 5.0
"""Pause before another try to start a worker whose node was lost meanwhile."""
REPORT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 20.0
"""After this time without a report a node is given up."""
LOOK_SECONDS: Final = 2.0
"""How often the list of nodes is read."""
LEAVE_SECONDS: Final = 5.0
UNAUTHENTICATED: Final = (
    "it requires a token, which is missing here or wrong. Set RAY_AUTH_MODE=token for the server, and RAY_AUTH_TOKEN "
    "or ~/.ray/auth_token"
)
STANDARD: Final = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


class CannotStart(Exception):
    """A worker cannot be started. The message is for people."""


def main() -> None:
    """Join the cluster, then relay between the server and its workers until the server's end of the socket closes."""
    parser = argparse.ArgumentParser(prog="localapi.cluster", description="For the server's use only.")
    parser.add_argument("--fd", type=int, required=True, help="inherited end of a socket pair")
    parser.add_argument("--address", required=True, help="auto, or host:port of the cluster")
    arguments = parser.parse_args()
    server = socket.socket(fileno=arguments.fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server handles Ctrl-C in the terminal

    def refuse(message: str) -> None:
        server.sendall(protocol.frame(NotConnected(message)))
        server.shutdown(socket.SHUT_WR)  # what was sent arrives before the end of file
        os._exit(1)

    late = threading.Timer(CONNECT_SECONDS, refuse, [f"it did not answer within {CONNECT_SECONDS:g} s"])
    late.start()
    try:
        connect(arguments.address)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
        refuse(reason_of(error))
    late.cancel()
    asyncio.run(relay(server))
    os._exit(0)


def connect(address: str) -> None:
    """Join a running cluster, never start one. Raises OSError and whatever Ray raises."""
    named = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, colon, port = named.rpartition(":")
    if colon:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            pass  # Ray itself would not tell that nobody is there
    try:
        ray.init(
            address=address,
            namespace="localapi",
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={
                # The nodes run this very version of the code, whatever is installed there.
                "py_modules": [str(Path(localapi.__file__).parent)],
                # Ray takes uvloop where it is installed, as beside vLLM; it cannot start a process group.
                "env_vars": {"RAY_USE_UVLOOP": "0"},
            },
        )
    except (ConnectionError, AuthenticationError) as error:
        if "authentication token" in f"{error} {error.__cause__}".lower():
            raise ConnectionError(UNAUTHENTICATED) from error
        if named == "auto":
            raise ConnectionError(
                "none runs on this machine, and RAY_ADDRESS is not set. Start it (`ray start`), or name its address"
            ) from error
        raise


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

    def send(self, message: ToServer) -> None:
        """Send a message to the server, or nothing if it is gone."""
        if not self._writer.is_closing():
            self._writer.write(protocol.frame(message))

    async def serve(self, reader: StreamReader) -> None:
        """Take the server's messages until the end."""
        while (body := await read_frame(reader)) is not None:
            match protocol.decode_to_gateway(body):
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
        """Tell the server the nodes, at first and whenever they change."""
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


class Placed:
    """One worker on a node, from the choice of the node until its process has ended."""

    def __init__(self, gateway: Gateway, start: Start) -> None:
        self.outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        """Bytes for the worker."""
        self._gateway = gateway
        self._start = start
        self._actor: Any = None
        self._node: Node | None = None
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
            self._gateway.send(NotStarted(number, "It was no longer wanted."))
            return
        finally:
            if self._node is None:
                self.kill_actor()
        sending = asyncio.create_task(self._send(), name=f"bytes for worker {number}")
        self._gateway.send(Started(number, node.name, pid))
        try:
            how = await self._receive()
        except (RayError, TimeoutError):
            how = f"was lost: its node {node.name} does not answer"
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
            raise CannotStart(
                f"No node of the cluster had room for {wanted(place)} within {PLACE_SECONDS:g} s. Free some, or ask "
                "for less."
            ) from None
        except RayError as error:
            raise CannotStart(f"Ray could not start the worker: {reason_of(error)}") from error
        raise AssertionError

    async def _try(self) -> tuple[Node, int]:
        options = scheduling(self._start.place, await nodes_now())
        self._actor = ray.remote(NodeWorker).options(**options).remote()
        node_id, missing = await self._actor.look.remote(self._start.needs)
        node = next(node for node in await nodes_now() if node.id == node_id)
        if missing:
            raise CannotStart(
                f"The node {node.name} lacks {' and '.join(missing)}. Install localapi with its packages there: "
                f"pip install 'localapi[ray]=={localapi.__version__}'."
            )
        pid: int = await self._actor.start.remote(self._start.env, self._start.secrets)
        self._node = node
        return node, pid

    async def _send(self) -> None:
        # One call at a time: Ray does not keep the order of calls to an asynchronous actor.
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
        """End the worker, by force after so many seconds; give up a start."""
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


async def nodes_now() -> list[Node]:
    """Return the nodes of the cluster, also those that died lately."""
    listed: list[dict[str, Any]] = await aside(ray.nodes)
    return sorted((described(node) for node in listed), key=lambda node: (not node.alive, node.name, node.id))


def described(node: dict[str, Any]) -> Node:
    """Return what Ray says of a node."""
    totals: dict[str, float] = node["Resources"]
    address: str = node["NodeManagerAddress"]
    own = {name: count for name, count in totals.items() if name not in STANDARD and not name.startswith("node:")}
    given = node["NodeName"]
    return Node(
        id=node["NodeID"],
        name=given if given and given != address else node["NodeManagerHostname"],
        address=address,
        alive=node["Alive"],
        cpus=totals.get("CPU", 0),
        gpus=totals.get("GPU", 0),
        memory_bytes=int(totals.get("memory", 0)),
        resources=own,
    )


def scheduling(place: Requirements, nodes: list[Node]) -> dict[str, Any]:
    """Return the options of an actor that is placed so. Raise CannotStart if no node can ever hold it."""
    alive = [node for node in nodes if node.alive]
    named = [node for node in alive if place.node in (None, node.name, node.address, node.id)]
    if not named:
        known = ", ".join(node.name for node in alive) or "none"
        raise CannotStart(f"The cluster has no node {place.node!r}; its nodes are {known}.")
    fitting = [node for node in named if fits(place, node)]
    if not fitting:
        has = "; ".join(f"{node.name}: {offered(node)}" for node in named)
        raise CannotStart(f"No node of the cluster has {wanted(place)}. There are: {has}.")
    strategy: object = "SPREAD" if place.spread else "DEFAULT"
    if place.node is not None:
        strategy = NodeAffinitySchedulingStrategy(fitting[0].id, soft=False)
    return {
        "num_cpus": place.cpus,
        "num_gpus": place.gpus,
        "memory": place.memory_bytes or None,
        "resources": place.resources or None,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
        "max_task_retries": 0,
    }


def fits(place: Requirements, node: Node) -> bool:
    """Return whether an empty node has what a worker takes."""
    return (
        place.cpus <= node.cpus
        and place.gpus <= node.gpus
        and place.memory_bytes <= node.memory_bytes
        and all(count <= node.resources.get(name, 0) for name, count in place.resources.items())
    )


def wanted(place: Requirements) -> str:
    """Return what a worker takes, for people."""
    return _amounts(place.cpus, place.gpus, place.memory_bytes, place.resources)


def offered(node: Node) -> str:
    """Return what a node has, for people."""
    return _amounts(node.cpus, node.gpus, node.memory_bytes, node.resources)


def _amounts(cpus: float, gpus: float, memory_bytes: int, resources: dict[str, float]) -> str:
    parts = [f"{cpus:g} CPU{'s' * (cpus != 1)}"]
    if gpus:
        parts.append(f"{gpus:g} GPU{'s' * (gpus != 1)}")
    if memory_bytes:
        parts.append(f"{readable(memory_bytes)} of memory")
    parts += [f"{count:g} {name}" for name, count in resources.items()]
    return ", ".join(parts)


if __name__ == "__main__":
    main()
