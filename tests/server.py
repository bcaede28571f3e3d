"""A real server in a child process, for tests that look at it as a user does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import openai

NO_WORK = {
    "running": 0, "waiting": 0, "prompt_tokens_done": 0, "prompt_tokens_total": 0,
    "sound_seconds_done": 0, "sound_seconds_total": 0,
}  # fmt: skip
"""`requests` of a model in /status that has nothing to do."""
START_SECONDS = 120
"""For a machine that is busy with other things; nothing is measured against it."""


@dataclass
class Reply:
    """Reply, with names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Reached:
    """What answers on a port of this machine, as clients see it: a server, or something in front of one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._clients: list[openai.OpenAI] = []

    def close(self) -> None:
        """Close the clients. A socket left to the garbage collector is a warning in some later test."""
        for client in self._clients:
            client.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> openai.OpenAI:
        """The official client; it does not repeat requests unless a test wants that. `close` ends it."""
        import openai  # noqa: PLC0415  # takes half a second, and many tests need none of it

        client = openai.OpenAI(
            base_url=f"{self.url}/v1", **{"api_key": "unused", "max_retries": 0, "timeout": 60, **options}
        )
        self._clients.append(client)
        return client

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        import openai  # noqa: PLC0415

        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="unused", **{"max_retries": 0, "timeout": 120, **options}
        )

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request as it stands; a body that is not bytes goes as JSON."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, sent, {"Content-Type": "application/json", **(headers or {})})
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())

    def get(self, path: str) -> Any:
        return self.request("GET", path).json()

    def status(self) -> Any:
        return self.get("/status")

    def model(self, name: str) -> Any:
        """Return one model from `/status`."""
        return next(model for model in self.status()["models"] if model["id"] == name)

    def reload(self) -> Any:
        """Have the manifest read, and tell what came of it."""
        return self.request("POST", "/admin/reload").json()


class Server(Reached):
    """`localapi serve` on a port that the system chose. Its log is read as it comes."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        program: Path | None = None,
        module: str = "localapi",
        through: Sequence[str] = (),
    ) -> None:
        """`program` is one that is installed elsewhere; without it, it is `module`, of this checkout.

        `through` is a command that starts the server in its own place, with other rights.
        """
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("LOCALAPI_", "CHAT_", "AUDIO_"))
        }
        here = {"PYTHONPATH": str(Path(__file__).parent.parent)} if program is None else {}
        command = [sys.executable, "-m", module] if program is None else [str(program)]
        self.folder = folder
        self.process = subprocess.Popen(
            [*through, *command, "serve", "--port", "0", *arguments],
            cwd=folder,
            env={**clean, **here, **(env or {})},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.signalled = False
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            super().__init__(int(self.wait_for(r"localapi \S+ on http://\S+?:(\d+)/v1").group(1)))
            self.wait_for(r"following")
        except BaseException:  # nobody will have it to stop it
            self.process.kill()
            self.process.wait()
            self._reader.join()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, pattern: str, *, after: int = 0, seconds: float = START_SECONDS) -> re.Match[str]:
        """The first log line (from number `after` on) that holds the pattern, now or later."""
        with self._news:
            found = self._news.wait_for(lambda: self._search(pattern, after) or self._ended, seconds)
            match = self._search(pattern, after)
            assert match, f"no line with {pattern!r} ({'ended' if found else 'waited'}):\n" + "\n".join(self.lines)
            return match

    def _search(self, pattern: str, after: int) -> re.Match[str] | None:
        return next((match for line in self.lines[after:] if (match := re.search(pattern, line))), None)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal that should end the server."""
        self.signalled = True
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and give its exit status. No worker may be left."""
        workers = self.workers() if self.process.poll() is None else []
        if not self.signalled:
            self.send_signal(number)
        self.close()
        status = self.process.wait(timeout=START_SECONDS)
        _, alive = psutil.wait_procs(workers, timeout=START_SECONDS)
        self._reader.join()
        assert not alive, f"workers are left: {alive}"
        return status


@contextlib.contextmanager
def serving(
    folder: Path,
    manifest: str | None = None,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    program: Path | None = None,
    module: str = "localapi",
    through: Sequence[str] = (),
) -> Iterator[Server]:
    """A server for a manifest, which must end well."""
    if manifest is not None:
        save(folder / "models.yaml", manifest)
    server = Server(folder, *arguments, env=env, program=program, module=module, through=through)
    try:
        yield server
    finally:
        status = server.stop()
    assert status == 0, "\n".join(server.lines)


def save(path: Path, text: str) -> None:
    """As editors save: another file takes the name."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)


def until(condition: Callable[[], object]) -> None:
    """The test's time limit is the bound. The pause leaves the processor to what is waited for."""
    while not condition():
        time.sleep(0.02)


def stream_text(stream: Any) -> str:
    """All text of a streamed chat completion."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
