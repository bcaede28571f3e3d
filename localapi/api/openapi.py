"""`GET /openapi.json`: the API as a document, made from the OPERATIONS beside the routes.

The possible errors come from the tree of `errors`. A route without an operation, or an operation without a route, is a
bug that a test finds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib import import_module
from types import UnionType
from typing import Final, get_args

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from quart import Blueprint, Quart, Response

import localapi
from localapi.api import console
from localapi.api.admin import (
    actions,
    captures,
    first_models,
    health,
    history,
    manifest,
    metrics,
    profiles,
    status,
    status_events,
)
from localapi.api.openai import models
from localapi.api.openai.wire import ErrorReply
from localapi.api.operation import ERRORS_OF_ALL, JSON, Content, Operation, Operations, Schema, Shape
from localapi.errors import ApiError
from localapi.http import auth
from localapi.http.replies import json_reply
from localapi.kinds import KINDS, ModelObject

_REF: Final = "#/components/schemas/{name}"


def routes() -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("openapi", __name__)

    @blueprint.get("/openapi.json")
    async def openapi() -> Response:
        return json_reply(document())

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/openapi.json"): Operation(summary="Get this document.", content={JSON: None})
}
_OF_NO_KIND: Final = (
    ("models", models.OPERATIONS),
    ("status", {**health.OPERATIONS, **status.OPERATIONS, **status_events.OPERATIONS, **metrics.OPERATIONS}),
    (
        "administration",
        {
            **actions.OPERATIONS,
            **manifest.OPERATIONS,
            **captures.OPERATIONS,
            **history.OPERATIONS,
            **profiles.OPERATIONS,
            **first_models.OPERATIONS,
        },
    ),
    ("documents", {**OPERATIONS, **console.OPERATIONS}),
)
"""Endpoints of no particular kind, by tag."""


def tagged() -> dict[str, Operations]:
    """Return all operations by tag, which is the kind's name for the endpoints of a kind."""
    found: dict[str, Operations] = {}
    for kind in KINDS.values():
        of_kind: dict[tuple[str, str], Operation] = {}
        for name in kind.endpoints:
            of_kind.update(import_module(name).OPERATIONS)
        found[kind.name] = of_kind
    return {**found, **dict(_OF_NO_KIND)}


def operations() -> Operations:
    """Return all operations by method and path."""
    return {endpoint: operation for found in tagged().values() for endpoint, operation in found.items()}


def documented(app: Quart) -> set[tuple[str, str]]:
    """Return the routes of an app as this document names them."""
    return {
        (method, _path(rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def _path(rule: str) -> str:
    return re.sub(r"<[^>]+>", "{id}", rule.replace("<path:file>", "{file}"))


@functools.cache
def document() -> Schema:
    """Return the document, OpenAPI 3.1."""
    paths: dict[str, Schema] = {}
    for tag, found in tagged().items():
        for (method, path), operation in found.items():
            paths.setdefault(path, {})[method.lower()] = {"tags": [operation.tag or tag], **_operation(operation, path)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "localapi",
            "version": localapi.__version__,
            "description": "OpenAI-compatible API for the language and speech models of one machine.",
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
    errors = (ERRORS_OF_ALL | operation.errors) - operation.others.keys()
    if path in map(_path, auth.OPEN):
        errors -= {401}
    replies = {
        "200": {"description": operation.summary, "content": _content(operation.content)},
        **{str(status): _reply(shape, status) for status, shape in operation.others.items()},
        **{str(status): _reply(operation.error or ErrorReply, status) for status in errors},
    }
    described: Schema = {"summary": operation.summary, "responses": dict(sorted(replies.items()))}
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        content = _content({operation.body_type: operation.body})
        model = {"model": "MODEL"} if "model" in operation.body.model_fields else {}
        content[operation.body_type]["example"] = {**model, **operation.example}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _content(content: Content | dict[str, type[BaseModel]]) -> Schema:
    return {kind: {"schema": _schema_of(shape)} if shape else {} for kind, shape in content.items()}


def _schema_of(shape: Shape | type[BaseModel]) -> Schema:
    if isinstance(shape, UnionType):
        return {"anyOf": [_schema_of(each) for each in get_args(shape)]}
    return {"$ref": _REF.format(name=shape.__name__)}


def _reply(shape: Shape, status: int) -> Schema:
    return {"description": ", ".join(codes_of(status)) or "See `status`.", "content": _content({JSON: shape})}


def codes_of(status: int) -> list[str]:
    """Return the codes of errors with this status."""
    return sorted({kind.code or kind.type for kind in _tree(ApiError) if kind.status == status})


def _tree(kind: type[ApiError]) -> Iterator[type[ApiError]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _tree(sub)


def _schemas() -> Schema:
    bodies: list[type[BaseModel]] = []
    replies: list[type[msgspec.Struct]] = [ErrorReply, *(kind.model for kind in KINDS.values())]
    for operation in operations().values():
        bodies += [operation.body] if operation.body else []
        shapes = (*operation.content.values(), *operation.others.values(), operation.error)
        for shape in filter(None, shapes):
            replies += get_args(shape) or (shape,)
    template = _REF.format(name="{model}")
    _, of_bodies = models_json_schema([(body, "validation") for body in dict.fromkeys(bodies)], ref_template=template)
    schemas: Schema = of_bodies["$defs"]
    for body in bodies:
        schemas[body.__name__] = _null_is_unset(schemas[body.__name__])
    _, of_replies = msgspec.json.schema_components(dict.fromkeys(replies), ref_template=_REF)
    schemas |= {name: _as_sent(schema) for name, schema in of_replies.items()}
    return _with_fields_of_kinds(schemas)


def _as_sent(schema: Schema) -> Schema:
    """Return a reply's schema as it is sent: fields with a default are always present, and there are no others."""
    if "properties" not in schema:
        return schema
    sent = [key for key, part in schema["properties"].items() if key in schema.get("required", []) or "default" in part]
    properties = {
        key: {name: value for name, value in part.items() if name != "default"}
        for key, part in schema["properties"].items()
    }
    return {**schema, "properties": properties, "required": sent, "additionalProperties": False}


def _with_fields_of_kinds(schemas: Schema) -> Schema:
    """Add the fields of each kind to the schema of model objects, to which all lists of models refer."""
    described = schemas[ModelObject.__name__]
    properties = dict(described["properties"])
    for kind in KINDS.values():
        if kind.model is ModelObject:
            continue
        for key, part in schemas.pop(kind.model.__name__)["properties"].items():
            if key not in described["properties"]:
                about = f"Only for {kind} models. {part.get('description', '')}".strip()
                properties.setdefault(key, {**part, "description": about})
    return {**schemas, ModelObject.__name__: {**described, "properties": properties}}


def _null_is_unset(schema: Schema) -> Schema:
    """Return a body's schema in which null is the same as omitting a key, whatever the key's type."""
    required = schema.get("required", [])
    null = {"type": "null"}
    properties = {
        key: part if key in required or null in part.get("anyOf", []) else {"anyOf": [part, null]}
        for key, part in schema["properties"].items()
    }
    return {**schema, "properties": properties}
