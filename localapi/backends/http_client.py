"""HTTP to one upstream: connections, time limits, retries, and the meaning of errors."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import urljoin, urlsplit

import httpx2
import msgspec

from localapi.backends.engine import VIA_HEADER, connect_limit, trace_headers, via
from localapi.backends.http_connections import DecodedBody, opened, reason_of
from localapi.backends.http_transport import Body, Turn, Turns
from localapi.backends.openai_body import FormBody
from localapi.backends.sse import EventDecoder, TooLong
from localapi.backends.upstream import MODELS, Upstream
from localapi.backends.upstream_replies import MAX_ERROR_BYTES, Complaint, complaint
from localapi.errors import (
    ApiError,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from localapi.system.os_errors import advise
from localapi.system.threads import aside
from localapi.worker.protocol import ForwardedHead, Upload

log = logging.getLogger(__name__)

MAX_REPLY_BYTES: Final = 256 * 2**20
PROBE_TIMEOUT_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 0.2
"""Pause before the second attempt to connect."""
READ_OUT_SECONDS: Final = 1.0
"""Time for a connection to become free again after the last event of a stream."""
MAX_REDIRECTS: Final = 3
DONE: Final = b"[DONE]"
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LINE_OF_EVENTS: Final = re.compile(rb"\s*(?:data|event|id|retry|):")
"""Start of server-sent events, for servers that send another Content-Type."""
_MISSING: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})

LimitOption = Literal["first_token_seconds", "idle_seconds", "reply_seconds"]
_LATE: Final[Mapping[LimitOption, str]] = {
    "first_token_seconds": "did not begin its response",
    "idle_seconds": "sent nothing",
    "reply_seconds": "did not complete its reply",
}


@dataclass(frozen=True)
class Limit:
    """Time limit of the manifest for a reply."""

    option: LimitOption
    seconds: float
    until: float
    """End of the limit, by the loop's monotonic clock."""


class HttpClient:
    """Connections to one upstream. Call `open` first and `close` last."""

    def __init__(self, name: str, upstream: Upstream, *, who: str | None = None, sender: str | None = None) -> None:
        """Create a client that is not open yet.

        `name` is the upstream's name in the manifest, and `who` names it for people. `sender` is the id of this server,
        if requests are its own and not those of clients.
        """
        self._name = name
        self._who = who or f"The upstream of {name}"
        self._upstream = upstream
        self._sender = sender
        self._bases = upstream.bases()
        """Bases that the URL may mean, the likeliest first; only one once it is known."""
        self._base = self._bases[0]
        self._client: httpx2.AsyncClient | None = None
        self._turns = Turns()
        self._ending: dict[httpx2.Response, asyncio.Task[None]] = {}
        """Tasks that read the uninteresting rest of replies."""

    async def open(self) -> None:
        """Create the client; nothing is connected yet. Raise UpstreamRefused if the certificates cannot be read."""
        try:
            self._client = await aside(lambda: opened(self._upstream))
        except (OSError, ValueError) as error:
            reason = advise(error) if isinstance(error, OSError) else error
            raise UpstreamRefused(f"The certificates in `ca` of {self._name} cannot be read: {reason}.") from error

    async def close(self) -> None:
        """Close all connections, even those in use."""
        tasks = list(self._ending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    # What is asked

    async def post(self, path: str, body: Mapping[str, Any], *, missing_ok: bool = False) -> Any:
        """Return a reply's JSON object. With `missing_ok`, return None if the server has no such path."""
        limit = self._limit("reply_seconds")
        async with self._opened("POST", path, body, missing_ok=missing_ok, limit=limit) as reply:
            if reply is None:
                return None
            async with self._received(reply) as received:
                return await self._object(received, limit)

    async def get(self, path: str) -> Any:
        """Return a reply's JSON; None if the server has no such path."""
        seconds = PROBE_TIMEOUT_SECONDS + self._upstream.connect_seconds
        try:
            async with asyncio.timeout(seconds), self._opened("GET", path, missing_ok=True) as reply:
                if reply is None:
                    return None
                async with self._received(reply) as received:
                    return _decoded(await self._content(received, self._limit("reply_seconds")))
        except TimeoutError:
            raise UpstreamTimeout(f"{self._who} did not respond within {seconds:g} s.") from None

    async def models(self) -> list[Any] | None:
        """Return the server's list of models; None if it has none. Determine which of its bases the URL means."""
        for base in self._bases:
            self._base = base
            content = await self.get(MODELS)
            listed = content.get("data") if isinstance(content, dict) else content
            if isinstance(listed, list):
                self._bases = (base,)
                return listed
        self._base = self._bases[0]
        return None

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Yield the objects of a stream, and None at its regular end.

        A comment that contains JSON also counts as an object, because localapi reports progress this way. If the server
        replies with one JSON object, yield that object and None.
        """
        limit = self._limit("first_token_seconds")
        async with self._opened("POST", path, body, limit=limit) as reply:
            assert reply is not None  # noqa: S101  # it may not be missing
            decoder = EventDecoder()
            begun = False
            async with self._received(reply) as received:
                data = await self._next(received, limit)
                if EVENTS not in reply.headers.get("content-type", "") and not _LINE_OF_EVENTS.match(data):
                    yield await self._object(received, self._limit("reply_seconds"), data)
                    yield None
                    return
                while True:
                    try:
                        items = decoder.feed(data) if data else decoder.end()
                    except TooLong as error:
                        raise self._unusable(str(error)) from error
                    for item in items:
                        if item.data.strip() == DONE:
                            self._read_out(reply, received)
                            yield None
                            return
                        found = _decoded(item.data, strict=not item.is_comment)
                        if isinstance(found, dict):
                            begun = begun or not item.is_comment
                            yield found
                        elif not item.is_comment:
                            raise self._unusable(f"an event is not a JSON object: {_excerpt(item.data)}")
                    if not data:
                        return
                    data = await self._next(received, None if begun else limit)

    async def raw(
        self, path: str, body: Mapping[str, Any], file: Upload | None = None
    ) -> AsyncGenerator[ForwardedHead | bytes, None]:
        """Yield the head of a reply, then its bytes. With a file, the body is sent as a form."""
        limit = self._limit("reply_seconds")
        async with self._opened("POST", path, body, file=file, limit=limit) as reply:
            assert reply is not None  # noqa: S101  # it may not be missing
            length = reply.headers.get("content-length")
            encoded = "content-encoding" in reply.headers
            yield ForwardedHead(
                0,
                reply.headers.get("content-type", "application/octet-stream"),
                int(length) if length and length.isdigit() and not encoded else None,
            )
            async with self._received(reply) as received:
                while data := await self._next(received, None):
                    yield data

    # How it is asked

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing_ok: bool = False,
        limit: Limit | None = None, file: Upload | None = None,
    ) -> AsyncIterator[httpx2.Response | None]:  # fmt: skip
        """Open a reply with status 200, or None if the path may be missing. Raise ApiError.

        Leaving it before its end closes the connection.
        """
        reply = await self._sent(method, path, body, limit, file)
        try:
            if missing_ok and reply.status_code in _MISSING:
                yield None
                return
            if reply.status_code >= HTTPStatus.BAD_REQUEST:
                said = complaint(reply.status_code, reply.headers, await self._beginning(reply))
                raise self.scrubbed(said).error(self._name, str((body or {}).get("model")))
            yield reply
        except httpx2.HTTPError as error:
            raise self._broken(error) from error
        finally:
            if reply not in self._ending:
                await reply.aclose()

    @asynccontextmanager
    async def _received(self, reply: httpx2.Response) -> AsyncIterator[Body | DecodedBody]:
        """Open the bytes of a reply."""
        body = reply.extensions.get("body")
        if isinstance(body, Body) and "content-encoding" not in reply.headers:
            yield body
            return
        decoded = DecodedBody(reply)
        try:
            yield decoded
        finally:
            if reply not in self._ending:
                await decoded.aclose()

    def _read_out(self, reply: httpx2.Response, received: Body | DecodedBody) -> None:
        """Read what follows the last event, in the background, so that the connection can be reused."""

        async def read() -> None:
            until = time.monotonic() + READ_OUT_SECONDS
            try:
                while time.monotonic() < until and await received.read(until):
                    pass
            except (httpx2.HTTPError, TimeoutError):
                log.debug("%s: a stream of the upstream continues after its end", self._name)
            finally:
                await received.aclose()
                await reply.aclose()

        task = self._ending[reply] = asyncio.create_task(read(), name=f"end of a stream of {self._name}")
        task.add_done_callback(lambda _: self._ending.pop(reply))

    async def _sent(
        self, method: str, path: str, body: Mapping[str, Any] | None, limit: Limit | None, file: Upload | None = None
    ) -> httpx2.Response:
        """Return the reply's head. A failed connection is retried once; nothing else is."""
        if self._client is None:
            raise RuntimeError("the client is not open")
        is_beside = path.startswith("/../")  # of the API, whose base may end with its version
        url = self._base.removesuffix("/v1") + path.removeprefix("/..") if is_beside else self._base + path
        headers = self._headers(has_body=body is not None)
        form: FormBody | None = None
        content: bytes | None = None
        if body is not None and file is not None:
            form = FormBody(body, file.path, name=file.name, content_type=file.content_type)
            headers |= await aside(form.headers)
        elif body is not None:
            content = msgspec.json.encode(body)
        for attempt in range(MAX_REDIRECTS):
            if self._client.is_closed:  # while it waited to connect again
                raise UpstreamUnavailable(
                    f"{self._name} was closed before the request was sent. Send the request again."
                )
            timeout = httpx2.Timeout(None, connect=self._connect_seconds)
            sent = content if form is None else form.pieces()
            request = self._client.build_request(method, url, content=sent, headers=headers, timeout=timeout)
            try:
                reply = await self._in_turn(self._client, request, limit)
            except httpx2.ConnectError as error:
                if attempt:
                    raise self._unreachable(error) from error
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise self._broken(error) from error
            if reply.status_code not in _REDIRECTS:
                return reply
            await reply.aclose()
            url = self._redirected(url, reply)
        raise UpstreamRefused(f"{self._who} redirects too often. Check `url`.")

    def _headers(self, *, has_body: bool) -> dict[str, str]:
        headers = {"Accept": f"{JSON}, {EVENTS}, */*", "Accept-Encoding": "gzip, deflate"}
        if has_body:
            headers["Content-Type"] = JSON
        # Probes are this server's own requests, even if a client's request has caused them.
        chain = via.get() if has_body else ()
        if has_body and self._sender is None:
            headers |= trace_headers.get()
        if self._sender is not None:
            chain = (self._sender,)
        if chain:
            headers[VIA_HEADER] = ", ".join(chain)
        return headers

    async def _in_turn(self, http: httpx2.AsyncClient, request: httpx2.Request, limit: Limit | None) -> httpx2.Response:
        """Return the reply's head; if a connection must be made, wait for its turn."""
        turn = Turn(self._turns)
        request.extensions["trace"] = turn.wait
        try:
            async with self._in_time(limit):
                reply = await http.send(request, stream=True)
        finally:
            turn.end()
        self._turns.learn(reply.http_version)
        return reply

    def _limit(self, option: LimitOption) -> Limit:
        seconds: float = getattr(self._upstream, option)
        return Limit(option, seconds, time.monotonic() + seconds)

    @asynccontextmanager
    async def _in_time(self, limit: Limit | None) -> AsyncIterator[None]:
        """Limit the time inside the block. Raise UpstreamTimeout."""
        timeout = asyncio.timeout_at(None if limit is None else limit.until)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if limit is None or not timeout.expired():
                raise
            raise self._late(limit) from None

    @property
    def _connect_seconds(self) -> float:
        """Time limit in seconds for a connection: a pool may have less time than the entry allows."""
        limit = connect_limit.get()
        return self._upstream.connect_seconds if limit is None else min(limit, self._upstream.connect_seconds)

    def _redirected(self, url: str, reply: httpx2.Response) -> str:
        """Return where a reply redirects the request. Raise UpstreamRefused if that is another server."""
        target = urljoin(url, reply.headers.get("location", ""))
        here, there = urlsplit(url), urlsplit(target)
        if (here.scheme, here.netloc) != (there.scheme, there.netloc) or reply.status_code not in (307, 308):
            raise UpstreamRefused(
                f"{self._who} redirects to {there.scheme}://{there.netloc}{there.path}. Set `url` of this entry to "
                f"the new address."
            )
        return target

    async def _next(self, received: Body | DecodedBody, limit: Limit | None) -> bytes:
        """Return the next bytes; b"" at the end. Raise UpstreamTimeout."""
        until = time.monotonic() + self._upstream.idle_seconds
        is_first = limit is not None and limit.until < until
        try:
            return await received.read(limit.until if limit is not None and is_first else until)
        except TimeoutError:
            raise self._late(limit if limit is not None and is_first else self._limit("idle_seconds")) from None

    def _late(self, limit: Limit) -> UpstreamTimeout:
        return UpstreamTimeout(
            f"{self._who} {_LATE[limit.option]} for {limit.seconds:g} s ({limit.option}). Request less, or raise it in "
            "the manifest."
        )

    # What comes back

    async def _content(self, received: Body | DecodedBody, limit: Limit, begun: bytes = b"") -> bytearray:
        """Return all bytes of a reply, of which some may have been read."""
        # Not a list of pieces: thousands of them would leave a heap that is not returned to the system.
        content = bytearray(begun)
        try:
            while data := await received.read(limit.until):
                if len(content) + len(data) > MAX_REPLY_BYTES:
                    raise self._unusable(f"it has more than {MAX_REPLY_BYTES // 2**20} MB")
                content += data
        except TimeoutError:
            raise self._late(limit) from None
        return content

    async def _beginning(self, reply: httpx2.Response) -> bytes:
        """Return the start of an error's body, ignoring errors in its transfer or encoding."""
        content = b""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                async for data in reply.aiter_bytes():
                    content += data
                    if len(content) > MAX_ERROR_BYTES:
                        break
        except (httpx2.HTTPError, TimeoutError):
            log.debug("%s: the upstream's error reply is incomplete", self._name)
        return content[:MAX_ERROR_BYTES]

    async def _object(self, received: Body | DecodedBody, limit: Limit, begun: bytes = b"") -> dict[str, Any]:
        content = await self._content(received, limit, begun)
        found = _decoded(content)
        if not isinstance(found, dict):
            raise self._unusable(f"it is not a JSON object: {_excerpt(content)}")
        return found

    def scrubbed(self, said: Complaint) -> Complaint:
        """Return an error of the server without the secrets that were sent to it."""
        return replace(said, message=self._upstream.scrub(said.message))

    def _unusable(self, reason: str) -> UpstreamFailed:
        reason = self._upstream.scrub(reason)
        return UpstreamFailed(f"The reply of {self._who[0].lower() + self._who[1:]} is unusable: {reason}.")

    def _unreachable(self, error: Exception) -> ApiError:
        reason = reason_of(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return UpstreamRefused(
                f"The certificate of {self._upstream.host} is not trusted: {reason}. Set `ca` of {self._name} to the "
                "certificate of its authority."
            )
        return UpstreamUnavailable(f"{self._who}, {self._upstream.host}, cannot be reached: {reason}. Is it running?")

    def _broken(self, error: Exception) -> ApiError:
        """Return the error for a connection that failed."""
        if isinstance(error, httpx2.ConnectTimeout):
            return UpstreamUnavailable(
                f"{self._who}, {self._upstream.host}, did not accept a connection within "
                f"{self._connect_seconds:g} s. Is it running?"
            )
        if isinstance(error, httpx2.DecodingError):
            return self._unusable("its compression is invalid")
        if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
            return UpstreamRefused(f"The `url` of {self._name} is not valid: {error}.")
        return UpstreamUnavailable(
            f"{self._who}, {self._upstream.host}, closed the connection: {reason_of(error)}. Send the request again."
        )


def _decoded(content: bytes | bytearray, *, strict: bool = True) -> Any:
    """Return the JSON value; None if it is not JSON. Without `strict`, only objects count."""
    if not strict and not content.lstrip().startswith(b"{"):
        return None
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _excerpt(content: bytes | bytearray) -> str:
    return repr(content[:80].decode("utf-8", "replace"))
