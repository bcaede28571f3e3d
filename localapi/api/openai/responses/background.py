"""Responses in the background: they continue after their client has left, and can be followed from any event on."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final

from localapi.api.dialect import Exchange
from localapi.api.openai.responses.reply import ResponsesReply
from localapi.api.openai.responses.wire import StreamEvent
from localapi.errors import ApiError, GenerationFailed, ModelBusy, ModelUnavailable
from localapi.http import request_context

log = logging.getLogger(__name__)

MOST_RUNS: Final = 32
"""Maximum number of running and waiting responses."""
MOST_ENDED: Final = 16
"""Maximum number of ended responses that can still be followed event by event."""


class Run:
    """Response that is being generated. If it is streamed, its events are kept, so that they can be sent again."""

    def __init__(self, reply: ResponsesReply, *, streamed: bool) -> None:
        self.reply = reply
        self.ended = False
        self.task: asyncio.Task[None] | None = None
        self._events: list[bytes] | None = [] if streamed else None
        self._news = asyncio.Event()

    @property
    def streamed(self) -> bool:
        """True if its events can be followed."""
        return self._events is not None

    def send(self, events: Iterable[StreamEvent]) -> None:
        """Add an event."""
        for event in events:
            if self._events is not None:
                self._events.append(self.reply.sent(event))
        self._tell()

    def end(self) -> None:
        """Mark the end of the events."""
        self.ended = True
        self._tell()

    async def follow(self, after: int) -> AsyncGenerator[bytes, None]:
        """Yield the events after the one with this number, as they arrive."""
        at = after + 1
        events = self._events or []
        while True:
            news, ended = self._news, self.ended
            for data in events[at:]:
                yield data
                at += 1
            if ended:
                break
            await news.wait()
        yield self.reply.end()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Background:
    """All responses in the background."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, Run] = OrderedDict()

    def get(self, response_id: str) -> Run | None:
        """Return the run of a response, unless it ended long ago."""
        return self._runs.get(response_id)

    def check_room(self) -> None:
        """Raise ModelBusy if there are too many."""
        if sum(not run.ended for run in self._runs.values()) >= MOST_RUNS:
            raise ModelBusy(
                f"{MOST_RUNS} responses are already running in the background. Wait for one, or cancel one.",
                retry_after_seconds=5,
            )

    def start(self, begin: Callable[[], Exchange], reply: ResponsesReply, *, streamed: bool) -> Run:
        """Run a response. `begin` starts to answer in the context of the run."""
        run = Run(reply, streamed=streamed)
        run.send(reply.queued())
        self._runs[reply.response.id] = run
        ended = [name for name, each in self._runs.items() if each.ended]
        for name in ended[: max(0, len(ended) - MOST_ENDED)]:
            del self._runs[name]
        run.task = asyncio.create_task(self._work(run, begin), name="background response")
        return run

    async def cancel(self, run: Run) -> None:
        """End a run. Its response says so, unless it has already ended."""
        if run.ended or run.task is None:
            return
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)
        if not run.ended:
            run.reply.cancel()
            run.end()

    async def close(self) -> None:
        """End all runs; their responses say that the server stopped."""
        for run in list(self._runs.values()):
            if not run.ended and run.task is not None:
                run.task.cancel()
                await asyncio.gather(run.task, return_exceptions=True)
                self._fail(
                    run,
                    ModelUnavailable("The server stopped before the response was complete. Send the request again."),
                )

    async def _work(self, run: Run, begin: Callable[[], Exchange]) -> None:
        asked = request_context.current()
        scope = request_context.begin(asked.counters)
        if asked.key is not None:
            scope.take(asked.key)
        try:
            async with scope.held:
                exchange = begin()
                with exchange.request.in_words_of_client():
                    async with aclosing(exchange.events()) as events:
                        async for event in events:
                            run.send(run.reply.events_of(event))
        except ApiError as error:
            log.warning("%s: %s: %s", scope.id, run.reply.model, error.logged)
            self._fail(run, error)
        except Exception:
            log.exception("%s: %s", scope.id, run.reply.model)
            self._fail(run, GenerationFailed("The server failed while answering; see its log."))
        else:
            run.end()

    def _fail(self, run: Run, error: ApiError) -> None:
        if not run.ended:
            run.send(run.reply.failed(error))
            run.end()
