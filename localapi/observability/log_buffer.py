"""The last lines of the log, for whoever looks at the console: what happened, when, and to which model.

The log never holds what requests say, so neither does this. A traceback stays on the terminal; here is its kind.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from localapi.observability import log as logs

KEPT: Final = 500
LONGEST: Final = 2000
"""Characters of a message."""

Record = dict[str, Any]


class History(logging.Handler):
    """Keeps what our own loggers say, from level info on. `tell` is called with each record, in whichever thread."""

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        super().__init__(logging.INFO)
        self._tell = tell
        self._records: deque[Record] = deque(maxlen=KEPT)
        self.last = 0
        """The number of the newest record; they count from 1."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record; one that cannot be put into words is told on stderr, as all handlers of logging do."""
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
        """The records after that number, as far as they are kept; the oldest first."""
        return [record for record in tuple(self._records) if record["number"] > number]
