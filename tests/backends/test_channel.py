"""Frames over streams of the test's own: the channel needs no socket and no process."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from localapi.backends.channel import Channel
from localapi.worker import protocol
from localapi.worker.protocol import Cancel, Loaded, Loading

pytestmark = pytest.mark.everyday

HELLO = protocol.frame(Loading("reading weights", 1, 2))


class Sent:
    """Writer of the server, which keeps what is sent."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def channel(received: bytes, sent: Sent | None = None) -> Channel:
    """A channel whose worker sends this and ends."""
    reader = asyncio.StreamReader()
    reader.feed_data(received)
    reader.feed_eof()
    return Channel(reader, sent or Sent())


async def test_messages_arrive_one_by_one_and_then_the_end() -> None:
    worker = channel(HELLO + protocol.frame(Loaded(context_length=8)))
    assert await worker.receive() == Loading("reading weights", 1, 2)
    assert await worker.receive() == Loaded(context_length=8)
    assert await worker.receive() is None


@pytest.mark.parametrize("cut", range(1, len(HELLO)))
async def test_half_a_frame_is_the_end(cut: int) -> None:
    assert await channel(HELLO[:cut]).receive() is None


@pytest.mark.parametrize(
    "frame", [protocol.LENGTH.pack(3) + b"abc", protocol.LENGTH.pack(protocol.MAX_FRAME_BYTES + 1)]
)
async def test_what_is_no_message_is_an_error(frame: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        await channel(frame).receive()


async def test_a_closed_channel_sends_nothing_more() -> None:
    sent = Sent()
    worker = channel(b"", sent)
    worker.send(Cancel(1))
    worker.close()
    worker.send(Cancel(2))
    assert protocol.decode_to_worker(sent.data[protocol.LENGTH.size :]) == Cancel(1)
