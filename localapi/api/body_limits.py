"""Maximum sizes of request bodies: each endpoint accepts as much as it can use."""

from __future__ import annotations

import functools
from typing import Any

from quart import Request

from localapi.api.openapi import operations
from localapi.api.operation import MAX_BODY_BYTES
from localapi.http.paced_body import PacedBody


@functools.cache
def _limits() -> dict[str, int]:
    return {path: operation.max_body_bytes for (_, path), operation in operations().items()}


def limit_of(path: str) -> int:
    """Return the maximum bytes of a body for this path."""
    return _limits().get(path.rstrip("/"), MAX_BODY_BYTES)


class LimitedRequest(Request):
    """Request whose body is limited by its path; Quart has one limit for all paths."""

    body_class = PacedBody

    def __init__(self, method: str, scheme: str, path: str, *arguments: Any, **options: Any) -> None:
        limit = limit_of(path)
        super().__init__(method, scheme, path, *arguments, **{**options, "max_content_length": limit})
        self.max_content_length = limit
