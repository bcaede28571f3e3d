"""Traces as a collector gets them: what a request waited for and did, and whose trace it belongs to."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from localapi.manifest.server_options import TraceOptions
from localapi.observability.traces import Traces
from tests.server import Server, save, serving

CHAT = "/v1/chat/completions"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_SERVICE_NAME": "kitchen"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OF_CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


class Collector:
    """A collector of spans, and another server with a model: both are servers that keep what they get."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.asked: list[dict[str, str]] = []
        """Headers of requests to the model."""
        self._news = threading.Condition()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        with self._news:
            if path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.services |= {
                        a.value.string_value for a in resource.resource.attributes if a.key == "service.name"
                    }
                    self.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self._news.notify_all()
                return b""
            self.asked.append(headers)
        choice = {"index": 0, "message": {"role": "assistant", "content": "far"}, "finish_reason": "stop"}
        return json.dumps({"id": "x", "object": "chat.completion", "model": "far", "choices": [choice]}).encode()

    def of(self, request_id: str) -> tuple[Any, dict[str, Any], list[Any]]:
        """Return the span of a request once it is there, its attributes, and the spans below it in their order."""

        def found() -> Any:
            return next((span for span in self.spans if facts(span).get("localapi.request_id") == request_id), None)

        with self._news:
            assert self._news.wait_for(found, 60), f"no span of {request_id} in {len(self.spans)}"
            span = found()
            below = [each for each in self.spans if each.parent_span_id == span.span_id]
        return span, facts(span), sorted(below, key=lambda each: each.start_time_unix_nano)


def facts(span: Any) -> dict[str, Any]:
    def value(said: Any) -> Any:
        return [value(each) for each in said.array_value.values] if said.HasField("array_value") else plain(said)

    def plain(said: Any) -> Any:
        return getattr(said, said.WhichOneof("value"))

    return {each.key: value(each.value) for each in span.attributes}


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = collector.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def manifest(address: str, contents: str = "false") -> str:
    return f"""\
server:
  traces: {{endpoint: "{address}", contents: {contents}}}
chat:
  bird: {{backend: echo, aliases: [parrot]}}
  away: {{backend: openai, url: "{address}/v1", model: far}}
embedding:
  vectors: {{backend: echo}}
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Collector, str]]:
    folder = tmp_path_factory.mktemp("traces")
    with collecting() as (collector, address), serving(folder, manifest(address), env=QUICK) as server:
        server.wait_for("sending traces to ")
        yield server, collector, address


def ask(server: Server, model: str = "bird", text: str = "polly says secret", **more: Any) -> Any:
    asked = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return server.request("POST", CHAT, asked, OF_CLIENT)


def test_a_request_belongs_to_the_trace_of_its_client_and_shows_its_steps(traced: Any) -> None:
    server, collector, _ = traced
    reply = ask(server, "parrot", stream=True, temperature=0.5, stream_options={"include_usage": True})
    span, said, below = collector.of(reply.headers["x-request-id"])
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("chat bird", TRACE, PARENT)
    assert {key: said[key] for key in said if key.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "localapi",
        "gen_ai.request.model": "bird",
        "gen_ai.response.model": "bird",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": said["gen_ai.response.time_to_first_chunk"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    assert (said["localapi.dialect"], said["http.route"], said["http.response.status_code"]) == ("openai", CHAT, 200)
    assert below[-1].name == "decode"
    assert all(span.start_time_unix_nano <= each.start_time_unix_nano for each in below)
    assert below[-1].end_time_unix_nano <= span.end_time_unix_nano
    assert 0 < said["gen_ai.response.time_to_first_chunk"] < (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert collector.services == {"kitchen"}
    assert not any(b"secret" in each.SerializeToString() for each in collector.spans)


def test_another_server_is_told_the_trace(traced: Any) -> None:
    server, collector, _ = traced
    reply = ask(server, "away")
    span, said, _ = collector.of(reply.headers["x-request-id"])
    assert collector.asked[-1]["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert collector.asked[-1]["tracestate"] == "vendor=1"
    assert said["gen_ai.response.model"] == "away"
    assert "gen_ai.usage.input_tokens" not in said  # the other server does not say


def test_failures_and_other_kinds_are_spans_too(traced: Any) -> None:
    server, collector, _ = traced
    _, said, _ = collector.of(ask(server, "nobody").headers["x-request-id"])
    assert (said["error.type"], said["http.response.status_code"]) == ("model_not_found", 404)
    message = {"model": "bird", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    _, said, _ = collector.of(server.request("POST", "/v1/messages", message).headers["x-request-id"])
    assert said["localapi.dialect"] == "anthropic"
    reply = server.request("POST", "/v1/completions", {"model": "parrot", "prompt": "one"})
    span, said, _ = collector.of(reply.headers["x-request-id"])
    assert (span.name, said["gen_ai.operation.name"]) == ("text_completion bird", "text_completion")
    reply = server.request("POST", "/v1/embeddings", {"model": "vectors", "input": "one"})
    span, _, below = collector.of(reply.headers["x-request-id"])
    assert (span.name, [each.name for each in below][-1]) == ("embeddings vectors", "answer")


def test_contents_are_sent_once_the_manifest_says_so_and_nothing_when_it_does_not(traced: Any) -> None:
    server, collector, address = traced
    seen = len(server.lines)
    save(server.folder / "models.yaml", manifest(address, "true"))
    server.wait_for("sending traces to ", after=seen)
    _, said, _ = collector.of(ask(server).headers["x-request-id"])
    assert json.loads(said["gen_ai.input.messages"])[0]["parts"][0]["content"] == "polly says secret"
    assert json.loads(said["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "polly says secret"}]}
    ]
    save(server.folder / "models.yaml", manifest(address).replace("server:", "x-was:", 1))
    server.reload()
    before = len(collector.spans)
    assert ask(server, "away").status == 200
    assert collector.asked[-1]["traceparent"] == OF_CLIENT["traceparent"]  # passed on as it came
    assert len(collector.spans) == before


def test_a_collector_that_is_away_costs_one_line(tmp_path: Path) -> None:
    with serving(tmp_path, manifest("http://127.0.0.1:9"), env={**QUICK, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}) as server:
        server.wait_for("sending traces to ")
        assert ask(server).status == 200
        server.wait_for("traces cannot be sent")
        assert [ask(server).status for _ in range(3)] == [200, 200, 200]
    assert sum("traces" in line for line in server.lines) == 2


@pytest.mark.everyday
def test_without_the_packages_a_warning_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "localapi.observability.spans", raising=False)
    traces = Traces()
    traces.follow(TraceOptions())
    for thread in threading.enumerate():
        if thread.name == "traces":
            thread.join()
    assert traces.warning is not None
    assert "uv pip install opentelemetry" in traces.warning
    assert traces.begin({}) is None
