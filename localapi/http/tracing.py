"""ASGI middleware that traces requests to models, if the manifest asks for traces, and continues traces of clients."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from localapi.backends.engine import trace_headers
from localapi.http import request_context
from localapi.http.capturing import is_of_models
from localapi.http.request_context import CLIENT_LEFT
from localapi.observability.traces import Traces
from localapi.runtime.lease import Lease
from localapi.runtime.queue import Ticket
from localapi.worker.protocol import Answering, Chat, Complete, Delta, Ended, Event, Finished, Request, ToolStart

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

    from localapi.observability.spans import Trace

_DIALECTS: Final = {"/v1/messages": "anthropic", "/api/": "ollama"}
"""APIs by path prefix; the others are OpenAI's."""
_PARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_STATE: Final = 512
"""Characters of `tracestate` that must be passed on (https://www.w3.org/TR/trace-context)."""


class TraceMiddleware:
    """Middleware inside the request scope, which knows the request's id, model and key."""

    def __init__(self, app: ASGIFramework, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http" or not is_of_models(scope):
            await self._app(scope, receive, send)
            return
        headers = _context_of(scope)
        request = request_context.current()
        request.trace = trace = self._traces.begin(headers)
        trace_headers.set(headers if trace is None else trace.headers)
        if trace is None:
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if not trace.is_named:  # no model was found
                trace.name(f"{scope['method']} {request.endpoint}")
            trace.note(
                {
                    "http.request.method": scope["method"],
                    "http.response.status_code": request.status,
                    "http.route": request.endpoint,
                    "url.path": scope["path"],
                    "localapi.dialect": _dialect(scope["path"]),
                    "localapi.request_id": request.id,
                    "localapi.key": request.key.name if request.key is not None else None,
                }
            )
            trace.end("client_left" if request.status == CLIENT_LEFT else request.error)


class AnswerTrace:
    """Part of a trace about one response of a model."""

    def __init__(self, trace: Trace, ticket: Ticket, operation: str, model: str) -> None:
        """Start a trace for `model`, the requested entry."""
        self._trace = trace
        self._asked = model
        self._name(operation)
        trace.note({"gen_ai.provider.name": "localapi", "gen_ai.request.model": model})
        self._ticket = ticket
        self._leased = False
        self._began = ticket.arrived_at
        self._model = ""
        self._first: float | None = None
        self._reasons: list[str] = []
        self._texts: dict[int, str] = {}

    def lease(self, lease: Lease) -> None:
        """Record that the request has a lease: it has waited for its turn, and for the model to load."""
        self._leased = True
        self._waited(lease.ticket)
        self._trace.step("answer", lease.ticket.sent_at)
        self._trace.note({"gen_ai.response.model": lease.entry.id})
        self._model = lease.entry.id

    def ask(self, requests: Sequence[Request]) -> None:
        """Record the request to the engine."""
        if not isinstance(requests[0], Answering):
            return
        self._first, self._reasons, self._texts = None, [], {}
        self._name("text_completion" if isinstance(requests[0], Complete) else "chat")
        self._trace.describe_step("prompt", {"gen_ai.response.model": self._model})
        sampling = requests[0].sampling
        self._trace.note(
            {
                "gen_ai.request.max_tokens": requests[0].max_tokens,
                "gen_ai.request.temperature": sampling.temperature,
                "gen_ai.request.top_p": sampling.top_p,
            }
        )
        if self._trace.contents:
            self._trace.say("gen_ai.input.messages", [each for request in requests for each in _asked(request)])

    def hear(self, event: Event) -> None:
        """Record an event from the engine."""
        if isinstance(event, Delta | ToolStart) and self._first is None:
            self._first = time.monotonic()
            self._trace.step("decode", self._first)
        if isinstance(event, Delta) and self._trace.contents and not event.reasoning:
            self._texts[event.choice] = self._texts.get(event.choice, "") + event.text
        elif isinstance(event, Ended):
            self._reasons.append(event.reason)
        elif isinstance(event, Finished):
            self._finish(event)

    def close(self) -> None:
        """End the trace. A request without a lease spent its time waiting."""
        if not self._leased:
            attempt = self._ticket.attempt
            self._waited(self._ticket if attempt is None else attempt[1])

    def _name(self, operation: str) -> None:
        self._trace.name(f"{operation} {self._asked}")
        self._trace.note({"gen_ai.operation.name": operation})

    def _waited(self, ticket: Ticket) -> None:
        self._trace.step("queue", ticket.arrived_at)
        if ticket.admitted_at is not None:
            self._trace.step("load", ticket.admitted_at)

    def _finish(self, answer: Finished) -> None:
        self._trace.step(None)
        first_seconds = None if self._first is None else round(self._first - self._began, 6)
        self._trace.note(
            {
                "gen_ai.response.finish_reasons": self._reasons or None,
                "gen_ai.response.time_to_first_chunk": first_seconds,
                "gen_ai.usage.input_tokens": answer.prompt_tokens if answer.counted else None,
                "gen_ai.usage.output_tokens": answer.completion_tokens if answer.counted else None,
                "gen_ai.usage.cache_read.input_tokens": answer.cached_tokens if answer.counted else None,
            }
        )
        if self._texts:
            self._trace.say("gen_ai.output.messages", [("assistant", text) for _, text in sorted(self._texts.items())])


def _asked(request: Request) -> list[tuple[str, str]]:
    """Return the texts of a request with their roles. Images and audio are omitted."""
    if isinstance(request, Chat):
        return [(each.role, each.text) for each in request.messages]
    prompt = request.prompt if isinstance(request, Complete) else ""
    return [("user", prompt if isinstance(prompt, str) else f"{len(prompt)} tokens")]


def _dialect(path: str) -> str:
    return next((name for start, name in _DIALECTS.items() if path.startswith(start)), "openai")


def _context_of(scope: HTTPScope) -> dict[str, str]:
    """Return the headers that identify the trace of a request; none if they are invalid."""
    said = {bytes(name).lower(): value for name, value in scope["headers"]}
    parent, state = (bytes(said.get(name, b"")).decode("latin-1").strip() for name in (b"traceparent", b"tracestate"))
    if not _PARENT.fullmatch(parent):
        return {}
    is_passed_on = state and len(state) <= _MAX_STATE and state.isascii() and state.isprintable()
    return {"traceparent": parent, "tracestate": state} if is_passed_on else {"traceparent": parent}
