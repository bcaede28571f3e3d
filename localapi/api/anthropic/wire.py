"""Objects that Anthropic's endpoints share: errors, usage, and how its clients are recognized."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType
from quart import request

from localapi.errors import ApiError, ContextLengthExceeded, NoThreads
from localapi.http import request_context
from localapi.http.replies import told
from localapi.worker.protocol import Finished

VERSION_HEADER: Final = "anthropic-version"
"""Header that every client of Anthropic's API sends, and no other client."""

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "overloaded_error",
    "api_error",
]
_TYPES: Final[dict[int, ErrorType]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ErrorDetails(Struct):
    """Facts on which Anthropic's clients act by themselves: without threads, they send whole conversations."""

    error_code: str
    unsupported: list[str]


class ErrorObject(Struct, kw_only=True):
    """Error, with advice."""

    type: ErrorType
    message: str
    details: ErrorDetails | UnsetType = UNSET


class ErrorMessage(Struct, kw_only=True):
    """Anthropic's error object."""

    type: Literal["error"] = "error"
    error: ErrorObject
    request_id: str


class OutputDetails(Struct):
    thinking_tokens: int


class MessageUsage(Struct, kw_only=True):
    """Tokens used by a message. The prompt consists of `input_tokens` plus `cache_read_input_tokens`."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputDetails


def is_meant() -> bool:
    """Return True if the current request comes from a client of Anthropic's API."""
    return VERSION_HEADER in request.headers


def error_body(error: ApiError) -> ErrorMessage:
    """Return Anthropic's error object."""
    kind = _TYPES.get(error.status) or ("api_error" if error.is_ours else "invalid_request_error")
    details = ErrorDetails(NoThreads.code, ["thread"]) if isinstance(error, NoThreads) else UNSET
    message = told(error)
    if isinstance(error, ContextLengthExceeded):
        # Claude Code looks for these words, and then shortens its conversation
        message = f"prompt is too long: {message}"
    shown = ErrorObject(type=kind, message=message, details=details)
    return ErrorMessage(error=shown, request_id=request_context.current().id)


def usage(finished: Finished) -> MessageUsage:
    """Return Anthropic's usage object."""
    return MessageUsage(
        input_tokens=finished.prompt_tokens - finished.cached_tokens,
        cache_read_input_tokens=finished.cached_tokens,
        output_tokens=finished.completion_tokens,
        output_tokens_details=OutputDetails(finished.reasoning_tokens),
    )
