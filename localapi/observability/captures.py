"""The latest requests and replies in memory, to inspect and resend them. Disabled unless the manifest asks for it.

Headers are not kept, and so no keys. Memory is bounded: the oldest exchanges are dropped first, and a body for which
there is no room even then is truncated.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

MEGABYTE: Final = 2**20
SHARE: Final = 4
"""Maximum share of the memory for one body."""


class CaptureLimits(Protocol):
    """Limits of what is kept."""

    @property
    def requests(self) -> int:
        """Maximum exchanges."""

    @property
    def max_mb(self) -> int:
        """Maximum memory for all bodies, in MB."""

    @property
    def contents(self) -> bool:
        """True if bodies are kept."""


@dataclass
class Body:
    """Body, or the part of it that was kept."""

    content_type: str = ""
    size: int = 0
    """Bytes that were transferred."""
    data: bytearray = field(default_factory=bytearray, repr=False)

    @property
    def is_text(self) -> bool:
        """True if it is text."""
        kind = self.content_type.partition(";")[0].strip().lower()
        return kind.startswith("text/") or kind.endswith(("json", "x-ndjson"))

    @property
    def is_cut(self) -> bool:
        """True if a part is missing."""
        return len(self.data) < self.size


@dataclass
class Exchange:
    """One request and its reply, which may still be arriving."""

    id: str
    method: str
    path: str
    at: float = field(default_factory=time.time)
    """Unix time."""
    began: float = field(default_factory=time.monotonic, repr=False)
    first_seconds: float | None = None
    """Time until the reply began; None before."""
    seconds: float | None = None
    """Time until the reply ended; None before."""
    status: int | None = None
    model: str = ""
    key: str | None = None
    """Name of the API key."""
    request: Body = field(default_factory=Body)
    reply: Body = field(default_factory=Body)
    is_kept: bool = False

    def forget(self) -> int:
        """Drop the bodies, even while they arrive. Return their bytes."""
        size = len(self.request.data) + len(self.reply.data)
        self.request.data.clear()
        self.reply.data.clear()
        self.is_kept = False
        return size


class Captures:
    """The latest exchanges."""

    def __init__(self) -> None:
        self._limits: CaptureLimits | None = None
        self._kept: deque[Exchange] = deque()
        self._bytes = 0

    @property
    def enabled(self) -> bool:
        """True if the manifest asks for it."""
        return self._limits is not None

    def follow(self, limits: CaptureLimits | None) -> None:
        """Apply other limits. None drops everything."""
        if limits is None or (self._limits is not None and not limits.contents and self._limits.contents):
            self.clear()
        self._limits = limits
        self._make_room(0)

    def clear(self) -> None:
        """Drop all exchanges."""
        while self._kept:
            self._bytes -= self._kept.popleft().forget()

    def begin(self, exchange: Exchange) -> None:
        """Keep an exchange from now on."""
        if self._limits is not None:
            exchange.is_kept = True
            self._kept.append(exchange)
            self._make_room(0)

    def add(self, exchange: Exchange, body: Body, data: bytes) -> None:
        """Add a part of an exchange's body, if it is text and there is room."""
        was_cut = body.is_cut
        body.size += len(data)
        limits = self._limits
        if limits is None or not limits.contents or was_cut or not body.is_text or not exchange.is_kept:
            return
        if len(body.data) + len(data) > limits.max_mb * MEGABYTE // SHARE:
            return
        if self._make_room(len(data), besides=exchange):
            body.data += data
            self._bytes += len(data)

    def latest(self) -> list[Exchange]:
        """Return the exchanges, the newest first."""
        return list(reversed(self._kept))

    def get(self, exchange_id: str) -> Exchange | None:
        """Return one exchange; None if it is unknown, or no longer kept."""
        return next((each for each in self._kept if each.id == exchange_id), None)

    @property
    def bytes(self) -> int:
        """Return the bytes of all bodies."""
        return self._bytes

    def _make_room(self, more: int, besides: Exchange | None = None) -> bool:
        """Drop the oldest exchanges until there is room for more bytes. Return False if there is none."""
        if self._limits is None:
            return False
        most = self._limits.max_mb * MEGABYTE
        while self._kept and (len(self._kept) > self._limits.requests or self._bytes + more > most):
            if self._kept[0] is besides:
                return False
            self._bytes -= self._kept.popleft().forget()
        return self._bytes + more <= most
