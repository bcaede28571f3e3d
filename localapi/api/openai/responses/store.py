"""Responses that can be read again: the latest in memory, all of them on disk, each only with its creator's key.

The event loop never waits for the disk: a thread writes and deletes one file after the other. A failing disk causes a
warning; what could not be written stays in memory for a while.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from localapi.api.openai.responses.folder import Folder
from localapi.manifest import ResponsesOptions
from localapi.system.os_errors import advise
from localapi.system.threads import aside

log = logging.getLogger(__name__)

RECENT_BYTES: Final = 8 * 2**20
"""Maximum size kept in memory."""
UNWRITTEN_BYTES: Final = 32 * 2**20
"""Maximum size that waits for the disk. Beyond it, responses are not stored."""
REST_SECONDS: Final = 60.0
"""Pause after a failed write."""
SWEEP_SECONDS: Final = 600.0
"""Interval for deleting expired responses."""
FLUSH_SECONDS: Final = 5.0
"""Time for which a shutdown waits for the disk."""
_ID: Final = re.compile(r"resp_[0-9a-f]{32}")

Job = Callable[[], None]


class Record(msgspec.Struct):
    """Stored response."""

    owner: str | None
    """Name of the key that created it; None if the server had no keys."""
    response: dict[str, Any]
    input: list[dict[str, Any]]
    """Its own items, without those of earlier responses."""

    @property
    def id(self) -> str:
        """Id of the response."""
        return str(self.response["id"])

    @property
    def previous(self) -> str | None:
        """Id of the response that it continues."""
        found: str | None = self.response.get("previous_response_id")
        return found

    @property
    def items(self) -> list[dict[str, Any]]:
        """Messages that it adds to a conversation."""
        return [*self.input, *self.response["output"]]


_decode = msgspec.json.Decoder(Record).decode
_encode = msgspec.json.Encoder().encode


class _Recent:
    def __init__(self, record: Record, size: int, used_at: float) -> None:
        self.record, self.size, self.used_at = record, size, used_at
        self.unwritten = True


class ResponseStore:
    """The responses. `options` are the manifest's current ones. `folder` is None if there is none to store them in."""

    def __init__(
        self,
        folder: Folder | None,
        options: Callable[[], ResponsesOptions],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._options = options
        self._now = now
        self._recent: OrderedDict[str, _Recent] = OrderedDict()
        self._recent_bytes = self._unwritten_bytes = 0
        self._deleted: set[str] = set()
        """Ids whose files the thread still has to delete."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._rests_until = 0.0

    @property
    def keeps(self) -> bool:
        """True if responses are stored at all."""
        options = self._options()
        return self._folder is not None and options.keep > 0 and options.max_mb > 0

    def put(self, record: Record) -> None:
        """Store a response, replacing an earlier state of it."""
        data = _encode(record)
        self._forget(record.id)
        if self._unwritten_bytes + len(data) > UNWRITTEN_BYTES:
            log.warning(
                "a response is not stored, because the disk is too slow: %d MB are waiting", UNWRITTEN_BYTES // 2**20
            )
            return
        kept = _Recent(record, len(data), self._now())
        self._recent[record.id] = kept
        self._recent_bytes += kept.size
        self._unwritten_bytes += kept.size
        self._shrink()
        loop = asyncio.get_running_loop()
        self._do(partial(self._write, loop, kept, data))

    async def get(self, response_id: str, owner: str | None) -> Record | None:
        """Return a response created with this key, and mark it as used; None if there is none any more."""
        if not self.keeps or not _ID.fullmatch(response_id) or response_id in self._deleted:
            return None
        kept = self._recent.get(response_id) or await self._read(response_id)
        if kept is None or kept.record.owner != owner:
            return None
        if self._now() - kept.used_at > self._options().keep:
            self.delete(response_id)
            return None
        kept.used_at = self._now()
        if response_id in self._recent:
            self._recent.move_to_end(response_id)
        if self._folder is not None:
            self._do(partial(self._folder.touch, response_id))
        return kept.record

    def delete(self, response_id: str) -> None:
        """Delete a response that `get` has found."""
        self._forget(response_id)
        if self._folder is not None:
            self._deleted.add(response_id)
            self._do(partial(self._delete, asyncio.get_running_loop(), response_id))

    async def start(self) -> None:
        """Delete what has expired while no server was running."""
        if self._folder is not None and await aside(self._folder.exists):
            self._do(self._sweep)

    async def close(self) -> None:
        """Wait until everything is on disk, but not forever."""
        if self._thread is not None:
            self._jobs.put(None)
            thread = self._thread
            await aside(lambda: thread.join(FLUSH_SECONDS))
            self._thread = None

    async def _read(self, response_id: str) -> _Recent | None:
        folder = self._folder
        if folder is None:
            return None
        try:
            found = await aside(lambda: folder.read(response_id))
            if found is None or response_id in self._deleted:
                return None
            data, used_at = found
            kept = _Recent(_decode(data), len(data), used_at)
        except OSError as error:
            log.warning("a stored response cannot be read: %s", advise(error))
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("the stored response %s is damaged: %s", response_id, error)
            return None
        kept.unwritten = False
        if response_id not in self._recent:
            self._recent[response_id] = kept
            self._recent_bytes += kept.size
            self._shrink()
        return kept

    def _forget(self, response_id: str) -> None:
        kept = self._recent.pop(response_id, None)
        if kept is not None:
            self._recent_bytes -= kept.size

    def _shrink(self) -> None:
        for response_id, kept in list(self._recent.items()):
            if self._recent_bytes <= RECENT_BYTES:
                break
            if not kept.unwritten:
                self._forget(response_id)

    def _do(self, job: Job) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="responses", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        """Process the work on files, in order. Runs in the thread."""
        while True:
            try:
                job = self._jobs.get(timeout=SWEEP_SECONDS)
            except queue.Empty:
                job = self._sweep
            if job is None:
                return
            try:
                job()
            except OSError as error:
                self._rest(error)

    def _write(self, loop: asyncio.AbstractEventLoop, kept: _Recent, data: bytes) -> None:
        try:
            if self._folder is not None and time.monotonic() >= self._rests_until:
                self._folder.write(kept.record.id, data, max_bytes=self._max_bytes)
        finally:
            _tell(loop, partial(self._written, kept))

    def _written(self, kept: _Recent) -> None:
        """Record that a response no longer needs its place in memory, even if it could not be written."""
        kept.unwritten = False
        self._unwritten_bytes -= kept.size
        self._shrink()

    def _delete(self, loop: asyncio.AbstractEventLoop, response_id: str) -> None:
        assert self._folder is not None  # noqa: S101  # it was asked before
        self._folder.delete(response_id)
        _tell(loop, partial(self._deleted.discard, response_id))

    def _sweep(self) -> None:
        if self._folder is not None and self._folder.exists():
            self._folder.sweep(max_bytes=self._max_bytes, keep_seconds=self._options().keep)

    @property
    def _max_bytes(self) -> int:
        return self._options().max_mb * 2**20

    def _rest(self, error: OSError) -> None:
        """Stop writing for a while, for example if the disk is full."""
        if time.monotonic() >= self._rests_until:
            log.warning("responses are not stored on disk for %g s: %s", REST_SECONDS, advise(error))
        self._rests_until = time.monotonic() + REST_SECONDS


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop was closed
        return
