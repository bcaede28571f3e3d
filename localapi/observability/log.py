"""Logging as text for people (time, message, API key; colour only on a terminal) or as JSON for programs.

The content of requests and responses is never logged, at any level.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

Form = Literal["text", "json"]
about: ContextVar[dict[str, str]] = ContextVar("about")
"""Fields for log lines of this context: `request_id`, and `key` and `model` if the request has them."""
_OF_REQUESTS = ("localapi.api.", "localapi.http.", "localapi.app")
"""Loggers whose lines belong to the request of their context. Others log from tasks that a request has started."""
_OF_MODELS = ("localapi.runtime.", "localapi.reload.", "localapi.backends.")
"""Loggers whose lines begin with a model's id if they are about a model, including lines of workers."""

MOST_LINES: Final = 10_000
FLUSH_SECONDS: Final = 1.0
_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}


class Line(logging.Formatter):
    """Formatter for one line per event. Line breaks and control characters in a message cannot forge another line."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(asctime)s %(message)s", datefmt="%H:%M:%S")
        self._colour = colour

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        record.message = "".join(c if c.isprintable() else " " for c in record.message)
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname.lower()}: {record.message}"
        if key := request_of(record).get("key"):
            record.message += f" [key {key}]"
        line = super().formatMessage(record)
        code = _COLOURS.get(record.levelno)
        return f"\x1b[{code}m{line}\x1b[0m" if self._colour and code else line


class JsonLine(logging.Formatter):
    """Formatter for one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **model_of(record),
            **request_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def model_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the model at the start of a line; empty for other lines."""
    begins = str(record.msg).startswith("%s: ") and record.name.startswith(_OF_MODELS)
    return {"model": str(record.args[0])} if begins and isinstance(record.args, tuple) and record.args else {}


def request_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields of the request to which a line belongs; empty for other lines."""
    return about.get({}) if record.name.startswith(_OF_REQUESTS) else {}


def wants_colour(stream: TextIO) -> bool:
    """Return whether the stream is a terminal and NO_COLOR is unset (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


class Written(logging.Handler):
    """Handler that writes lines to a file descriptor from a thread.

    A terminal stopped with Ctrl-S, or a pipe that nobody reads, blocks only the log. If more than MOST_LINES wait,
    lines are dropped, and their number is logged instead.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        super().__init__()
        self._descriptor, self._encoding = descriptor, encoding
        self._lines: queue.Queue[str] = queue.Queue(MOST_LINES)
        self._lost = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._lost:
                self._lines.put_nowait(f"{self._lost} log lines were dropped because they could not be written")
                self._lost = 0
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait a short time until all lines are written."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, FLUSH_SECONDS)

    def _write(self) -> None:
        """Write lines, not through sys.stderr, because Python cannot exit during such a write."""
        while True:
            left = f"{self._lines.get()}\n".encode(self._encoding, "backslashreplace")
            with contextlib.suppress(OSError):  # a full disk or a closed pipe must not stop the server
                while left:
                    left = left[os.write(self._descriptor, left) :]
            self._lines.task_done()


def set_up(form: Form = "text") -> None:
    """Write the log to stderr."""
    handler = Written(sys.stderr.fileno(), sys.stderr.encoding)
    handler.setFormatter(JsonLine() if form == "json" else Line(colour=wants_colour(sys.stderr)))
    logging.basicConfig(handlers=[handler], force=True, level=logging.WARNING)
    set_level("info")


def flush() -> None:
    """Wait a short time until all log lines are written."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def set_level(name: str) -> None:
    """Set the level of localapi's own loggers; other libraries log warnings and errors only."""
    logging.getLogger("localapi").setLevel(name.upper())
