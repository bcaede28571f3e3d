"""Plan of a step: what rank 0 has decided, so that every rank computes the same.

Rank 0 sends it to each follower over a TCP connection, and then starts the step itself. The connection is separate from
MLX's, because a process that waits for MLX's computes all the time. It also carries signs of life in idle times.
"""

from __future__ import annotations

import errno
import hmac
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

import mlx.core as mx
import msgspec

from localapi.worker.llm.row import Row
from localapi.worker.llm.shards.group import SharedSampler, SharedTokens
from localapi.worker.model import CannotLoad, PortTaken, first_line
from localapi.worker.outbox import HEARTBEAT_SECONDS
from localapi.worker.protocol import LENGTH, MAX_FRAME_BYTES, Rank

GREET_SECONDS: Final = 10
"""Time for a new connection to show the secret."""


class PlannedRow(msgspec.Struct, frozen=True):
    """Row that joins the batch, as far as a follower needs to know it."""

    prompt: list[int]
    boundaries: list[int]
    max_tokens: int
    sampler: int
    """Number of its sampler. Rows with the same one are sampled together."""
    copies: list[int]
    """Samplers of the other responses to this prompt."""
    cached_tokens: int
    """Tokens of the prompt that rank 0 found in its prefix cache."""


class StepPlan(msgspec.Struct, frozen=True):
    """Plan of one step: which rows join and leave before it, and what it computes."""

    joins: list[PlannedRow] = []
    leaving: list[int] = []
    """Uids of rows that leave the batch."""
    chunk: int = 0
    """Tokens of each prompt that the step computes. 0 means no step, only a sign of life."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StepPlan)


class Lead:
    """Rank 0's side: it records decisions, and sends them before each step."""

    def __init__(self, group: mx.distributed.Group, followers: Sequence[socket.socket]) -> None:
        self._share = SharedTokens(group)
        self._followers = followers
        self._lock = threading.Lock()
        self._joins: list[PlannedRow] = []
        self._samplers: WeakValueDictionary[int, SharedSampler] = WeakValueDictionary()
        """Samplers by the id of the sampler inside, which lives as long."""
        self._numbers = 0
        threading.Thread(target=self._beat, name="signs of life", daemon=True).start()

    def join(self, row: Row, insert: Callable[[Row], None]) -> None:
        """Insert a row with its copies, sampled for all ranks, and record that."""
        for each in (row, *row.copies):
            each.sampler = self._shared(each.sampler)
        sampler, copies = row.sampler.number, [copy.sampler.number for copy in row.copies]
        insert(row)
        self._joins.append(
            PlannedRow(row.prompt, list(row.boundaries), row.max_tokens, sampler, copies, row.totals.cached_tokens)
        )

    def send(self, leaving: Sequence[int], chunk: int) -> None:
        """Let the followers start a step. The process ends if one of them has ended."""
        joins, self._joins = self._joins, []
        try:
            self._send(StepPlan(joins, list(leaving), chunk))
        except OSError as error:
            print(f"a rank accepts no more plans: {error}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)

    def _shared(self, sampler: Callable[[mx.array], mx.array]) -> SharedSampler:
        found = self._samplers.get(id(sampler))
        if found is None:
            self._numbers += 1
            found = self._samplers[id(sampler)] = SharedSampler(self._numbers, sampler, self._share)
        return found

    def _send(self, plan: StepPlan) -> None:
        body = _encoder.encode(plan)
        with self._lock:
            for follower in self._followers:
                follower.sendall(LENGTH.pack(len(body)) + body)

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            try:
                self._send(StepPlan())
            except OSError:
                return  # the server sees that a rank has ended


class Plans:
    """Follower's side: the plans that have arrived. The process ends with rank 0."""

    def __init__(self, connection: socket.socket, wake: Callable[[], None]) -> None:
        """Start reading plans; `wake` is called on a thread when there is one."""
        self._connection = connection
        self._wake = wake
        self._plans: deque[StepPlan] = deque()
        threading.Thread(target=self._read, name="plans", daemon=True).start()

    def __bool__(self) -> bool:
        return bool(self._plans)

    def take(self) -> StepPlan:
        """Remove and return the first plan. There must be one."""
        return self._plans.popleft()

    def _read(self) -> None:
        try:
            with self._connection.makefile("rb") as stream:
                while len(head := stream.read(LENGTH.size)) == LENGTH.size:
                    (length,) = LENGTH.unpack(head)
                    if length > MAX_FRAME_BYTES:
                        break
                    self._plans.append(_decoder.decode(stream.read(length)))
                    self._wake()
        except (OSError, msgspec.MsgspecError) as error:
            print(f"no more plans from rank 0: {error}", file=sys.stderr, flush=True)  # noqa: T201
        finally:
            os._exit(1)


def listen(rank: Rank) -> socket.socket:
    """Return rank 0's socket for followers. Raise CannotLoad."""
    try:
        return socket.create_server(_address(rank.plans), backlog=len(rank.addresses))
    except OSError as error:
        kind = PortTaken if error.errno == errno.EADDRINUSE else CannotLoad
        raise kind(f"Rank 0 cannot listen at {rank.plans}: {first_line(error)}. Load the model again.") from error


def accept(listener: socket.socket, rank: Rank) -> list[socket.socket]:
    """Wait until each follower has connected, and return the connections. Others, without the secret, are closed."""
    found: list[socket.socket] = []
    with listener:
        while len(found) < len(rank.addresses) - 1:
            connection, _ = listener.accept()
            connection.settimeout(GREET_SECONDS)
            if hmac.compare_digest(_greeting(connection, len(rank.secret)), rank.secret):
                connection.settimeout(None)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                found.append(connection)
            else:
                connection.close()
    return found


def connect(rank: Rank) -> socket.socket:
    """Return a follower's connection to rank 0, which has been listening since before the ranks met.

    Raise CannotLoad.
    """
    try:
        connection = socket.create_connection(_address(rank.plans), timeout=GREET_SECONDS)
        connection.sendall(rank.secret)
    except OSError as error:
        raise CannotLoad(f"Rank {rank.number} cannot reach rank 0 at {rank.plans}: {first_line(error)}.") from error
    connection.settimeout(None)
    return connection


def _greeting(connection: socket.socket, length: int) -> bytes:
    said = b""
    try:
        while len(said) < length:
            piece = connection.recv(length - len(said))
            if not piece:
                break
            said += piece
    except OSError:
        pass
    return said


def _address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
