"""Fetch an image from a host that the manifest allows. Loaded only by servers that need it, because of the HTTP client.

A client chooses the address, so the address is not trusted: the name is resolved here, every address behind it must be
public, and the connection goes to a checked address. So a name that changes its address in between (DNS rebinding) has
no effect. Private addresses are reached only if the manifest lists them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx2

from localapi.backends.image_options import ANY_HOST
from localapi.errors import shown
from localapi.system.threads import aside

MAX_REDIRECTS: Final = 3
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 10.0
"""Maximum pause of a host, in seconds."""
LOCALHOST: Final = "localhost"
_PORTS: Final = {"http": 80, "https": 443}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_PRIVATE: Final = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "64:ff9b:1::/48")))
"""Networks that older versions of Python consider public. Some cloud services have addresses there."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class CannotFetch(Exception):
    """The image cannot be fetched; the message tells the client why."""


@dataclass(frozen=True)
class Target:
    """Host and path of an allowed address."""

    scheme: str
    host: str
    """Name or IP address, in lower case."""
    port: int
    path: str
    """Path with the query."""
    may_be_private: bool
    """True if the manifest lists exactly this address."""

    @property
    def netloc(self) -> str:
        """Value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def allowed_target(url: str, hosts: Sequence[str]) -> Target:
    """Return the target of the address if the manifest allows its host. Raise CannotFetch."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise CannotFetch("it is not a valid address") from None
    if parts.scheme not in _PORTS or not host:
        raise CannotFetch("it is not an http: or https: address of a host")
    if "@" in parts.netloc:
        raise CannotFetch("it contains a user name or a password")
    port = _PORTS[parts.scheme] if port is None else port
    usual = port == _PORTS[parts.scheme]
    for allowed in hosts:
        name, allowed_port = _split(allowed)
        if not _is_same(name, host):
            continue
        if allowed_port == port or (allowed_port is None and usual):
            literal = _address(host) is not None or host == LOCALHOST
            return Target(parts.scheme, host, port, _path(parts), literal and name != ANY_HOST)
    where = host if usual else f"{host}:{port}"
    raise CannotFetch(f"the manifest's image_hosts does not list {shown(where)}")


def _split(allowed: str) -> tuple[str, int | None]:
    """Return the name and the port of a host in the manifest."""
    if allowed == ANY_HOST:
        return allowed, None
    parts = urlsplit(f"//{allowed}")
    return parts.hostname or "", parts.port


def _is_same(name: str, host: str) -> bool:
    if name == ANY_HOST:
        return True
    if name.startswith("*."):
        return host.endswith(name[1:])
    own, other = _address(name), _address(host)
    return name == host if own is None or other is None else own == other


def _path(parts: SplitResult) -> str:
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Return True if an address is public, and so is any address embedded in it."""
    if isinstance(address, ipaddress.IPv6Address):
        inner: list[ipaddress.IPv4Address] = []
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.sixtofour is not None:
            inner.append(address.sixtofour)
        if address.teredo is not None:
            inner += address.teredo
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if not all(map(is_public, inner)):
            return False
    if any(address in network for network in _PRIVATE):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def fetched(url: str, hosts: Sequence[str], *, most_bytes: int) -> bytes:
    """Return the file at an address, at most one byte over the limit. Raise CannotFetch."""
    transport = await aside(lambda: httpx2.AsyncHTTPTransport(trust_env=False))
    timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    # No proxy from the environment: it would resolve the name itself.
    async with httpx2.AsyncClient(transport=transport, trust_env=False, timeout=timeout) as client:
        target = allowed_target(url, hosts)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                found = await _asked(client, target, most_bytes)
            except httpx2.HTTPError as error:
                raise CannotFetch(f"{target.netloc} did not send it ({type(error).__name__})") from error
            if isinstance(found, bytes):
                return found
            before, target = (
                target,
                allowed_target(urljoin(f"{target.scheme}://{target.netloc}{target.path}", found), hosts),
            )
            if target.host != before.host:
                raise CannotFetch(f"{before.netloc} redirects to another host, {shown(target.netloc)}")
    raise CannotFetch(f"{target.netloc} redirects more than {MAX_REDIRECTS} times")


async def _asked(client: httpx2.AsyncClient, target: Target, most_bytes: int) -> bytes | str:
    """Return the file, or the address to which the host redirects."""
    address = await _checked_address(target)
    host = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004  # the version of IP
    request = client.build_request(
        "GET",
        f"{target.scheme}://{host}:{target.port}{target.path}",
        headers={"Host": target.netloc, "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "localapi"},
        extensions={"sni_hostname": target.host} if target.scheme == "https" else {},
    )
    reply = await client.send(request, stream=True, follow_redirects=False)
    try:
        if reply.status_code in _REDIRECTS and "location" in reply.headers:
            return reply.headers["location"]
        if reply.status_code != HTTPStatus.OK:
            raise CannotFetch(f"{target.netloc} replied with status {reply.status_code}")
        if reply.headers.get("content-encoding", "identity") != "identity":
            raise CannotFetch(f"{target.netloc} sends it compressed")
        content = bytearray()
        async for piece in reply.aiter_raw():
            content += piece
            if len(content) > most_bytes:
                break
        return bytes(content[: most_bytes + 1])
    finally:
        await reply.aclose()


async def _checked_address(target: Target) -> Address:
    """Return an address of the host if all its addresses are allowed. Raise CannotFetch."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise CannotFetch(f"the host {shown(target.host)} is unknown") from error
    addresses: list[Address] = []
    for *_, place in found:
        address = _address(str(place[0]).partition("%")[0])
        if address is not None:
            addresses.append(address)
    if not addresses:
        raise CannotFetch(f"the host {shown(target.host)} is unknown")
    if not target.may_be_private and not all(is_public(each) for each in addresses):
        raise CannotFetch(
            f"{shown(target.host)} has a private address; list the address itself in the manifest's image_hosts"
        )
    return addresses[0]
