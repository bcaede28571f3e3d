"""Build replies: JSON, streams, server-sent events, and the headers of errors, whose bodies are the dialects'."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncGenerator, Callable
from typing import Final

import msgspec
from quart import Response

from localapi.errors import ApiError, InvalidKey, MethodNotAllowed, ModelUnavailable, UnsupportedEncoding
from localapi.http import request_context
from localapi.http.encodings import ENCODINGS
from localapi.system.threads import aside

encode = msgspec.json.Encoder().encode
"""Encoder of values as JSON."""

FEW_BYTES: Final = 32_768
"""Size of vectors that take at most a millisecond or two to encode."""

EVENT_STREAM = "text/event-stream; charset=utf-8"


def told(error: ApiError) -> str:
    """Return an error's message without names of models that the request's key may not see."""
    key = request_context.current_key()
    if isinstance(error, ModelUnavailable) and key is not None and not all(map(key.opens, error.beside)):
        return error.unnamed
    return error.message


def json_reply(content: object, *, status: int = 200) -> Response:
    """Return a reply with any value that msgspec can encode."""
    return Response(encode(content), status=status, content_type="application/json")


async def json_reply_of_vectors(make: Callable[[], object], size: int) -> Response:
    """Return a reply with the value that a function makes of vectors with this many bytes.

    Encoding millions of numbers takes long enough to need a thread; for a few, a thread would take longer.
    """
    return json_reply(make()) if size <= FEW_BYTES else await aside(lambda: json_reply(make()))


def error_reply(error: ApiError, content: object) -> Response:
    """Return the reply for an error before anything was sent; `content` is its JSON body."""
    reply = json_reply(content, status=error.status)
    if isinstance(error, InvalidKey):
        reply.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        reply.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, UnsupportedEncoding):
        reply.headers["Accept-Encoding"] = ", ".join(ENCODINGS)
    if error.retryable is not None:
        reply.headers["x-should-retry"] = "true" if error.retryable else "false"
    if error.retry_after_seconds is not None:
        reply.headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    return reply


def streamed_reply(body: AsyncGenerator[bytes, None], content_type: str) -> Response:
    """Return a reply that is sent while it is made."""
    reply = Response(body, content_type=content_type)
    reply.headers["Cache-Control"] = "no-cache"
    # nginx, and other proxies that know its header, would otherwise buffer it
    reply.headers["X-Accel-Buffering"] = "no"
    reply.timeout = None
    return reply


def event(content: object, *, name: str | None = None) -> bytes:
    """Return one server-sent event."""
    return b"".join((_head(name), encode(content), b"\n\n"))


@functools.cache
def _head(name: str | None) -> bytes:
    return f"event: {name}\ndata: ".encode() if name else b"data: "


class Form:
    """Frequently sent object of which one text varies. The rest is encoded once."""

    def __init__(self, sent: bytes, key: bytes) -> None:
        """Take an example in which the member that varies is an empty text."""
        head, _, tail = sent.partition(b'"%b":""' % key)
        self._head, self._tail = head + b'"%b":' % key, tail

    def filled(self, text: str) -> bytes:
        """Return the encoded object with this text."""
        return self._head + encode(text) + self._tail


class NumberedForm:
    """Frequently sent object of which a number and, after it, a text vary. The rest is encoded once."""

    def __init__(self, sent: bytes, number: bytes, text: bytes) -> None:
        """Take an example with 0 as the number and an empty text, and the keys of both."""
        head, _, rest = sent.partition(b'"%b":0' % number)
        middle, _, self._tail = rest.partition(b'"%b":""' % text)
        self._head, self._middle = head + b'"%b":' % number, middle + b'"%b":' % text

    def filled(self, number: int, text: str) -> bytes:
        """Return the encoded object with these values."""
        return b"".join((self._head, encode(number), self._middle, encode(text), self._tail))


def comment(content: object) -> bytes:
    """Return JSON as a comment between server-sent events: clients skip it, and it keeps a connection alive."""
    return b": " + encode(content) + b"\n\n"
