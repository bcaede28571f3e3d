"""The worker as a process: frames in, frames out, and no orphan whatever happens to the server."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from localapi.worker.protocol import (
    LENGTH,
    Cancel,
    Chat,
    Delta,
    Ended,
    Failed,
    Finished,
    Loaded,
    Loading,
    LoadModel,
    LoadRefused,
    Message,
    Sampling,
    Step,
    ToServer,
    ToWorker,
    decode_to_server,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

M = TypeVar("M")


class Worker:
    """The server's end, as plain as it can be."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "localapi.worker", "--fd", str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
        self.stream = self.socket.makefile("rb")

    def send(self, message: ToWorker) -> None:
        self.socket.sendall(frame(message))

    def messages(self) -> Iterator[ToServer]:
        while head := self.stream.read(LENGTH.size):
            yield decode_to_server(self.stream.read(LENGTH.unpack(head)[0]))

    def until(self, kind: type[M]) -> M:
        return next(message for message in self.messages() if isinstance(message, kind))

    def events(self) -> Iterator[Any]:
        for message in self.messages():
            assert isinstance(message, Step)
            yield from message.events

    def hang_up(self) -> None:
        self.stream.close()
        self.socket.close()


@contextmanager
def worker(path: Path | None = None) -> Iterator[Worker]:
    """A worker, with the model in this folder loaded if one is given."""
    started = Worker()
    try:
        if path is not None:
            started.send(LoadModel("mlx-lm", {"path": str(path)}))
            started.until(Loaded)
        yield started
    finally:
        started.hang_up()
        started.process.communicate(timeout=30)


def ask(id: int, text: str, **options: Any) -> Chat:  # noqa: A002
    return Chat(id=id, messages=[Message("user", text)], sampling=Sampling(temperature=0), **options)


def test_a_worker_reports_loads_answers_and_ends_with_the_socket(tiny_model: Path) -> None:
    with worker() as running:
        running.send(LoadModel("mlx-lm", {"path": str(tiny_model)}))
        *progress, loaded = (running.until(Loading), running.until(Loading), running.until(Loaded))
        assert [report.phase for report in progress] == ["importing mlx-lm", "reading weights"]
        assert isinstance(loaded, Loaded)
        assert loaded.context_length == 2048
        running.send(ask(1, "What is the capital of France?"))
        events = []
        for event in running.events():
            events.append(event)
            if isinstance(event, Finished | Failed):
                break
        assert "".join(event.text for event in events if isinstance(event, Delta)) == "The capital of France is Paris."
        assert events[-2] == Ended(1, 0, "stop")
    assert running.process.returncode == 0


def test_a_refused_load_is_told_and_ends_the_worker(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with worker() as running:
        running.send(LoadModel("mlx-lm", {"path": str(tmp_path)}))
        assert "has no weights" in running.until(LoadRefused).message
        assert running.process.wait(timeout=30) == 1
        assert running.process.stderr is not None
        assert "Traceback" not in running.process.stderr.read()


def test_an_engine_that_is_not_there_is_a_refused_load() -> None:
    with worker() as running:
        running.send(LoadModel("no-such-engine", {}))
        assert "no-such-engine failed while loading" in running.until(LoadRefused).message


@pytest.mark.parametrize("moment", ["before", "while it imports", "while it decodes"])
def test_a_worker_never_outlives_the_server(endless_model: Path, moment: str) -> None:
    with worker(endless_model if moment == "while it decodes" else None) as running:
        if moment == "while it imports":
            running.send(LoadModel("mlx-lm", {"path": str(endless_model)}))
            running.until(Loading)
        if moment == "while it decodes":
            running.send(ask(1, "Tell me a story."))
            running.until(Step)
        running.hang_up()
        assert running.process.wait(timeout=10) == 0


def test_an_interrupt_in_the_terminal_is_the_servers_business(endless_model: Path) -> None:
    with worker(endless_model) as running:
        running.send(ask(1, "Tell me a story.", max_tokens=30))
        running.until(Step)
        running.process.send_signal(signal.SIGINT)
        assert any(isinstance(event, Finished) for event in running.events())


def test_a_cancelled_request_ends_while_another_goes_on(endless_model: Path) -> None:
    with worker(endless_model) as running:
        running.send(ask(1, "Tell me a story."))
        running.send(ask(2, "Count to five.", max_tokens=200))
        events = running.events()
        next(event for event in events if event.id == 1 and isinstance(event, Delta))
        running.send(Cancel(1))
        running.send(ask(3, "Say hello.", max_tokens=1))
        next(event for event in events if event.id == 3)  # the cancel came before it
        rest = takewhile(lambda event: not (event.id == 2 and isinstance(event, Finished)), events)
        assert 1 not in {event.id for event in rest}


def test_a_cancel_is_answered_by_a_sign_although_nothing_is_left_to_tell(endless_model: Path) -> None:
    with worker(endless_model) as running:
        running.send(Cancel(1))
        assert running.until(Step).events == []


def test_a_message_that_cannot_be_read_ends_the_worker_and_says_so() -> None:
    with worker() as running:
        running.socket.sendall(LENGTH.pack(3) + b"\xc1\xc1\xc1")
        assert running.process.wait(timeout=10) == 0
        assert running.process.stderr is not None
        assert "invalid message" in running.process.stderr.read()
