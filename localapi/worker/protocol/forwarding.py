"""Requests that are forwarded to another server unchanged, and its unchanged reply."""

from __future__ import annotations

from typing import Any

import msgspec


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """Client's file, in a form."""

    path: str
    """Path of its content on this machine."""
    name: str
    """Client's name for the file, which is never used as a path."""
    content_type: str


class Forward(msgspec.Struct, tag=True, kw_only=True):
    """Send this body to another server, and return its reply unchanged."""

    id: int
    path: str
    """Path below the API's base, such as "/audio/speech"."""
    body: dict[str, Any]
    """JSON object to send, or the fields of a form if there is a file. The engine sets its `model`."""
    file: Upload | None = None


class ForwardedHead(msgspec.Struct, tag=True):
    """Start of the reply to Forward."""

    id: int
    content_type: str
    length: int | None = None
    """Length in bytes, if the other server states it."""


class ForwardedData(msgspec.Struct, tag=True):
    """Next bytes of the reply to Forward."""

    id: int
    data: bytes


class ForwardedEnd(msgspec.Struct, tag=True):
    """The reply to Forward is complete; nothing follows for this id."""

    id: int
