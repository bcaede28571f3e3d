"""API keys at the door: who asks, and what that opens.

Where the manifest has no keys, whoever reaches the server may do everything; `api.guard` decides who reaches it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quart import request

from localapi.errors import Forbidden, InvalidKey
from localapi.http import request_context
from localapi.manifest import Entry, Key, holder
from localapi.runtime.registry import Registry

OPEN: Final = frozenset({"/health", "/", "/console/<path:file>"})
"""Paths that need no key: whether the server lives is no secret, and what watches it should hold none. The console asks
for a key itself."""
ADMIN: Final = ("/admin/", "/status", "/metrics")
"""Beginnings of paths that only keys with the admin right open."""


def access(registry: Registry) -> Callable[[], None]:
    """Return a check for each request, which notes its key. It raises InvalidKey, or Forbidden for a missing right."""

    def check() -> None:
        keys = _keys(registry)
        rule = request.url_rule.rule if request.url_rule else ""
        if not keys or rule in OPEN:
            return
        presented = _presented()
        if presented is None:
            raise InvalidKey(
                "This server needs an API key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`."
            )
        key = holder(keys, presented)
        if key is None:
            raise InvalidKey("The API key is not one of this server's. The manifest's server.api_keys says which are.")
        request_context.current().take(key)
        if rule.startswith(ADMIN) and not key.admin:
            raise Forbidden(f"The API key {key.name!r} has no admin right (admin: true in the manifest).")

    return check


def still_admin(registry: Registry) -> Callable[[], bool]:
    """Whether whoever was let in to what only the admin right opens would be let in now, as the manifest is now."""

    def allowed() -> bool:
        keys, key = _keys(registry), request_context.current_key()
        return not keys or (key is not None and any(each.admin and each.digest == key.digest for each in keys))

    return allowed


def may_use(entry: Entry) -> bool:
    """Whether the request that is being answered may know an entry; outside of requests, always."""
    key = request_context.current_key()
    return key is None or key.opens(entry.id)


def _keys(registry: Registry) -> tuple[Key, ...]:
    """Those that open something now; where there are none, everything is open."""
    return registry.snapshot.manifest.keys if registry.snapshot else ()


def _presented() -> str | None:
    """Return the key of the request, from OpenAI's header or Anthropic's."""
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key", "").strip() or None
