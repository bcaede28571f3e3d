"""Turn error replies of another server into errors of this server's API."""

from __future__ import annotations

import email.utils
import html
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec

from localapi.errors import (
    ApiError,
    ContextLengthExceeded,
    InvalidRequest,
    LoopDetected,
    ModelBusy,
    RequestTooLarge,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
    readable,
)

MAX_ERROR_BYTES: Final = 64 * 1024
MAX_MESSAGE: Final = 2000
_STATUS_OF_TYPE: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "notfounderror": 404,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "overloaded_error": 503,
}
OVERLOADED: Final = 529
"""Status that some servers use where others use 503."""
_OF_ACCESS: Final = "Check `key` and `headers` of {name} in the manifest."
_OF_PLACE: Final = "Check `url` and `model` ({model}) of {name} in the manifest."
_FAULTS_OF_THE_MANIFEST: Final[Mapping[int, str]] = {
    401: _OF_ACCESS,
    402: "Check the account of this upstream.",
    403: _OF_ACCESS,
    404: _OF_PLACE,
    405: _OF_PLACE,
    407: _OF_ACCESS,
    410: _OF_PLACE,
}
"""Statuses that no client can do anything about, with advice for the operator."""
_TITLE: Final = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Complaint:
    """Error as another server reports it."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_seconds: float | None = None

    def error(self, name: str, model: str | None) -> ApiError:
        """Return the error for the client. `name` is that of the entry, `model` its name at the other server."""
        said = f"The upstream of {name} replied {self.status}: {self.message}"
        if self.code == "context_length_exceeded":
            return ContextLengthExceeded(self.message, param=self.param)
        if self.status in _FAULTS_OF_THE_MANIFEST:
            return UpstreamRefused(f"{said} {_FAULTS_OF_THE_MANIFEST[self.status].format(name=name, model=model)}")
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            code, retryable = self.code or "upstream_busy", False if self.code == "insufficient_quota" else None
            return ModelBusy(said, code=code, retryable=retryable, retry_after_seconds=self.retry_after_seconds)
        if self.status in (HTTPStatus.SERVICE_UNAVAILABLE, OVERLOADED):
            error: ApiError = UpstreamUnavailable(said, retry_after_seconds=self.retry_after_seconds)
        elif self.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT):
            error = UpstreamTimeout(said)
        elif self.status == HTTPStatus.LOOP_DETECTED:
            error = LoopDetected(self.message)
        elif self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            error = RequestTooLarge(self.message)
        elif HTTPStatus.BAD_REQUEST <= self.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            error = InvalidRequest(self.message, param=self.param, code=self.code)
        else:
            error = UpstreamFailed(said, retry_after_seconds=self.retry_after_seconds)
        return error


def complaint(status: int, headers: Mapping[str, str], body: bytes) -> Complaint:
    """Return the error in a reply with an error status."""
    content: Any = None
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        text = body.decode("utf-8", "replace").strip()
        message = _page(text) if "html" in headers.get("content-type", "") or text.startswith("<") else text
        found = Complaint(status, message)
    else:
        found = complaint_in(content, status)
    message = readable(" ".join(found.message.split()))[:MAX_MESSAGE] or _phrase(status)
    return Complaint(status, _sentence(message), found.code, found.param, _retry_after(headers))


def complaint_in(content: object, status: int | None = None) -> Complaint:
    """Return the error in a JSON body, in any of the shapes that servers use.

    If `status` is None, read it from the body.
    """
    if isinstance(content, list) and content:
        return complaint_in(content[0], status)
    if not isinstance(content, dict):
        return Complaint(status or HTTPStatus.BAD_GATEWAY, str(content or ""))
    error = content.get("error")
    fields = error if isinstance(error, dict) else content
    message = fields.get("message") or fields.get("detail") or fields.get("msg") or fields.get("error") or error
    if isinstance(message, list):  # FastAPI's
        problems = [each for each in message if isinstance(each, dict)]
        message = "; ".join(f"{'.'.join(map(str, each.get('loc', ())))}: {each.get('msg')}" for each in problems)
    code, param = fields.get("code"), fields.get("param")
    kind = str(fields.get("type") or "")
    if status is None:
        status = _status_in(code) or _status_in(fields.get("status")) or _STATUS_OF_TYPE.get(kind.lower())
    return Complaint(
        status or HTTPStatus.BAD_GATEWAY,
        _sentence(readable(str(message or "no message"))[:MAX_MESSAGE]),
        code if isinstance(code, str) else None,
        param if isinstance(param, str) else None,
    )


def _status_in(value: object) -> int | None:
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    if isinstance(number, int) and HTTPStatus.BAD_REQUEST <= number < 600:  # noqa: PLR2004  # no status is higher
        return number
    return None


def _page(text: str) -> str:
    """Return the title of an HTML page."""
    title = _TITLE.search(text)
    return html.unescape(title[2]).strip() if title else "an HTML page"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which to retry, given as a number or a date."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    seconds = _number(said)
    if seconds is None and said:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return None if seconds is None else max(0.0, seconds)


def _number(said: str | None) -> float | None:
    try:
        number = float(said) if said else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < float("inf") else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no message"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
