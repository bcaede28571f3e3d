"""Messages between the server and its gateway to a Ray cluster.

They are framed like those of workers. The messages between a worker and the server are opaque here: bytes in both
directions, with the number that the server gave the worker.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """Resources that a worker needs from a cluster."""

    node: str | None = None
    """Name, host name, address or id of a node; None for any node with room."""
    cpus: float = 1
    gpus: float = 0
    memory_bytes: int = 0
    resources: dict[str, float] = {}
    """Custom resources of the cluster."""
    spread: bool | Literal["strict"] = False
    """True to prefer nodes with less load, False to fill one node first; "strict" for one node per rank."""


class Reserve(msgspec.Struct, tag=True):
    """Server to gateway: reserve room for several workers at once."""

    group: int
    place: Requirements
    """Resources that each worker needs."""
    count: int


class Release(msgspec.Struct, tag=True):
    """Server to gateway: a reservation is no longer needed, granted or not. Workers that still run there are killed."""

    group: int


class Seat(msgspec.Struct, frozen=True):
    """A worker's part of a reservation."""

    group: int
    number: int


class Start(msgspec.Struct, tag=True, kw_only=True):
    """Server to gateway: start a worker on a node."""

    worker: int
    place: Requirements
    needs: str | None = None
    """Python package that the engine imports."""
    env: dict[str, str] = {}
    """Environment variables for the worker."""
    secrets: list[str] = []
    """Values that its output must not show."""
    seat: Seat | None = None
    """Reserved place in which to start it."""
    ports: int = 0
    """Number of ports to reserve for the worker until it gets its first message."""


class ToNode(msgspec.Struct, tag=True):
    """Server to gateway: bytes for a worker."""

    worker: int
    data: bytes


class Stop(msgspec.Struct, tag=True):
    """Server to gateway: close a worker's socket, and kill the worker if it has not ended after this many seconds."""

    worker: int
    seconds: float


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node of a cluster."""

    id: str
    name: str
    address: str
    alive: bool
    cpus: float
    gpus: float
    memory_bytes: int
    """Memory that Ray may assign, which is less than the machine has."""
    resources: dict[str, float]
    """Custom resources."""
    cpus_free: float
    gpus_free: float
    memory_bytes_free: int
    resources_free: dict[str, float]
    """Currently free resources. Ray reports them with some delay."""


class Nodes(msgspec.Struct, tag=True):
    """Gateway to server: the nodes, at first and after each change."""

    nodes: list[Node]


class NotConnected(msgspec.Struct, tag=True):
    """Gateway to server: it cannot use the cluster. The gateway exits after this."""

    message: str


class Reserved(msgspec.Struct, tag=True):
    """Gateway to server: the room is reserved."""

    group: int


class NotReserved(msgspec.Struct, tag=True):
    """Gateway to server: there is no such room. Nothing follows for this reservation."""

    group: int
    message: str


class Started(msgspec.Struct, tag=True):
    """Gateway to server: the worker's process runs."""

    worker: int
    node: str
    """Name of the node."""
    pid: int
    addresses: list[str] = []
    """Addresses of the reserved ports, as other nodes reach them."""


class Waiting(msgspec.Struct, tag=True):
    """Gateway to server: no node has room for a worker now. It is started as soon as one has."""

    worker: int
    message: str


class NotStarted(msgspec.Struct, tag=True):
    """Gateway to server: the worker could not be started. Nothing follows for this worker."""

    worker: int
    message: str


class FromNode(msgspec.Struct, tag=True, kw_only=True):
    """Gateway to server: a worker's messages, its output, and its usage. Sent at least every few seconds."""

    worker: int
    data: bytes
    lines: list[str]
    memory_bytes: int | None
    cpu_seconds: float | None


class Ended(msgspec.Struct, tag=True):
    """Gateway to server: the worker's process has ended, or its node is lost. Nothing follows for this worker."""

    worker: int
    how: str
    """Text for people: "was killed by SIGKILL", "was lost with its node studio"."""


ToGateway = Reserve | Release | Start | ToNode | Stop
ToServer = Nodes | NotConnected | Reserved | NotReserved | Started | Waiting | NotStarted | FromNode | Ended

_to_gateway = msgspec.msgpack.Decoder(ToGateway)
_to_server = msgspec.msgpack.Decoder(ToServer)


def decode_to_gateway(body: bytes) -> ToGateway:
    """Return the message of a frame, in the gateway. Raise msgspec.DecodeError or msgspec.ValidationError."""
    message: ToGateway = _to_gateway.decode(body)
    return message


def decode_to_server(body: bytes) -> ToServer:
    """Return the message of a frame, in the server. Raise msgspec.DecodeError or msgspec.ValidationError."""
    message: ToServer = _to_server.decode(body)
    return message
