"""Log lines for people: time, message, the key of who asked, colour only on a terminal."""

from __future__ import annotations

import logging
import os
import sys
from contextvars import ContextVar
from typing import TextIO

about: ContextVar[dict[str, str]] = ContextVar("about")
"""What lines of this context are about: `request_id`, and `key` where the request came with one."""
_OF_REQUESTS = ("localapi.api.", "localapi.app")
"""Loggers whose lines are about the request of their context. Others log from tasks that a request only began."""

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


def request_of(record: logging.LogRecord) -> dict[str, str]:
    """What is known of the request that a line is about; empty for others."""
    return about.get({}) if record.name.startswith(_OF_REQUESTS) else {}


def wants_colour(stream: TextIO) -> bool:
    """A terminal, and nobody said NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def set_up() -> None:
    """Send the log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line(colour=wants_colour(sys.stderr)))
    logging.basicConfig(handlers=[handler], force=True, level=logging.WARNING)
    set_level("info")


def set_level(name: str) -> None:
    """How much of our own log is shown; other libraries' only from warnings on."""
    logging.getLogger("localapi").setLevel(name.upper())
