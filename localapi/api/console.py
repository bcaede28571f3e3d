"""`GET /` and `GET /console/...`: the page that shows what the server does, and its files.

The files contain nothing private, so they are open even if the manifest has keys: the page asks for one. They are
served from a table that is made once, with known names; a path from a client is looked up and never opened.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from quart import Blueprint, Response, request

from localapi.api.operation import Operation, Operations
from localapi.errors import NotFound

INDEX: Final = "index.html"
CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
"""Content types by suffix; files with other suffixes are not served."""
POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "media-src 'self' blob:",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Content security policy: only our own files run, whatever text a model puts on the page."""


@dataclass(frozen=True)
class File:
    """One file as it is sent."""

    content_type: str
    data: bytes
    etag: str


def routes() -> Blueprint:
    """Return both endpoints."""
    blueprint = Blueprint("console", __name__)

    @blueprint.get("/")
    async def index() -> Response:
        return _reply(table()[INDEX])

    @blueprint.get("/console/<path:file>")
    async def console_file(file: str) -> Response:
        found = table().get(file)
        if found is None:
            raise NotFound(f"The console has no file {file[:200]!r}.")
        return _reply(found)

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/"): Operation(summary="The console.", content={"text/html": None}),
    ("GET", "/console/{file}"): Operation(
        summary="The console's files.",
        content=dict.fromkeys(kind.partition(";")[0] for kind in CONTENT_TYPES.values()),
        errors=frozenset({404}),
        parameters=(
            {
                "name": "file",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "example": "app.js",
                "description": "Name of a file in the console's folder.",
            },
        ),
    ),
}


@functools.cache
def table() -> dict[str, File]:
    """Return every file by its name in the console's folder, read when the first page is requested."""
    return dict(_files(files("localapi") / "console", ""))


def _files(folder: Traversable, above: str) -> list[tuple[str, File]]:
    found: list[tuple[str, File]] = []
    for item in folder.iterdir():
        if item.is_dir():
            found += _files(item, f"{above}{item.name}/")
        elif kind := CONTENT_TYPES.get(item.name[item.name.rfind(".") :]):
            data = item.read_bytes()
            found.append((above + item.name, File(kind, data, hashlib.sha256(data).hexdigest()[:32])))
    return found


def _reply(file: File) -> Response:
    """Return the file, or 304 if the browser's copy is current."""
    known = request.if_none_match.contains(file.etag)
    reply = Response(b"" if known else file.data, status=304 if known else 200, content_type=file.content_type)
    reply.set_etag(file.etag)
    reply.headers["Cache-Control"] = "no-cache"
    reply.headers["Content-Security-Policy"] = POLICY
    reply.headers["Referrer-Policy"] = "no-referrer"
    return reply
