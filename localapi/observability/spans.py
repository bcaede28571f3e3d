"""Spans of OpenTelemetry (https://opentelemetry.io/docs/specs/semconv/gen-ai): of requests, and of their waits.

The packages send spans from a thread of their own. What cannot be sent is dropped, which is logged once.
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

log = logging.getLogger("localapi.observability.traces")

PATH: Final = "/v1/traces"
CLOSE_SECONDS: Final = 2.0
"""Time for sending the remaining spans when the server stops, or when traces are sent elsewhere from now on."""
MOST_CHARACTERS: Final = 20_000
"""Maximum characters of one text in a span; the rest is cut off."""
NOTABLE_SECONDS: Final = 0.001
"""Shortest step that is shown, unless it was the last."""
_CONTEXT: Final = TraceContextTextMapPropagator()


class Trace:
    """One request, from its head to the last byte of its reply. Times are those of the monotonic clock."""

    def __init__(self, tracer: Any, headers: Mapping[str, str], *, contents: bool) -> None:
        self.contents = contents
        """True if it may contain contents of requests and responses."""
        self.is_named = False
        self._tracer = tracer
        self._offset = time.time() - time.monotonic()
        self._span: Any = tracer.start_span("request", context=_CONTEXT.extract(headers), kind=SpanKind.SERVER)
        self._below = set_span_in_context(self._span)
        self._step: tuple[str, float, Mapping[str, Any]] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers that make another server's spans part of this trace."""
        carrier: dict[str, str] = {}
        _CONTEXT.inject(carrier, self._below)
        return carrier

    def name(self, name: str) -> None:
        """Set a short name of the request."""
        self.is_named = True
        self._span.update_name(name)

    def note(self, facts: Mapping[str, object]) -> None:
        """Add attributes. None is omitted."""
        self._span.set_attributes({name: value for name, value in facts.items() if value is not None})

    def say(self, name: str, messages: Sequence[tuple[str, str]]) -> None:
        """Add the request or the response as roles and texts, in the conventions' JSON."""
        said = [
            {"role": role, "parts": [{"type": "text", "content": text[:MOST_CHARACTERS]}]} for role, text in messages
        ]
        self._span.set_attribute(name, json.dumps(said, ensure_ascii=False))

    def step(self, name: str | None, at: float | None = None) -> None:
        """Start the next step, at a time that may be in the past, and end the previous one. None starts no step."""
        at = time.monotonic() if at is None else at
        if self._step is not None:
            before, since, said = self._step
            if name is None or at - since >= NOTABLE_SECONDS:
                span = self._tracer.start_span(before, self._below, attributes=said, start_time=self._unix(since))
                span.end(self._unix(max(at, since)))
        self._step = None if name is None else (name, at, {})

    def describe_step(self, name: str, facts: Mapping[str, object]) -> None:
        """Give the current step another name, and attributes."""
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
    """Maker of spans, which sends them to one collector. Raise the packages' errors about their variables."""

    def __init__(self, base: str | None, *, contents: bool) -> None:
        """Take the address of the collector, with or without its path; None: what the OTEL_ variables say."""
        self._contents = contents
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
        """Return the trace of a request with these headers, which may already belong to one."""
        return Trace(self._tracer, headers, contents=self._contents)

    def close(self) -> None:
        """Send the remaining spans, for a moment. Blocks."""
        ending = threading.Thread(target=self._collecting.shutdown, name="last traces", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        self._exporter.complaints.remove()


class _Exporter:
    """Exporter that reports once that nothing can be sent, and once that it can again."""

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
    """Handler of the packages' log: the first complaint becomes a line of ours, and repetitions are dropped."""

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
        """Record that traces arrive."""
        if self._told:
            self._told = False
            log.info("traces are sent again")

    def remove(self) -> None:
        """Stop handling the log."""
        self._logger.removeHandler(self)
