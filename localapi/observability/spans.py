"""Spans of OpenTelemetry (https://opentelemetry.io/docs/specs/semconv/gen-ai): of requests, and of what they wait for.

The packages send spans from a thread of their own. What cannot be sent is dropped, and the log says so once.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import localapi
from localapi.observability.traces import TraceOptions

log = logging.getLogger("localapi.observability.traces")

PATH: Final = "/v1/traces"
CLOSE_SECONDS: Final = 2.0
"""Time for sending what is left when the server ends, or when traces go elsewhere from now on."""
MOST_CHARACTERS: Final = 20_000
"""Characters of one text in a span; what follows is cut."""
NOTABLE_SECONDS: Final = 0.001
"""A step that took less is not shown, unless it was the last."""
_CONTEXT: Final = TraceContextTextMapPropagator()


class Trace:
    """One request, from its head to the last byte of its reply. Times are those of the monotonic clock."""

    def __init__(self, tracer: Any, headers: Mapping[str, str], *, contents: bool) -> None:
        self.contents = contents
        """True if it may hold what was asked and answered."""
        self.is_named = False
        self._tracer = tracer
        self._offset = time.time() - time.monotonic()
        self._span: Any = tracer.start_span("request", context=_CONTEXT.extract(headers), kind=SpanKind.SERVER)
        self._below = set_span_in_context(self._span)
        self._step: tuple[str, float, Mapping[str, Any]] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers that make what another server does a part of this trace."""
        carrier: dict[str, str] = {}
        _CONTEXT.inject(carrier, self._below)
        return carrier

    def name(self, name: str) -> None:
        """Say in a few words what the request asks for."""
        self.is_named = True
        self._span.update_name(name)

    def note(self, facts: Mapping[str, object]) -> None:
        """Add attributes. None is left out."""
        self._span.set_attributes({name: value for name, value in facts.items() if value is not None})

    def say(self, name: str, messages: Sequence[tuple[str, str]]) -> None:
        """Add what was asked or answered as roles and texts, in the JSON of the conventions."""
        said = [
            {"role": role, "parts": [{"type": "text", "content": text[:MOST_CHARACTERS]}]} for role, text in messages
        ]
        self._span.set_attribute(name, json.dumps(said, ensure_ascii=False))

    def step(self, name: str | None, at: float | None = None) -> None:
        """Begin the next step, at a time that may lie in the past, and end the one before. None: begin none."""
        at = time.monotonic() if at is None else at
        if self._step is not None:
            before, since, said = self._step
            if name is None or at - since >= NOTABLE_SECONDS:
                span = self._tracer.start_span(before, self._below, attributes=said, start_time=self._unix(since))
                span.end(self._unix(max(at, since)))
        self._step = None if name is None else (name, at, {})

    def describe_step(self, name: str, facts: Mapping[str, object]) -> None:
        """Give the step that goes on another name, and attributes."""
        if self._step is not None:
            self._step = (name, self._step[1], facts)

    def end(self, error: str | None) -> None:
        """End the span, with the error's code if there was one."""
        self.step(None)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR, error)
        self._span.end()

    def _unix(self, at: float) -> int:
        return int((at + self._offset) * 1e9)


class Sender:
    """Maker of spans, which sends them to one collector. Raise what the packages raise for variables of theirs."""

    def __init__(self, options: TraceOptions) -> None:
        self._contents = options.contents
        base = options.endpoint
        self._exporter = _Exporter(None if base is None else base.rstrip("/").removesuffix(PATH) + PATH)
        self.address = self._exporter.address
        self._collecting = BatchSpanProcessor(self._exporter)
        resource = Resource.create({"service.version": localapi.__version__})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):  # OTEL_SERVICE_NAME is not set
            resource = resource.merge(Resource({"service.name": "localapi"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._collecting)
        self._tracer = provider.get_tracer("localapi", localapi.__version__)

    def begin(self, headers: Mapping[str, str]) -> Trace:
        """Return the trace of a request with these headers, which may belong to one already."""
        return Trace(self._tracer, headers, contents=self._contents)

    def close(self) -> None:
        """Send what is left, for a moment. It blocks."""
        ending = threading.Thread(target=self._collecting.shutdown, name="last traces", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        self._exporter.complaints.remove()


class _Exporter:
    """An exporter that tells once that nothing can be sent, and once that it can again."""

    def __init__(self, address: str | None) -> None:
        self.complaints = _Complaints()
        self._exporter = OTLPSpanExporter(endpoint=address)
        self.address = str(getattr(self._exporter, "_endpoint", address))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.complaints.forget()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


class _Complaints(logging.Handler):
    """Takes what the packages log: the first complaint is a line of ours, and those that follow say the same."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told = False
        self._logger = logging.getLogger("opentelemetry")
        self._logger.propagate = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            log.warning("traces cannot be sent, and are dropped until they can: %s", record.getMessage())

    def forget(self) -> None:
        """Take note that traces arrive."""
        if self._told:
            self._told = False
            log.info("traces are sent again")

    def remove(self) -> None:
        """Hear nothing more."""
        self._logger.removeHandler(self)
