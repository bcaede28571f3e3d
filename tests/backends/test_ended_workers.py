"""What a worker sent before its end is judged after it, where the server was busy meanwhile."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from localapi.backends import process
from localapi.backends.channel import Channel
from localapi.backends.worker_engine import WorkerEngine
from localapi.worker import protocol

pytestmark = pytest.mark.everyday


async def test_nonsense_of_a_worker_that_is_gone_ends_its_engine() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    child = await process.start(sys.executable, "-c", "", on_line=lambda _: None)
    worker = WorkerEngine("m", child, Channel(reader, writer))
    theirs.sendall(protocol.frame(protocol.Loaded()))
    await worker.wait_until_loaded(lambda *_: None)
    await child.wait()
    await asyncio.sleep(0)  # asyncio forgets the process when it has ended and its output, too
    with theirs:
        theirs.sendall(protocol.LENGTH.pack(3) + b"abc")
        async with asyncio.timeout(10):
            assert "is no message" in await worker.ended
    await worker.close()
