"""A model in a program: how it starts, answers and ends, whatever the program does."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from localapi.backends import command_engine
from localapi.backends.command import HOST, Command
from localapi.backends.engine import Engine, Supervised
from localapi.errors import FilesUnreadable, LoadFailed, ModelUnavailable, WorkerEnded
from localapi.runtime.memory import expected_bytes
from localapi.worker.protocol import Chat, Delta, Loading, Message
from tests.marked import VARIABLE, marked

PROGRAM = Path(__file__).parents[1] / "hostile_program.py"


@pytest.fixture
def mark() -> Iterator[str]:
    """In the environment of every program of a test; nothing with it may be left."""
    mark = secrets.token_hex(8)
    yield mark
    assert marked(mark) == []


def entry(folder: Path, mark: str, *ways: str, env: dict[str, Any] | None = None, **options: Any) -> Command:
    """A located entry whose program is hostile in these ways."""
    command = [sys.executable, str(PROGRAM), "{port}", *ways]
    content = {"backend": "command", "command": command, "env": {VARIABLE: mark, **(env or {})}, **options}
    return Command.model_validate(content).located(lambda _: folder)


class Reports(list[Loading]):
    """Reports of a load."""

    by: Supervised | None = None

    def __call__(self, progress: Loading, by: Supervised | None = None) -> None:
        self.append(progress)
        self.by = by


@asynccontextmanager
async def started(options: Command) -> AsyncIterator[Engine]:
    engine = await options.start("m", Reports())
    try:
        yield engine
    finally:
        await engine.close()


async def answer(engine: Engine, text: str) -> str:
    request = Chat(id=1, messages=[Message("user", text)])
    return "".join([event.text async for event in engine.answer(request) if isinstance(event, Delta)])


async def test_a_program_answers_with_its_memory_counted_and_is_asked_to_end(mark: str, tmp_path: Path) -> None:
    async with started(entry(tmp_path, mark, env={"HOSTILE": "{name} {{}}"}, memory="1GB")) as engine:
        assert await answer(engine, "env") == "m {}."
        vitals = engine.vitals()
        assert vitals.memory_bytes == 2**30
        assert vitals.idle
        assert vitals.pid is not None
        assert psutil.Process(vitals.pid).cwd() == str(tmp_path)


async def test_what_is_left_of_a_program_that_ignores_everything_is_killed(mark: str, tmp_path: Path) -> None:
    async with started(entry(tmp_path, mark, "fork", "ignore-term", stop_timeout="0.2s")):
        assert len(marked(mark)) == 3


@pytest.mark.parametrize(
    ("ways", "says"),
    [
        (["loud-exit"], ["ended with exit status 1", "out of memory: buy more"]),
        (["daemon"], ["ended with exit status 0", "foreground"]),
        (["ipv6"], ["does not respond at 127.0.0.1", "{host}"]),
        (["never-ready"], ["/health has status 503", "start_timeout", "hello from the program"]),
        (["elsewhere"], ["it listens on port", "instead", "{port}"]),
        (["silent", "ignore-term", "fork"], ["nothing listens there"]),
    ],
)
async def test_a_program_that_does_not_get_ready_is_an_error_that_says_why(
    ways: list[str], says: list[str], mark: str, tmp_path: Path
) -> None:
    with pytest.raises(LoadFailed) as raised:
        await entry(tmp_path, mark, *ways, start_timeout="2s", stop_timeout="0.2s").start("m", Reports())
    assert [fact for fact in says if fact not in raised.value.message] == []
    assert raised.value.counts


async def test_loading_reports_the_time_and_the_last_line_and_can_be_cancelled(mark: str, tmp_path: Path) -> None:
    reports = Reports()
    load = asyncio.create_task(entry(tmp_path, mark, "never-ready").start("m", reports))
    while not any("hello from the program" in progress.detail for progress in reports):  # noqa: ASYNC110  # polled
        await asyncio.sleep(0.01)
    assert reports.by is not None
    assert reports.by.vitals().loading
    assert reports.by.vitals().silent_since is None
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load


async def test_a_loading_program_can_be_ended(mark: str, tmp_path: Path) -> None:
    reports = Reports()
    load = asyncio.create_task(entry(tmp_path, mark, "never-ready").start("m", reports))
    while len(reports) < 3:  # noqa: ASYNC110  # polled
        await asyncio.sleep(0.01)
    assert reports.by is not None
    reports.by.end("took too much memory and was ended")
    with pytest.raises(LoadFailed, match="took too much memory"):
        await load


@pytest.mark.parametrize(
    ("text", "says"), [("die", "exit status 7"), ("close", "closed its port"), ("hang", "was killed by SIGKILL")]
)
async def test_a_program_that_ends_during_an_answer_ends_its_engine(
    text: str, says: str, mark: str, tmp_path: Path
) -> None:
    async with started(entry(tmp_path, mark)) as engine:
        asked = asyncio.create_task(answer(engine, text))
        if text == "hang":
            while engine.vitals().silent_since is None:  # noqa: ASYNC110  # polled
                await asyncio.sleep(0.01)
            pid = engine.vitals().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerEnded, match=says):
            await asked
        async with asyncio.timeout(60):
            assert says in await engine.ended


async def test_an_engine_that_is_closed_fails_what_runs(mark: str, tmp_path: Path) -> None:
    async with started(entry(tmp_path, mark)) as engine:
        asked = asyncio.create_task(answer(engine, "hang"))
        while not engine.vitals().unanswered:  # noqa: ASYNC110  # polled
            await asyncio.sleep(0.01)
        await engine.close()
        with pytest.raises(ModelUnavailable) as raised:
            await asked
        assert not isinstance(raised.value, WorkerEnded)
        assert not engine.ended.done()


async def test_a_port_that_was_taken_meanwhile_is_replaced(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = command_engine._free_port
    with socket.create_server((HOST, 0)) as other:
        ports = [other.getsockname()[1], free_port()]
        monkeypatch.setattr(command_engine, "_free_port", lambda: ports.pop(0))
        async with started(entry(tmp_path, mark)) as engine:
            assert await answer(engine, "hello") == "hello."
    assert ports == []


async def test_a_key_is_made_and_not_shown(mark: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with started(entry(tmp_path, mark, env={"HOSTILE": "{key}"})) as engine:
        key = (await answer(engine, "env")).removesuffix(".")
        assert await answer(engine, "key") == f"Bearer {key}."
    assert len(key) > 20
    assert key not in caplog.text


async def test_a_secret_reaches_the_program_alone(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_SERVER", "s3cret{value}")
    options = entry(tmp_path, mark, env={"HOSTILE": {"env": "OF_THE_SERVER"}})
    async with started(options) as engine:
        assert await answer(engine, "env") == "s3cret{value}."
    assert "s3cret" not in repr(options) + str(options.identity())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("no-such-program", "not in PATH"),
        ("./missing", "does not exist"),
        ("./models.yaml", "not executable"),
        ("./nonsense", "Exec format error"),
    ],
)
async def test_a_program_that_is_not_there_is_an_error_that_does_not_count(
    command: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").touch()
    (tmp_path / "nonsense").write_text("nonsense")
    (tmp_path / "nonsense").chmod(0o755)
    options = Command.model_validate({"backend": "command", "command": [command, "{port}"]}).located(lambda _: tmp_path)
    with pytest.raises(FilesUnreadable, match=says):
        await options.start("m", Reports())
    assert (says in (options.obstacle() or "")) == (command != "./nonsense")


def test_stated_memory_is_what_a_load_needs(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"x" * 1_000_000)
    assert expected_bytes(entry(tmp_path, "x", memory="1GB")) == 2**30
    more = expected_bytes(entry(tmp_path, "x", path="./model.gguf")) - expected_bytes(entry(tmp_path, "x"))
    assert 1_000_000 <= more <= 2_000_000


def test_another_command_or_variable_is_another_model(tmp_path: Path) -> None:
    first = entry(tmp_path, "x").identity()
    assert first == entry(tmp_path, "x", aliases=["other"]).identity()
    assert first != entry(tmp_path, "y").identity()
    assert first != entry(tmp_path, "x", "fork").identity()
