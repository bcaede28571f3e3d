"""Declarations of endpoints: each module with endpoints has its OPERATIONS beside its routes.

`openapi` makes the document from them, and `body_limits` the maximum sizes of bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Final

import msgspec
from pydantic import BaseModel

Schema = dict[str, Any]
Shape = type[msgspec.Struct] | UnionType
"""Struct that is sent, or a union of structs."""
Content = Mapping[str, Shape | None]
"""Content types of a reply, with the struct for JSON."""

MEGABYTE: Final = 2**20
MAX_BODY_BYTES: Final = 16 * MEGABYTE
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
ERRORS_OF_ALL: Final = frozenset({401, 403, 500})
ERRORS_OF_WORK: Final = frozenset({400, 404, 413, 415, 429, 502, 503, 504})
"""Statuses of endpoints that use a model."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Input and output of an endpoint."""

    summary: str
    content: Content
    """Content of the reply with status 200."""
    body: type[BaseModel] | None = None
    body_type: str = JSON
    """Content type of the body."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """Example of a body; its `model` is filled in."""
    max_body_bytes: int = MAX_BODY_BYTES
    errors: frozenset[int] = frozenset()
    """Statuses with an error object, besides those that every endpoint may return."""
    error: Shape | None = None
    """Error object; None for OpenAI's."""
    others: Mapping[int, Shape] = field(default_factory=dict)
    """Statuses whose reply is not an error object."""
    parameters: tuple[Schema, ...] = ()
    tag: str = ""
    """Tag in the document; empty: the module's. The console's example names a model of the kind with this name."""


Operations = Mapping[tuple[str, str], Operation]
"""Operations by method and path; parameters of a path are in braces, as OpenAPI writes them."""

MODEL_ID: Final[Schema] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Id or alias; slashes may be percent-encoded.",
}
"""Parameter of paths that name a model."""
