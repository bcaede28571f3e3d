"""`GET /status/events`: the status, and what changes in it, as it changes; and the lines of the log.

One task looks, however many listen, and none while nobody does. A listener keeps no queue: it is told the difference
between what it was told last and what is true when it can take more, so a slow one costs no memory and misses nothing
that still matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final

from quart import Blueprint, Response

from localapi.api.operation import EVENTS, Operation, Operations
from localapi.http.replies import EVENT_STREAM, comment, event, streamed_reply
from localapi.observability.log_buffer import History

log = logging.getLogger(__name__)

Status = dict[str, Any]

LOOK_SECONDS: Final = 1.0
"""How often to look where nothing tells of a change, such as the progress of a load."""
LEAST_SECONDS: Final = 0.1
"""Changes closer together are told as one."""
COMMENT_SECONDS: Final = 15.0
"""How often a stream says that it is still there."""


class Live:
    """The status as it changes."""

    def __init__(self, describe: Callable[[], Status], history: History) -> None:
        self._describe = describe
        self._history = history
        self._logged = 0
        """The number of the newest record of the log that was looked at."""
        self._latest: Status = {}
        """Empty where it could not be described yet."""
        self._fails = False
        """Whether it could not be described at the last look, which the log tells once."""
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        """Something may have changed."""
        self._news = asyncio.Event()
        """Set, and replaced, when `_latest` has changed."""
        self._closed = False

    def poke(self) -> None:
        """Something may have changed."""
        self._changed.set()

    def close(self) -> None:
        """End all streams: the server shuts down."""
        self._closed = True
        self._tell()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events: `status` with all of it, then `change` with what differs; `log` with lines of the log."""
        with self._listening():
            told: Status = {}
            logged = 0
            while not self._closed:
                news = self._news
                if (latest := self._latest) and latest is not told:
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
            self._latest = {}
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
        """Describe it; whether something has changed. A failure is ours to mend: the next look may do better."""
        try:
            status = self._describe()
            changed = not self._latest or _without_clocks(status) != _without_clocks(self._latest)
        except Exception:
            if not self._fails:
                log.exception("the status could not be described: its live view stands still until it can be")
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
    """The endpoint. A stream ends when whoever listens is no longer `allowed` to."""
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


def difference(before: Status, after: Status) -> Status | None:
    """What turns one status into another, models by their ids; None where other models are there."""
    ids = [[model["id"] for model in status["models"]] for status in (before, after)]
    if ids[0] != ids[1]:
        return None
    changed = {key: value for key, value in after.items() if key != "models" and before.get(key) != value}
    pairs = zip(before["models"], after["models"], strict=True)
    models = [new for old, new in pairs if _without_clock(old) != _without_clock(new)]
    return {**changed, "models": models}


def _message(told: Status, latest: Status) -> bytes:
    change = difference(told, latest) if told else None
    return event(latest, name="status") if change is None else event(change, name="change")


def _without_clocks(status: Status) -> Status:
    """What changes only when something happens."""
    models = [_without_clock(model) for model in status["models"]]
    return {**{key: value for key, value in status.items() if key != "now"}, "models": models}


def _without_clock(model: Status) -> Status:
    return {key: value for key, value in model.items() if key != "last_step_age_seconds"}
