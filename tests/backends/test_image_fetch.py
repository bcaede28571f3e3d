"""Allowed addresses of images, as tables, and fetching from a host on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from localapi.backends.image_fetch import CannotFetch, Target, allowed_target, fetched, is_public
from tests.images.picture_files import png

pytestmark = pytest.mark.everyday

PICTURE = png()


@pytest.mark.parametrize(
    ("url", "hosts", "host", "port", "may_be_private"),
    [
        ("https://pictures.org/a.png?x=1", ["pictures.org"], "pictures.org", 443, False),
        ("http://PICTURES.org./a", ["pictures.org"], "pictures.org", 80, False),
        ("http://a.b.pictures.org/", ["*.pictures.org"], "a.b.pictures.org", 80, False),
        ("https://anything.org/", ["*"], "anything.org", 443, False),
        ("http://nas.lan:8080/a", ["nas.lan:8080"], "nas.lan", 8080, False),
        ("http://10.0.0.5/a", ["10.0.0.5"], "10.0.0.5", 80, True),
        ("http://[::1]:9000/a", ["[::1]:9000"], "::1", 9000, True),
        ("http://[0:0::1]:9000/a", ["[::1]:9000"], "0:0::1", 9000, True),
        ("http://127.0.0.1/a", ["*"], "127.0.0.1", 80, False),
        ("http://localhost:9000/a", ["localhost:9000"], "localhost", 9000, True),
        ("http://localhost/a", ["*"], "localhost", 80, False),
    ],
)
def test_what_the_manifest_lists_is_allowed(
    url: str, hosts: list[str], host: str, port: int, may_be_private: bool
) -> None:
    target = allowed_target(url, hosts)
    assert (target.host, target.port, target.may_be_private) == (host, port, may_be_private)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("http://pictures.org.evil.org/", ["pictures.org"]),
        ("http://evil.org/pictures.org", ["pictures.org"]),
        ("http://evilpictures.org/", ["*.pictures.org"]),
        ("http://pictures.org/", ["*.pictures.org"]),
        ("http://pictures.org@evil.org/", ["pictures.org"]),
        ("http://user:word@pictures.org/", ["pictures.org"]),
        ("http://pictures.org:8080/", ["pictures.org"]),
        ("http://pictures.org/", ["pictures.org:8080"]),
        ("http://anything.org:22/", ["*"]),
        ("http://127.0.0.1/", ["10.0.0.5"]),
        ("http://2130706433/", ["127.0.0.1"]),
        ("http:///a.png", ["*"]),
        ("http://[::1", ["*"]),
        ("http://pictures.org:99999/", ["*"]),
        ("gopher://pictures.org/", ["pictures.org"]),
    ],
)
def test_everything_else_is_refused(url: str, hosts: list[str]) -> None:
    with pytest.raises(CannotFetch):
        allowed_target(url, hosts)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("192.0.0.192", False),
        ("64:ff9b:1::1", False),
        ("64:ff9b::c000:c0", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_an_address_is_public_only_if_all_that_it_stands_for_is(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_the_header_names_the_host_and_a_port_that_is_not_the_usual_one() -> None:
    assert Target("http", "::1", 9000, "/", True).netloc == "[::1]:9000"
    assert Target("https", "pictures.org", 443, "/", False).netloc == "pictures.org"


Answers = Callable[[str], bytes]


@asynccontextmanager
async def host(answer: Answers) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A web server that answers a path with the bytes of a whole reply; its address, and the heads that came."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        writer.write(answer(head.split()[1].decode()))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


def reply(status: str, content: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def test_an_image_comes_from_a_listed_address_also_over_a_redirect_of_the_same_host() -> None:
    def answer(path: str) -> bytes:
        return reply("302 Found", b"", "Location: /there?x=1") if path == "/here" else reply("200 OK", PICTURE)

    async with host(answer) as (place, heads):
        assert await fetched(f"http://{place}/here", [place], most_bytes=1000) == PICTURE
    assert [head.split()[1] for head in heads] == [b"/here", b"/there?x=1"]
    assert f"Host: {place}".encode().lower() in heads[0].lower()


@pytest.mark.parametrize(
    "location", ["http://127.0.0.2:1/", "http://localhost/", "file:///etc/passwd", "//evil.org/", "/"]
)
async def test_a_redirect_elsewhere_or_in_circles_ends_there(location: str) -> None:
    async with host(lambda _: reply("302 Found", b"", f"Location: {location}")) as (place, heads):
        with pytest.raises(CannotFetch):
            await fetched(f"http://{place}/", [place, "localhost", "127.0.0.2:1"], most_bytes=1000)
    assert len(heads) == (4 if location == "/" else 1)


@pytest.mark.parametrize(
    "answer",
    [
        reply("404 Not Found", PICTURE),
        reply("200 OK", PICTURE, "Content-Encoding: gzip"),
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_file_is_refused(answer: bytes) -> None:
    async with host(lambda _: answer) as (place, _):
        with pytest.raises(CannotFetch):
            await fetched(f"http://{place}/", [place], most_bytes=1000)


async def test_no_more_is_read_than_allowed_and_one_byte() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000
    async with host(lambda _: endless) as (place, _):
        assert await fetched(f"http://{place}/", [place], most_bytes=1000) == b"x" * 1001


async def test_a_name_with_a_private_address_is_not_connected_to() -> None:
    async with host(lambda _: reply("200 OK", PICTURE)) as (place, heads):
        port = place.partition(":")[2]
        for url in (f"http://{place}/", f"http://localhost:{port}/", f"http://2130706433:{port}/"):
            with pytest.raises(CannotFetch, match=r"private|not known|does not list"):
                await fetched(url, ["*", f"2130706433:{port}"], most_bytes=1000)
    assert heads == []
