"""Decide who may edit the manifest over HTTP, and which edits need an admin key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from quart import request

from localapi.errors import Forbidden
from localapi.http import request_context
from localapi.http.host_check import LOCAL_NAMES, is_loopback, name_of
from localapi.manifest import ServerOptions

_OF_PROXIES: Final = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
"""Headers of requests that come through a proxy, and so may come from anywhere."""


class EditRights:
    """Checks for edits. If the manifest has keys, the access check has already required the admin right."""

    def __init__(self, host: str, options: Callable[[], ServerOptions]) -> None:
        self._host = host
        self._options = options

    def refusal(self) -> str | None:
        """Return why the current request may not edit the manifest; None if it may."""
        if not self._options().console_edits:
            return "The manifest has console_edits: false, so it can be edited only in its file."
        if self._with_key() or self._is_local():
            return None
        return (
            "Without API keys, the manifest is edited only from this machine, at a server that only this machine "
            "reaches. Set server.api_keys with an admin key to edit it from others."
        )

    def check(self) -> None:
        """Raise Forbidden if the current request may not edit the manifest."""
        if (refusal := self.refusal()) is not None:
            raise Forbidden(refusal)

    def check_private(self) -> None:
        """Raise Forbidden if the current request may not read other clients' requests."""
        if not (self._with_key() or self._is_local()):
            raise Forbidden(
                "Without API keys, other clients' requests are shown only on this machine. Set server.api_keys."
            )

    def check_protected(self, keys: Sequence[str]) -> None:
        """Raise Forbidden if the current request may not change these keys, which protect the machine."""
        if keys and not self._with_key() and self._options().console_edits != "all":
            raise Forbidden(
                f"Without an admin key, {', '.join(keys[:3])} can be changed only in the file: programs, secrets "
                "and what protects the server. Set server.api_keys with an admin key, or server.console_edits: all."
            )

    def _with_key(self) -> bool:
        return request_context.current_key() is not None

    def _is_local(self) -> bool:
        asked = name_of(f"//{request.headers.get('Host', '')}")
        proxied = any(name in request.headers for name in _OF_PROXIES)
        return is_loopback(self._host) and asked in LOCAL_NAMES and not proxied
