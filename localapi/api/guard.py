"""Keeps other people's web pages out: which Host and Origin this server answers.

A page on the web can send requests to a server on localhost, and with DNS rebinding even read the replies
(CVE-2024-28224). A browser cannot forge the Host and Origin headers, so both must name this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from quart import request

from localapi.errors import Forbidden

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  # compared with, not bound to


def guard(host: str) -> Callable[[], None]:
    """A check for each request to a server that listens on `host`. Raises Forbidden.

    On an address that takes connections from everywhere no name can be foreseen, so there the Host goes unchecked and
    an Origin must be the page's own server or this machine.
    """
    names = _LOCAL_NAMES | {host.lower()}
    any_host = host in _ANY_ADDRESS

    def check() -> None:
        asked = _name(f"//{request.headers.get('Host', '')}")
        if not any_host and asked not in names:
            raise Forbidden(
                f"The Host {asked!r} is not served here; this server answers for {', '.join(sorted(names))}."
            )
        origin = request.headers.get("Origin")
        if origin is not None and _name(origin) not in names | {asked}:
            raise Forbidden(f"Requests of web pages from {origin!r} are not answered by this server.")

    return check


def _name(url: str) -> str | None:
    try:
        name = urlsplit(url).hostname
    except ValueError:
        return None
    return name.rstrip(".") if name else None
