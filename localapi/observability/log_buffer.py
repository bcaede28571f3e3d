"""Keep the last lines of the log for the console.

Like the log, they never contain the content of requests. They contain the class of an exception; its traceback is only
on the terminal.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from localapi.observability import log as logs

KEPT: Final = 500
LONGEST: Final = 2000
"""Maximum characters of a message."""

Record = dict[str, Any]


class History(logging.Handler):
    """Handler that keeps localapi's own records of level info and above, and calls `tell` with each, in any thread."""

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        super().__init__(logging.INFO)
        self._tell = tell
        self._records: deque[Record] = deque(maxlen=KEPT)
        self.last = 0
        """Number of the newest record; numbers start at 1."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record. Report one that cannot be formatted on stderr, as all handlers of logging do."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            self.handleError(record)
            return
        self.last += 1  # logging holds this handler's lock
        kept: Record = {
            "number": self.last,
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message if len(message) <= LONGEST else f"{message[:LONGEST]}…",
            **logs.request_of(record),
            **logs.model_of(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            kept["exception"] = record.exc_info[0].__name__
        self._records.append(kept)
        self._tell()

    def since(self, number: int) -> list[Record]:
        """Return the kept records after a number, oldest first."""
        return [record for record in tuple(self._records) if record["number"] > number]
