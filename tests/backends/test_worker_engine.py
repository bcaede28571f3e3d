"""The server's end of a worker: its start, the events of its requests, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

import pytest

from localapi.backends import process
from localapi.backends.channel import Channel
from localapi.backends.process import start_worker_process
from localapi.backends.worker_engine import Mailbox, WorkerEngine, WorkerSetup, start_worker
from localapi.worker import protocol
from localapi.worker.protocol import Delta, Prefill
from tests.conftest import Children


@pytest.mark.parametrize("turns", range(1, 13))
async def test_a_start_that_is_given_up_leaves_no_process(turns: int, children: Children) -> None:
    """After each number of turns of the loop: it is in another place then."""
    start = asyncio.create_task(start_worker("m", "mlx-lm", {"path": "none"}, WorkerSetup(), lambda *_: None))
    for _ in range(turns):
        await asyncio.sleep(0)
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    assert children() == set()


async def test_nonsense_of_a_worker_that_is_gone_ends_its_engine() -> None:
    """Frames that a worker sent before its end are judged after it, if the server was busy meanwhile."""
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
            assert "an invalid message" in await worker.ended
    await worker.close()


def test_a_prompt_is_read_when_there_is_text_whatever_was_told_of_it() -> None:
    """The last part of a prompt is not told if it is done in one step."""
    mailbox = Mailbox()
    mailbox.put(Prefill(1, 64, 200))
    assert mailbox.progress == Prefill(1, 64, 200)
    mailbox.put(Delta(1, "text", 0))
    assert mailbox.progress is None


async def test_a_worker_of_another_environment_is_started_by_the_file_that_shows_it_the_package() -> None:
    lines: list[str] = []
    child, _, writer = await start_worker_process(lines.append, Path(sys.executable))
    writer.close()
    assert (await child.wait(), lines) == (0, [])
