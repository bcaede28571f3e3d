"""Requests that go on to another server as they came, and its reply as it stands."""

from __future__ import annotations

from typing import Any

import msgspec


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a client, in a form."""

    path: str
    """Path of its content on this machine."""
    name: str
    """The client's name for it, which no path is made of."""
    content_type: str


class Forward(msgspec.Struct, tag=True, kw_only=True):
    """Send this body to another server, and return its reply as it stands."""

    id: int
    path: str
    """Below the API's base, as in "/audio/speech"."""
    body: dict[str, Any]
    """The JSON object to send, or the fields of a form if there is a file. The engine sets its `model`."""
    file: Upload | None = None


class ForwardedHead(msgspec.Struct, tag=True):
    """The beginning of the reply to Forward."""

    id: int
    content_type: str
    length: int | None = None
    """Length in bytes, if the other server states it."""


class ForwardedData(msgspec.Struct, tag=True):
    """The next bytes of the reply to Forward."""

    id: int
    data: bytes


class ForwardedEnd(msgspec.Struct, tag=True):
    """The reply to Forward is complete; nothing follows for this id."""

    id: int
