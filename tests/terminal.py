"""A program on a terminal of its own, as a person sees it: a pseudo-terminal, and a screen that obeys its sequences."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyte

WAIT_SECONDS = 90
"""For a machine that is busy with other things; nothing is measured against it."""
CTRL_C, CTRL_D, UP, ENTER = "\x03", "\x04", "\x1b[A", "\r"
_OWN_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where these tests themselves run in the background
os.execv(sys.argv[1], sys.argv[1:])
"""


class _Screen(pyte.HistoryScreen):
    """Answers what programs ask a terminal, such as where the cursor is."""

    def __init__(self, columns: int, lines: int, master: int) -> None:
        super().__init__(columns, lines, history=2000, ratio=0.5)
        self._master = master

    def write_process_input(self, data: str) -> None:
        os.write(self._master, data.encode())


class Terminal:
    """`localapi` with arguments, on a terminal."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str], columns: int, lines: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOCALAPI_", "NO_COLOR"))}
        own = {"PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "xterm-256color", **env}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, sys.executable, "-m", "localapi", *arguments],
            cwd=folder, env={**clean, **own}, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.received = b""
        """All that the program sent, as it sent it."""
        self._screen = _Screen(columns, lines, self._master)
        self._stream = pyte.ByteStream(self._screen)
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how Linux tells that the other side is closed
            while data := os.read(self._master, 65536):
                with self._news:
                    self.received += data
                    self._stream.feed(data)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def text(self) -> str:
        """Text on the screen, with what has scrolled off at the top."""
        gone = ["".join(row[at].data for at in range(self._screen.columns)) for row in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*gone, *self._screen.display])

    def wait_for(self, pattern: str, *, times: int = 1) -> re.Match[str]:
        """The last of so many places on the screen that fit the pattern, now or later."""

        def found() -> list[re.Match[str]]:
            return list(re.finditer(pattern, self.text))

        with self._news:
            self._news.wait_for(lambda: len(found()) >= times or self._ended, WAIT_SECONDS)
            assert len(found()) >= times, f"{pattern!r} is not on the screen:\n{self.text}"
            return found()[-1]

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def enter(self, text: str) -> None:
        """Type a line and send it."""
        self.type(text + ENTER)

    def paste(self, text: str) -> None:
        """Send text as a terminal does when it is pasted."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def end(self) -> int:
        """Wait for the program's own end, and give its exit status."""
        status = self.process.wait(timeout=WAIT_SECONDS)
        self._reader.join()
        return status

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        os.close(self._master)


@contextlib.contextmanager
def terminal(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, columns: int = 100, lines: int = 40
) -> Iterator[Terminal]:
    """A terminal on which `localapi` runs."""
    opened = Terminal(folder, *arguments, env=env or {}, columns=columns, lines=lines)
    try:
        yield opened
    finally:
        opened.close()
