"""Log lines for people (time, message, the key of who asked, colour only on a terminal) or for programs (JSON).

What requests say and what they are answered is never logged, at no level.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

Form = Literal["text", "json"]
about: ContextVar[dict[str, str]] = ContextVar("about")
"""What lines of this context are about: `request_id`, and `key` and `model` where the request has them."""
_OF_REQUESTS = ("localapi.api.", "localapi.app")
"""Loggers whose lines are about the request of their context. Others log from tasks that a request only began."""
_OF_MODELS = tuple(
    f"localapi.{part}"
    for part in ("instance", "lease", "loading", "memory", "registry", "reload", "supervision", "backends.")
)
"""Loggers whose lines begin with the model that they are about, where they are about one; also lines of workers."""

_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}


class Line(logging.Formatter):
    """One event, one line. A newline or control character in a message cannot forge another line."""

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
    """One event, one JSON object on one line."""

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
    """The model that begins a line; empty for other lines."""
    begins = str(record.msg).startswith("%s: ") and record.name.startswith(_OF_MODELS)
    return {"model": str(record.args[0])} if begins and isinstance(record.args, tuple) and record.args else {}


def request_of(record: logging.LogRecord) -> dict[str, str]:
    """What is known of the request that a line is about; empty for others."""
    return about.get({}) if record.name.startswith(_OF_REQUESTS) else {}


def wants_colour(stream: TextIO) -> bool:
    """A terminal, and nobody said NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def set_up(form: Form = "text") -> None:
    """Send the log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if form == "json" else Line(colour=wants_colour(sys.stderr)))
    logging.basicConfig(handlers=[handler], force=True, level=logging.WARNING)
    set_level("info")


def set_level(name: str) -> None:
    """How much of our own log is shown; other libraries' only from warnings on."""
    logging.getLogger("localapi").setLevel(name.upper())
