"""`GET /openapi.json`: it is valid, complete, and true of a running server."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from unittest import SkipTest

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from localapi.api.openapi import document, documented, operations
from localapi.app import Service, create_app
from localapi.manifest import ManifestSource
from localapi.settings import Settings
from tests.server import Reply, Server, serving

MANIFEST = """
chat: {m: {backend: echo}, demo: {backend: mlx-lm, path: demo}}
speech: {s: {backend: echo, voices: {v: {}}}}
"""
SAID = [{"role": "user", "content": "hi"}]
CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/speech"
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"properties": {"city": {}}}}}
ENDLESS = "/status/events"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("openapi"), MANIFEST) as server:
        yield server


@pytest.fixture(scope="module")
def served(server: Server) -> Any:
    return server.get("/openapi.json")


def test_every_route_is_documented_and_nothing_else() -> None:
    assert documented(create_app(Service(Settings(), ManifestSource()))) == set(operations())


def test_the_document_is_what_the_specification_says(served: Any) -> None:
    assert served == document()
    assert served["openapi"] == "3.1.0"
    schemas = served["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    refs = {ref for ref in _refs(served) if ref.startswith("#/components/schemas/")}
    assert {ref.rpartition("/")[2] for ref in refs} <= set(schemas)
    assert all(operation["summary"] for path in served["paths"].values() for operation in path.values())


def _refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for part in node.values():
            yield from _refs(part)
    elif isinstance(node, list):
        for part in node:
            yield from _refs(part)


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        ("GET /v1/models", None, 200),
        ("GET /v1/models/m", None, 200),
        ("GET /v1/models/nope", None, 404),
        (f"POST {CHAT}", {"model": "m", "messages": SAID}, 200),
        (f"POST {CHAT}", {"model": "demo", "messages": SAID, "n": 2, "logprobs": True, "max_tokens": 5}, 200),
        (f"POST {CHAT}", {"model": "demo", "messages": SAID, "tools": [WEATHER], "tool_choice": "required"}, 200),
        (f"POST {CHAT}", {"model": "m", "messages": SAID, "stream": True}, 200),
        (f"POST {CHAT}", {"model": "m"}, 400),
        (f"POST {CHAT}", {"model": "nope", "messages": SAID}, 404),
        (f"POST {CHAT}", b"[", 400),
        (f"POST {CHAT}", b" " * 17_000_000, 413),
        ("POST /v1/completions", {"model": "demo", "prompt": ["a", "b"], "logprobs": 2, "max_tokens": 3}, 200),
        ("POST /v1/tokenize", {"model": "demo", "text": "hi"}, 200),
        ("POST /v1/detokenize", {"model": "demo", "tokens": [5]}, 200),
        (f"POST {SPEECH}", {"model": "s", "input": "hi"}, 200),
        (f"POST {SPEECH}", {"model": "s", "input": "hi", "response_format": "wav"}, 200),
        (f"POST {SPEECH}", {"model": "s", "input": "hi", "timestamps": "sentence"}, 200),
        (f"POST {SPEECH}", {"model": "s", "input": "hi", "stream_format": "sse"}, 200),
        ("GET /v1/audio/voices", None, 200),
        ("GET /v1/audio/voices?model=m", None, 400),
        ("GET /v1/audio/models", None, 200),
        ("GET /health", None, 200),
        ("GET /health/ready", None, 200),
        ("GET /status", None, 200),
        ("GET /metrics", None, 200),
        ("POST /admin/reload", None, 200),
        ("GET /openapi.json", None, 200),
    ],
)
def test_a_real_reply_is_as_documented(server: Server, served: Any, request_line: str, body: Any, status: int) -> None:
    method, path = request_line.split()
    reply = server.request(method, path, body)
    assert reply.status == status, reply.body[:500]
    assert_documented(served, method, path.partition("?")[0], reply)


def assert_documented(served: Any, method: str, path: str, reply: Reply) -> None:
    if path.startswith("/v1/models/"):
        path = "/v1/models/{id}"
    content = served["paths"][path][method.lower()]["responses"][str(reply.status)]["content"]
    kind = reply.headers["content-type"].partition(";")[0]
    assert kind in content
    if "schema" in content[kind]:
        schema = {**content[kind]["schema"], "components": served["components"]}
        jsonschema.validate(reply.json(), schema, cls=jsonschema.Draft202012Validator)


def test_a_body_that_is_documented_is_taken(server: Server, served: Any) -> None:
    """Null is as good as leaving a key out, in the document as on the server."""
    for name, path, body in (
        ("ChatRequest", CHAT, {"model": "m", "messages": SAID, "n": None, "stream": None, "tools": None, "seed": None}),
        ("CompletionRequest", "/v1/completions", {"model": "m", "prompt": "x", "echo": None, "stream": None}),
        ("SpeechRequest", SPEECH, {"model": "s", "input": "x", "stream_format": None, "speed": None}),
    ):
        jsonschema.validate(body, {"$ref": f"#/components/schemas/{name}", "components": served["components"]})
        assert server.request("POST", path, body).status == 200


# Whatever fits the document, and whatever does not


@pytest.fixture(scope="module")
def api(server: Server, served: Any) -> Any:
    known = copy.deepcopy(served)
    for name, schema in known["components"]["schemas"].items():
        if name.endswith("Request"):  # a name that exists, so that more than its absence is tried
            schema["properties"]["model"] = {"enum": ["s" if name == "SpeechRequest" else "m"]}
    loaded = schemathesis.openapi.from_dict(known)
    loaded.config.update(base_url=server.url)
    return loaded


@pytest.mark.fuzz
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize(("method", "path"), sorted(key for key in operations() if key[1] != ENDLESS))
def test_no_request_breaks_the_server_or_the_document(
    api: Any, method: str, path: str, mode: GenerationMode, pytestconfig: pytest.Config
) -> None:
    """Requests that fit the document, and requests that do not."""
    operation = api[path][method]
    tried = 0

    @settings(
        max_examples=500 if pytestconfig.getoption("--long") else 15, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        nonlocal tried
        tried += 1
        case.call_and_validate(checks=CHECKS, timeout=60)

    try:
        attempt()
    except (Unsatisfiable, SkipTest):
        pytest.skip("nothing in this request can be wrong")
    assert tried
