"""`POST /v1/chat/completions`: one conversation, answered whole or as server-sent events."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from quart import Blueprint, Response

from localapi.api import body, scope
from localapi.api.chat_request import ChatRequest, parse_chat
from localapi.api.replies import DONE, comment, error_body, event, json_reply
from localapi.errors import ApiError, GenerationFailed
from localapi.registry import Registry
from localapi.worker.protocol import Delta, Event, Finished, Prefill

log = logging.getLogger(__name__)

PRIME_SECONDS: Final = 2.0
"""How long a stream's status waits for the first event, so that early failures are real status codes."""
COMMENT_SECONDS: Final = 2.0
"""How often a stream that has nothing to send yet says what it waits for."""


def routes(registry: Registry) -> Blueprint:
    """The endpoint."""
    blueprint = Blueprint("chat", __name__)

    @blueprint.post("/v1/chat/completions")
    async def create_chat_completion() -> Response:
        request, ignored = parse_chat(await body.read_object())
        completion = Completion(registry, request)
        reply = await completion.stream() if request.stream else await completion.whole()
        return body.name_ignored(ignored, reply)

    return blueprint


@dataclass
class Completion:
    """One answer on its way to one client."""

    registry: Registry
    request: ChatRequest
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))
    started: float = field(default_factory=time.monotonic)
    first_text: float | None = None

    def __post_init__(self) -> None:
        self.entry = self.registry.resolve(self.request.model, "chat")

    async def events(self) -> AsyncGenerator[Event, None]:
        """Lease the model and let it answer. Raises ApiError."""
        lease = await scope.current().held.enter_async_context(self.registry.lease(self.request.model, "chat"))
        self.entry = lease.entry
        chat = self.request.to_chat(lease.entry.serving.defaults)
        async with aclosing(lease.engine.chat(chat)) as events:
            async for item in events:
                if self.first_text is None and isinstance(item, Delta):
                    self.first_text = time.monotonic()
                yield item

    async def whole(self) -> Response:
        """The reply when all is known."""
        text: list[str] = []
        async with aclosing(self.events()) as events:
            async for item in events:
                if isinstance(item, Delta):
                    text.append(item.text)
                elif isinstance(item, Finished):
                    self._log_done(item)
                    return json_reply(self._completion("".join(text), item))
        raise GenerationFailed("The model ended its answer without saying why.")

    async def stream(self) -> Response:
        """The reply as soon as there is something to say, or after a moment."""
        events = self.events()
        first = asyncio.ensure_future(anext(events))

        async def give_back() -> None:
            first.cancel()
            await asyncio.wait([first])
            await events.aclose()

        scope.current().held.push_async_callback(give_back)
        await asyncio.wait([first], timeout=PRIME_SECONDS)
        if first.done():
            first.result()
        reply = Response(self._chunks(first, events), content_type="text/event-stream; charset=utf-8")
        reply.headers["Cache-Control"] = "no-cache"
        reply.timeout = None
        return reply

    async def _chunks(self, first: asyncio.Future[Event], events: AsyncIterator[Event]) -> AsyncGenerator[bytes, None]:
        """The stream's body. An error after the status has gone out is an event, and nothing follows it."""
        try:
            while not first.done():
                yield comment(self._waiting_for())
                await asyncio.wait([first], timeout=COMMENT_SECONDS)
            item = first.result()
            yield self._chunk({"role": "assistant", "content": ""})
            while not isinstance(item, Finished):
                if isinstance(item, Delta):
                    yield self._chunk({"content": item.text})
                elif isinstance(item, Prefill):
                    yield comment(f"prompt {item.done} of {item.total} tokens")
                item = await anext(events)
        except ApiError as error:
            log.warning("%s: %s: %s", scope.current().id, self.entry.id, error.message)
            yield event(error_body(error))
            return
        except Exception:
            log.exception("%s: %s", scope.current().id, self.entry.id)
            yield event(error_body(GenerationFailed("The server failed while it answered; its log says how.")))
            return
        yield self._chunk({}, item.reason)
        if self.request.include_usage:
            yield event({**self._frame("chat.completion.chunk"), "choices": [], "usage": _usage(item)})
        self._log_done(item)
        yield DONE

    def _waiting_for(self) -> str:
        progress = self.registry.instance(self.entry.id).progress if self.entry.id in self.registry.entries else None
        if progress is None:
            return f"waiting for {self.entry.id}"
        share = f" {100 * progress.done // progress.total} %" if progress.total else ""
        return f"loading {self.entry.id}: {progress.phase}{share}"

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.entry.id}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._frame("chat.completion.chunk"), "choices": [choice]})

    def _completion(self, text: str, finished: Finished) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished.reason}
        return {**self._frame("chat.completion"), "choices": [choice], "usage": _usage(finished)}

    def _log_done(self, finished: Finished) -> None:
        now = time.monotonic()
        wait = (self.first_text or now) - self.started
        speed = finished.completion_tokens / max(now - (self.first_text or self.started), 1e-3)
        log.info(
            "%s: %d tokens, %.0f tokens/s, first after %.2f s, prompt of %d (%s)",
            self.entry.id, finished.completion_tokens, speed, wait, finished.prompt_tokens, scope.current().id,
        )  # fmt: skip


def _usage(finished: Finished) -> dict[str, int]:
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
    }
