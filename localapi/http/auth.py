"""Check the API keys of requests.

If the manifest has no keys, anyone who can reach the server may do everything; `host_check` decides who can reach it.
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
"""Paths that need no key: a health check should not need a secret, and the console asks for a key itself."""
ADMIN: Final = ("/admin/", "/status", "/metrics")
"""Prefixes of paths that need a key with the admin right."""


def access(registry: Registry) -> Callable[[], None]:
    """Return a check for each request, which records its key.

    The check raises InvalidKey, or Forbidden for a missing right.
    """

    def check() -> None:
        keys = _keys(registry)
        rule = request.url_rule.rule if request.url_rule else ""
        if not keys or rule in OPEN:
            return
        scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
        presented = token.strip() if scheme.lower() == "bearer" else ""
        presented = presented or request.headers.get("x-api-key", "").strip()
        if not presented:
            raise InvalidKey(
                "This server needs an API key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`."
            )
        key = holder(keys, presented)
        if key is None:
            raise InvalidKey("This server has no such API key. The manifest lists its keys under server.api_keys.")
        request_context.current().take(key)
        if rule.startswith(ADMIN) and not key.admin:
            raise Forbidden(f"The API key {key.name!r} has no admin right (admin: true in the manifest).")

    return check


def still_admin(registry: Registry) -> Callable[[], bool]:
    """Return a function that tells whether the current request would still have the admin right."""

    def allowed() -> bool:
        keys, key = _keys(registry), request_context.current_key()
        return not keys or (key is not None and any(each.admin and each.digest == key.digest for each in keys))

    return allowed


def may_use(entry: Entry) -> bool:
    """Return True if the current request may use an entry, or if there is no request."""
    key = request_context.current_key()
    return key is None or key.opens(entry.id)


def _keys(registry: Registry) -> tuple[Key, ...]:
    """Return the active keys; if there are none, access is open."""
    return registry.snapshot.manifest.keys
