"""`GET /openapi.json`: the API as a document, made from the classes that check requests and from the route table.

An operation says here what no class does: a sentence, and the kinds of its replies. Which errors there are is the tree
of `errors`. A route without an operation, or an operation without a route, is a bug that a test finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from quart import Blueprint, Quart, Response

import localapi
from localapi.api import reply_shapes as shapes
from localapi.api.console import CONTENT_TYPES
from localapi.api.openai.chat_request import ChatRequest
from localapi.api.openai.completions import CompletionRequest
from localapi.api.openai.speech_request import SpeechRequest
from localapi.api.openai.tokens import DetokenizeRequest, TokenizeRequest
from localapi.audio.formats import FORMATS
from localapi.errors import ApiError
from localapi.http.replies import json_reply

Schema = dict[str, Any]
Content = Mapping[str, type[BaseModel] | None]
"""Content types, and the shape of those that are JSON."""

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
SOUND: Final[Content] = {each.content_type: None for each in FORMATS.values()}
OF_ALL: Final = frozenset({401, 403, 500})
OF_MODELS: Final = frozenset({400, 404})
OF_WORK: Final = frozenset({400, 404, 413, 415, 429, 503, 504})
OPEN_PATHS: Final = frozenset({"/health", "/", "/console/{file}"})
"""They need no key."""
_REF: Final = "#/components/schemas/{model}"


@dataclass(frozen=True)
class Operation:
    """What an endpoint takes and gives."""

    summary: str
    content: Content
    """Of the reply with status 200."""
    body: type[BaseModel] | None = None
    errors: frozenset[int] = frozenset()
    """Statuses with an error object, beside those that every endpoint may give."""
    others: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    """Statuses with another shape."""
    parameters: tuple[Schema, ...] = ()


_ID: Final[Schema] = {
    "name": "id", "in": "path", "required": True, "schema": {"type": "string"},
    "description": "An id or an alias; slashes may be percent-encoded or not.",
}  # fmt: skip
_FILE: Final[Schema] = {
    "name": "file", "in": "path", "required": True, "schema": {"type": "string"},
    "description": "A file's name below the console's folder.",
}  # fmt: skip
_MODEL: Final[Schema] = {
    "name": "model", "in": "query", "required": False, "schema": {"type": "string"},
    "description": "The voices of this speech model only.",
}  # fmt: skip

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/v1/models"): Operation("All models.", {JSON: shapes.ModelList}),
    ("GET", "/v1/models/{id}"): Operation(
        "One model.", {JSON: shapes.ModelObject}, errors=frozenset({404}), parameters=(_ID,)
    ),
    ("POST", "/v1/chat/completions"): Operation(
        "The answer to a conversation.", {JSON: shapes.ChatReply, EVENTS: None}, ChatRequest, OF_WORK
    ),
    ("POST", "/v1/completions"): Operation(
        "The continuation of a text or of tokens.",
        {JSON: shapes.CompletionReply, EVENTS: None},
        CompletionRequest,
        OF_WORK,
    ),
    ("POST", "/v1/tokenize"): Operation("The tokens of a text.", {JSON: shapes.TokensReply}, TokenizeRequest, OF_WORK),
    ("POST", "/v1/detokenize"): Operation("The text of tokens.", {JSON: shapes.TextReply}, DetokenizeRequest, OF_WORK),
    ("POST", "/v1/audio/speech"): Operation(
        "A text, spoken.", {**SOUND, EVENTS: None, JSON: shapes.TimedSpeech}, SpeechRequest, OF_WORK
    ),
    ("GET", "/v1/audio/voices"): Operation(
        "The voices of speech models.", {JSON: shapes.VoiceList}, errors=OF_MODELS, parameters=(_MODEL,)
    ),
    ("GET", "/v1/audio/models"): Operation("The speech models.", {JSON: shapes.SpeechModelList}),
    ("GET", "/health"): Operation("Whether the server lives.", {JSON: shapes.Health}),
    ("GET", "/health/ready"): Operation("Whether it can answer.", {JSON: shapes.Health}, others={503: shapes.Health}),
    ("GET", "/status"): Operation("The whole truth.", {JSON: shapes.StatusReply}),
    ("GET", "/status/events"): Operation("The status, and its changes as they happen.", {EVENTS: None}),
    ("GET", "/metrics"): Operation(
        "Counts and times for Prometheus.", {"text/plain": None, "application/openmetrics-text": None}
    ),
    ("POST", "/admin/reload"): Operation(
        "Reads the manifest now.",
        {JSON: shapes.AttemptReply},
        errors=frozenset({503}),
        others={422: shapes.AttemptReply},
    ),
    ("POST", "/admin/models/{id}/load"): Operation(
        "Loads a model.", {JSON: shapes.InstanceReply}, errors=frozenset({404, 429, 503}), parameters=(_ID,)
    ),
    ("POST", "/admin/models/{id}/unload"): Operation(
        "Ends a model's worker.", {JSON: shapes.InstanceReply}, errors=frozenset({404, 409, 503}), parameters=(_ID,)
    ),
    ("POST", "/admin/models/{id}/pin"): Operation(
        "Loads a model and keeps it loaded.",
        {JSON: shapes.InstanceReply},
        errors=frozenset({404, 429, 503}),
        parameters=(_ID,),
    ),
    ("POST", "/admin/models/{id}/unpin"): Operation(
        "Treats a model as the manifest says again.",
        {JSON: shapes.InstanceReply},
        errors=frozenset({400, 404, 503}),
        parameters=(_ID,),
    ),
    ("GET", "/openapi.json"): Operation("This document.", {JSON: shapes.OpenShape}),
    ("GET", "/"): Operation("The console, a page.", {"text/html": None}),
    ("GET", "/console/{file}"): Operation(
        "The console's files.",
        dict.fromkeys(kind.partition(";")[0] for kind in CONTENT_TYPES.values()),
        errors=frozenset({404}),
        parameters=(_FILE,),
    ),
}


def routes() -> Blueprint:
    """The endpoint."""
    blueprint = Blueprint("openapi", __name__)
    made: list[Schema] = []

    @blueprint.get("/openapi.json")
    async def openapi() -> Response:
        if not made:
            made.append(document())
        return json_reply(made[0])

    return blueprint


def documented(app: Quart) -> set[tuple[str, str]]:
    """The routes of an app as this document names them."""
    return {
        (method, re.sub(r"<[^>]+>", "{id}", rule.rule.replace("<path:file>", "{file}")))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def document() -> Schema:
    """OpenAPI 3.1."""
    paths: dict[str, Schema] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(operation, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "localapi",
            "version": localapi.__version__,
            "description": "OpenAI's API for the language and speech models of one machine.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(operation: Operation, path: str) -> Schema:
    errors = (OF_ALL | operation.errors) - operation.others.keys()
    if path in OPEN_PATHS:
        errors -= {401}
    replies = {
        "200": {"description": operation.summary, "content": _content(operation.content)},
        **{str(status): _reply(shape, status) for status, shape in operation.others.items()},
        **{str(status): _reply(shapes.ErrorReply, status) for status in errors},
    }
    described: Schema = {"summary": operation.summary, "responses": dict(sorted(replies.items()))}
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content({JSON: operation.body})}
    return described


def _content(content: Content) -> Schema:
    return {
        kind: {"schema": {"$ref": _REF.format(model=shape.__name__)}} if shape else {}
        for kind, shape in content.items()
    }


def _reply(shape: type[BaseModel], status: int) -> Schema:
    return {"description": ", ".join(codes_of(status)) or "See `status`.", "content": _content({JSON: shape})}


def codes_of(status: int) -> list[str]:
    """The codes of errors with this status."""
    return sorted({kind.code or kind.type for kind in _tree(ApiError) if kind.status == status})


def _tree(kind: type[ApiError]) -> Iterator[type[ApiError]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _tree(sub)


def _schemas() -> Schema:
    models: list[type[BaseModel]] = [shapes.ErrorReply]
    for operation in OPERATIONS.values():
        models += [shape for shape in operation.content.values() if shape is not None]
        models += [*operation.others.values(), *([operation.body] if operation.body else [])]
    bodies = {operation.body.__name__ for operation in OPERATIONS.values() if operation.body}
    unique = list(dict.fromkeys(models))
    _, generated = models_json_schema([(model, "validation") for model in unique], ref_template=_REF)
    schemas: Schema = generated["$defs"]
    return {name: _null_is_unset(schema) if name in bodies else schema for name, schema in schemas.items()}


def _null_is_unset(schema: Schema) -> Schema:
    """A body's schema: null is the same as leaving a key out, whatever the key's type."""
    required = schema.get("required", [])
    null = {"type": "null"}
    properties = {
        key: part if key in required or null in part.get("anyOf", []) else {"anyOf": [part, null]}
        for key, part in schema["properties"].items()
    }
    return {**schema, "properties": properties}
