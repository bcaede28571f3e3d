"""Check the Host and Origin of requests, so that web pages of others cannot use the server.

A web page can send requests to a server on localhost, and with DNS rebinding even read the replies (CVE-2024-28224). A
page cannot forge the Host and Origin headers, so both must be allowed. A numeric address needs no such check, because
only names can be rebound.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from quart import Response, request

from localapi.errors import Forbidden
from localapi.manifest import ServerOptions

LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  # compared with, not bound to
_HEADER_NAMES: Final = re.compile(r"[\w!#$%&'*+.^`|~, -]{1,2000}", re.ASCII)
_HOST: Final = re.compile(rb"([\w-]{1,63}(\.[\w-]{1,63})*\.?|\[[\w:.%]+\])(:[0-9]{1,5})?", re.ASCII)
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([^\s@/?#:\[\]]+|\[[^\s@/?#\]]+\])(:[0-9]{1,5})?", re.IGNORECASE)
"""Form of an origin that a browser sends, without user and path."""
EXPOSED: Final = (
    "x-request-id, x-ignored-params, x-locked-params, x-relaxed-params, x-unsupported-params, x-served-by, "
    "x-should-retry, retry-after"
)
"""Reply headers that a page of an allowed origin may read, besides those that every page may."""
_PORT: Final = re.compile(r":[0-9]{1,5}$")
PREFLIGHT_SECONDS: Final = 600


def exposure(host: str, *, keys: bool) -> list[str]:
    """Return a warning if other machines can reach the address."""
    if keys or is_loopback(host):
        return []
    return [
        "other machines can reach this address, and the manifest has no api_keys: anyone who can reach it can use the "
        "models and reload the manifest"
    ]


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on this address."""
    return host.lower() in LOCAL_NAMES or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


Headers = Iterable[tuple[bytes, bytes]]


def plain_host(headers: Headers) -> Headers:
    """Return the headers, with an invalid Host replaced by an empty one, because Quart fails on some."""
    return [(name, b"" if name == b"host" and not _HOST.fullmatch(value) else value) for name, value in headers]


class Guard:
    """Check of each request to a server that listens on `host`. The manifest's server options may allow more names."""

    def __init__(self, host: str, options: Callable[[], ServerOptions]) -> None:
        self._options = options
        self._own = LOCAL_NAMES | {host.lower()}
        self._any_address = host in _ANY_ADDRESS
        machine = socket.gethostname().lower().removesuffix(".local")
        self._machine = frozenset({machine, f"{machine}.local", machine.partition(".")[0]})

    def check(self) -> None:
        """Raise Forbidden for a host or origin that is not allowed."""
        asked = name_of(f"//{request.headers.get('Host', '')}")
        # Probes of load balancers send HTTP/1.0 without a Host; no browser does.
        probe = request.http_version == "1.0" and all(name != b"host" for name, _ in request.scope["headers"])
        if not (self._answers_for(asked) or probe):
            names = ", ".join(sorted(self._own | {*self._options().allowed_hosts}))
            raise Forbidden(
                f"The Host {asked!r} is not allowed; this server accepts {names}. "
                "The manifest's server.allowed_hosts adds names."
            )
        for origin in request.headers.getlist("Origin"):
            if not self._allows(origin):
                raise Forbidden(
                    f"Requests from web pages of {origin[:200]!r} are not allowed. "
                    "The manifest's server.allowed_origins adds origins."
                )

    def preflight(self) -> Response | None:
        """Return the reply to a preflight request, or None for any other request."""
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        reply = Response("", status=204)
        reply.headers["Access-Control-Allow-Methods"] = "GET, POST"
        asked = request.headers.get("Access-Control-Request-Headers", "")
        if _HEADER_NAMES.fullmatch(asked):
            reply.headers["Access-Control-Allow-Headers"] = asked
        if request.headers.get("Access-Control-Request-Private-Network") == "true":
            reply.headers["Access-Control-Allow-Private-Network"] = "true"
        reply.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        return reply

    async def mark(self, reply: Response) -> Response:
        """Let pages of allowed origins, and no others, read the reply.

        It awaits nothing but is asynchronous, because Quart runs synchronous functions in a thread, which takes longer.
        """
        reply.headers["Vary"] = "Origin"
        reply.headers["X-Content-Type-Options"] = "nosniff"
        origin, asked = request.headers.get("Origin"), name_of(f"//{request.headers.get('Host', '')}")
        if origin is not None and self._answers_for(asked) and self._allows(origin):
            reply.headers["Access-Control-Allow-Origin"] = origin
            reply.headers["Access-Control-Expose-Headers"] = EXPOSED
        return reply

    def _answers_for(self, name: str | None) -> bool:
        if name is None:
            return False
        if name in self._own or name in self._options().allowed_hosts:
            return True
        return self._any_address and (name in self._machine or _is_address(name))

    def _allows(self, origin: str) -> bool:
        """Return True if an origin belongs to this machine, the server or the manifest's list."""
        name = name_of(origin) if _ORIGIN.fullmatch(origin) else None
        if name is None:
            return False
        own = self._own | {name_of(f"//{request.headers.get('Host', '')}")}
        if name in own and urlsplit(origin).scheme in ("http", "https"):
            return True
        origin, without_port = origin.lower(), _PORT.sub("", origin.lower())
        allowed = self._options().allowed_origins
        return origin in allowed or f"{without_port}:*" in allowed


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def name_of(url: str) -> str | None:
    """Return the name or address in a URL, in lower case; None if there is none."""
    try:
        name = urlsplit(url).hostname
    except ValueError:
        return None
    return name.rstrip(".") if name else None
