"""`GET /status/events`: the status, its changes as they happen, and log lines.

One task polls the status for all listeners, and none runs without listeners. A listener has no queue: it gets the
difference between the status that it got last and the current one, so a slow listener costs no memory and misses
nothing that still matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Final

from msgspec.structs import asdict, replace
from quart import Blueprint, Response

from localapi.api.admin.model_status import ModelReply
from localapi.api.admin.status import StatusReply
from localapi.api.operation import EVENTS, Operation, Operations
from localapi.http.replies import EVENT_STREAM, comment, event, streamed_reply
from localapi.observability.log_buffer import History

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Interval for changes that are not announced, such as the progress of a load."""
LEAST_SECONDS: Final = 0.1
"""Minimum interval between events; changes within it are sent as one."""
COMMENT_SECONDS: Final = 15.0
"""Interval of comments that keep a stream open."""


class Live:
    """Current status and its listeners."""

    def __init__(self, describe: Callable[[], StatusReply], history: History) -> None:
        self._describe = describe
        self._history = history
        self._logged = 0
        """Number of the newest log record already sent."""
        self._latest: StatusReply | None = None
        """Latest status; None until it could be described."""
        self._fails = False
        """True if the last attempt to describe the status failed, which is logged once."""
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        """Set if something may have changed."""
        self._news = asyncio.Event()
        """Set, then replaced, each time `_latest` changes."""
        self._closed = False

    def poke(self) -> None:
        """Announce that something may have changed."""
        self._changed.set()

    def close(self) -> None:
        """End all streams when the server shuts down."""
        self._closed = True
        self._tell()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events: `status` once, then `change` with the differences; `log` with log records."""
        with self._listening():
            told: StatusReply | None = None
            logged = 0
            while not self._closed:
                news = self._news
                if (latest := self._latest) is not None and latest is not told:
                    message, told = _message(told, latest), latest
                    yield message
                    continue
                if records := self._history.since(logged):
                    yield event({"all": logged == 0, "records": records}, name="log")
                    logged = records[-1]["number"]
                    continue
                try:
                    async with asyncio.timeout(COMMENT_SECONDS):
                        await news.wait()
                except TimeoutError:
                    yield comment({"unchanged": True})

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        if self._looking is None:
            self._latest = None
            self._see()
            self._looking = asyncio.create_task(self._look(), name="live status")
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            if self._listeners == 0:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LEAST_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS - LEAST_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            seen = self._see()
            logged, self._logged = self._logged, self._history.last
            if seen or logged != self._logged:
                self._tell()

    def _see(self) -> bool:
        """Describe the status, and return whether it has changed. A failure is logged, and retried later."""
        try:
            status = self._describe()
            changed = self._latest is None or _without_clocks(status) != _without_clocks(self._latest)
        except Exception:
            if not self._fails:
                log.exception("the status could not be described; live views are not updated until it can be")
            self._fails = True
            return False
        self._fails = False
        if changed:
            self._latest = status
        return changed

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def routes(live: Live, allowed: Callable[[], bool]) -> Blueprint:
    """Return the endpoint. A stream ends once its client is no longer `allowed` to read it."""
    blueprint = Blueprint("live", __name__)

    @blueprint.get("/status/events")
    async def follow_status() -> Response:
        async def body() -> AsyncGenerator[bytes, None]:
            async with aclosing(live.events()) as events:
                async for message in events:
                    if not allowed():
                        return
                    yield message

        return streamed_reply(body(), EVENT_STREAM)

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/status/events"): Operation(summary="The status, and its changes as they happen.", content={EVENTS: None}),
}


def difference(before: StatusReply, after: StatusReply) -> dict[str, object] | None:
    """Return the changes, with models by id, or None if the set of models is different."""
    if [model.id for model in before.models] != [model.id for model in after.models]:
        return None
    changed = {name: value for name, value in asdict(after).items() if value != getattr(before, name)}
    pairs = zip(before.models, after.models, strict=True)
    changed["models"] = [new for old, new in pairs if _without_clock(old) != _without_clock(new)]
    return changed


def _message(told: StatusReply | None, latest: StatusReply) -> bytes:
    change = difference(told, latest) if told is not None else None
    return event(latest, name="status") if change is None else event(change, name="change")


def _without_clocks(status: StatusReply) -> StatusReply:
    """Return the status without values that change by themselves."""
    return replace(status, now=0.0, models=[_without_clock(model) for model in status.models])


def _without_clock(model: ModelReply) -> ModelReply:
    parts = [replace(part, memory_bytes=None) for part in model.place.parts]
    return replace(model, last_step_age_seconds=None, place=replace(model.place, parts=parts))
