"""Channel to a worker: frames over any pair of byte streams."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from localapi.worker import protocol


class Reader(Protocol):
    """Source of bytes, such as asyncio.StreamReader."""

    async def readexactly(self, n: int) -> bytes:
        """Return exactly `n` bytes. Raise IncompleteReadError or ConnectionError at the end."""


class Writer(Protocol):
    """Sink of bytes, such as asyncio.StreamWriter."""

    def write(self, data: bytes) -> None:
        """Send bytes, possibly later."""

    def is_closing(self) -> bool:
        """Return whether the writer is closed."""

    def close(self) -> None:
        """Close both directions; the other side then reads the end of its input."""


async def read_frame(reader: Reader) -> bytes | None:
    """Return the body of the next frame, or None at the end. Raise msgspec.DecodeError if it is too long."""
    try:
        (length,) = protocol.LENGTH.unpack(await reader.readexactly(protocol.LENGTH.size))
        if length > protocol.MAX_FRAME_BYTES:
            raise msgspec.DecodeError(f"a frame of {length} bytes")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Channel:
    """Server's end of a channel."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: protocol.ToWorker) -> None:
        """Send a message, or nothing if the channel is closed.

        Raise OverflowError, RecursionError, TypeError or msgspec.MsgspecError for a value that cannot be sent.
        """
        if not self._writer.is_closing():
            self._writer.write(protocol.frame(message))

    async def receive(self) -> protocol.ToServer | None:
        """Return the next message, or None at the end. Raise msgspec.MsgspecError for an invalid frame."""
        body = await read_frame(self._reader)
        return None if body is None else protocol.decode_to_server(body)

    def close(self) -> None:
        """Close both directions."""
        self._writer.close()
