"""Connections to one upstream: proxy, certificates, and the bytes of replies."""

from __future__ import annotations

import os
import socket
import ssl
import urllib.request
from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import urlsplit

import httpx2

from localapi.backends.http_transport import Transport
from localapi.backends.upstream import Upstream
from localapi.system.timer import WaitLimit

KEEP_SECONDS: Final = 4.0
"""Time for which an idle connection is kept: uvicorn, which runs most such servers, closes it after 5 s."""
MAX_KEPT: Final = 32
"""Maximum idle connections that are kept."""


def opened(upstream: Upstream) -> httpx2.AsyncClient:
    """Return an unconnected client for an upstream. Raise OSError and ValueError for its certificates. Blocks."""
    headers = {"User-Agent": "localapi", **upstream.headers}
    if upstream.key is not None:
        headers["Authorization"] = f"Bearer {upstream.key}"
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            options.append((socket.IPPROTO_TCP, getattr(socket, option), value))
    transport: httpx2.AsyncBaseTransport
    proxy = _proxy(upstream)
    if proxy is None:
        transport = Transport(
            _certificates(upstream), socket_options=options, keep_seconds=KEEP_SECONDS, max_kept=MAX_KEPT
        )
    else:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=MAX_KEPT, keepalive_expiry=KEEP_SECONDS)
        transport = httpx2.AsyncHTTPTransport(
            verify=_certificates(upstream), proxy=proxy, trust_env=False, limits=limits, socket_options=options
        )
    return httpx2.AsyncClient(
        headers=headers, timeout=None, trust_env=False, transport=transport, follow_redirects=False
    )


def _proxy(upstream: Upstream) -> str | None:
    """Return the proxy that the environment names for the server. Servers on this machine are reached directly."""
    parts = urlsplit(upstream.url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or upstream.is_local or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _certificates(upstream: Upstream) -> ssl.SSLContext:
    if urlsplit(upstream.url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # has no certificate, and is not asked for one
    if upstream.ca is not None:
        return ssl.create_default_context(cafile=upstream.ca)
    if not upstream.verify:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    return httpx2.create_ssl_context()


class DecodedBody:
    """Bytes of a reply that is compressed or comes through a proxy."""

    def __init__(self, reply: httpx2.Response) -> None:
        self._received = reply.aiter_bytes()
        self._limit = WaitLimit()

    async def read(self, until: float) -> bytes:
        """Return the next bytes; b"" at the end. Raise what httpx2 raises, and TimeoutError at `until`."""
        return await self._limit.wait(anext(self._received, b""), until)

    async def aclose(self) -> None:
        """Stop the timer and the decoder."""
        self._limit.stop()
        assert isinstance(self._received, AsyncGenerator)  # noqa: S101  # it is one
        await self._received.aclose()


def reason_of(error: BaseException) -> str:
    """Return why a connection failed, in the system's words if possible."""
    cause: BaseException | None = error
    found = str(error) or type(error).__name__
    for _ in range(10):
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, socket.gaierror | ssl.SSLError):
            found = cause.strerror or found
        elif isinstance(cause, OSError) and cause.errno:
            found = os.strerror(cause.errno)  # asyncio has its own texts, with addresses
        if cause is None:
            break
        cause = cause.__cause__ or cause.__context__
    return found.rstrip(".")
