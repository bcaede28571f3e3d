"""Other people's programs as child processes: their lines, their end, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from localapi.backends import program
from localapi.backends.process import MOST_LINES
from localapi.backends.program import Program
from tests.marked import VARIABLE, marked

IGNORING_TERM = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
FORKING = """
import os, subprocess, sys
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", child])
    os._exit(0)
os.wait()
"""
READY = "print('ready', flush=True)\n"
SLEEP = "import time; time.sleep(600)\n"


@pytest.fixture
def mark() -> str:
    """In the environment of everything that a test starts."""
    return secrets.token_hex(8)


@asynccontextmanager
async def running(code: str, mark: str, folder: Path, seconds: float = 0) -> AsyncIterator[Program]:
    """A program that has printed something."""
    started = await program.start(
        "m", [sys.executable, "-u", "-c", code], env={VARIABLE: mark}, folder=folder, hide=["s3cret"]
    )
    try:
        while not started.output.last_lines:  # noqa: ASYNC110  # lines have no event
            await asyncio.sleep(0.01)
        yield started
    finally:
        await started.close(seconds)


async def test_a_program_that_is_closed_is_asked_to_end(mark: str, tmp_path: Path) -> None:
    code = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(3)))\n"
    async with running(code + READY + SLEEP, mark, tmp_path, seconds=60) as started:
        pass
    assert list(started.output.last_lines) == ["ready", "bye"]
    assert marked(mark) == []


async def test_nothing_is_left_of_a_program_that_ignores_it_and_forks_into_other_sessions(
    mark: str, tmp_path: Path
) -> None:
    async with running(IGNORING_TERM + FORKING + READY + SLEEP, mark, tmp_path, seconds=0.1) as started:
        assert len(marked(mark)) == 3
        await started.look()
        used = started.usage()
        one = psutil.Process(started.pid).memory_info().rss
        assert used is not None
        assert used.memory_bytes > 2 * one
    assert marked(mark) == []


async def test_nothing_is_left_of_a_program_that_ends_by_itself(mark: str, tmp_path: Path) -> None:
    async with running(FORKING + READY + "raise SystemExit(5)", mark, tmp_path) as started:
        assert await started.wait() == "ended with exit status 5"
        assert marked(mark) == []


@pytest.mark.parametrize("victim", ["program", "guard"])
async def test_nothing_is_left_after_a_kill(victim: str, mark: str, tmp_path: Path) -> None:
    async with running(IGNORING_TERM + FORKING + READY + SLEEP, mark, tmp_path) as started:
        process = psutil.Process(started.pid)
        (process if victim == "program" else process.parent()).kill()  # type: ignore[union-attr]  # it has one
        assert await started.wait() == "was killed by SIGKILL"
    assert marked(mark) == []


async def test_nothing_is_left_when_the_server_is_killed(mark: str, tmp_path: Path) -> None:
    server = """
import asyncio, sys
from pathlib import Path
from localapi.backends import program
async def main():
    started = await program.start("m", [sys.executable, "-u", "-c", sys.argv[1]], env={}, folder=Path("/"))
    while not started.output.last_lines:
        await asyncio.sleep(0.01)
    print("up", flush=True)
    await started.wait()
asyncio.run(main())
"""
    process = subprocess.Popen(  # noqa: ASYNC220  # there is nothing else to do meanwhile
        [sys.executable, "-c", server, IGNORING_TERM + FORKING + READY + SLEEP],
        stdout=subprocess.PIPE,
        env={**os.environ, VARIABLE: mark, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"up\n"
        processes = marked(mark)
        assert len(processes) == 5
        if sys.platform == "linux":  # elsewhere a stopped process ends when somebody wakes it
            psutil.Process(process.pid).children()[0].suspend()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert psutil.wait_procs(processes, timeout=60)[1] == []


async def test_a_flood_of_output_neither_blocks_the_program_nor_fills_the_log(
    mark: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    code = "import os\nfor _ in range(100):\n os.write(1, b'spam and eggs\\n' * 20_000)\n"
    code += "for _ in range(20):\n os.write(1, b'x' * 1_000_000)\nprint('\\nThe end')\n"
    async with running(code, mark, tmp_path) as started:
        assert await started.wait() == "ended with exit status 0"
        assert started.output.last_line == "The end"
    lines = [record.getMessage() for record in caplog.records]
    assert MOST_LINES <= len(lines) < 10 * MOST_LINES
    assert max(map(len, lines)) < 10_000
    assert "lines were dropped" in lines[-1]
    assert sum(len(line) for line in lines) < 10_000_000


async def test_secrets_are_hidden_in_lines(mark: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with running("print('the key is s3cret!')", mark, tmp_path) as started:
        await started.wait()
        assert started.output.last_line == "the key is [hidden]!"
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: None, FileNotFoundError),
        (lambda path: path.write_text("#!/bin/true"), PermissionError),
        (lambda path: (path.write_text("no program"), path.chmod(0o755)), OSError),
    ],
)
async def test_a_program_that_cannot_be_started_is_an_error(
    make: Callable[[Path], object], error: type[OSError], tmp_path: Path
) -> None:
    make(tmp_path / "program")
    with pytest.raises(error):
        await program.start("m", [str(tmp_path / "program")], env={}, folder=tmp_path)


async def test_a_port_is_seen_whichever_process_listens_on_it(mark: str, tmp_path: Path) -> None:
    code = "import os, socket\ns = socket.create_server(('127.0.0.1', 0))\nif os.fork():\n s.close(); os.wait()\n"
    code += "print(s.getsockname()[1], flush=True)\n" + SLEEP
    async with running(code, mark, tmp_path) as started:
        assert await started.listening_ports() == {int(started.output.last_line)}
