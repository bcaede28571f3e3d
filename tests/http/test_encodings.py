"""Bodies that come compressed: read as if they had not been, and bounded whatever they hold."""

from __future__ import annotations

import gzip
import json
import resource
import sys
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest

from localapi.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding
from localapi.http.encodings import decode, encoding_of
from tests.server import Server, serving

CHAT = "/v1/chat/completions"
LIMIT = 2**20


def bare_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


Encode = Callable[[bytes], bytes]
ENCODERS: list[tuple[str, Encode]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZIP", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:])),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("br", brotli.compress),
    ("identity, br", brotli.compress),
    ("identity", bytes),
    ("", bytes),
]


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", None), ("identity", None), (" Identity ,identity", None), ("gzip", "gzip"), ("X-GZIP", "gzip"),
        ("deflate", "deflate"), ("identity, br", "br"),
    ],
)  # fmt: skip
def test_the_encoding_of_a_header(header: str, encoding: str | None) -> None:
    assert encoding_of(header) == encoding


@pytest.mark.parametrize("header", ["zstd", "compress", "gzip, br", "gzip,gzip", "x-br2", "utf-8", "é" * 500])
def test_another_encoding_is_not_supported(header: str) -> None:
    with pytest.raises(UnsupportedEncoding) as raised:
        encoding_of(header)
    assert len(raised.value.message) < 300


@pytest.mark.parametrize(("encoding", "encode"), [pair for pair in ENCODERS if pair[0] in ("gzip", "deflate", "br")])
@pytest.mark.parametrize("size", [0, 1, 1000, LIMIT])
def test_what_was_encoded_is_decoded_up_to_the_limit(encoding: str, encode: Encode, size: int) -> None:
    data = b"a" * size
    assert decode(encode(data), encoding, LIMIT) == data
    with pytest.raises(RequestTooLarge):
        decode(encode(b"a" * (LIMIT + 1)), encoding, LIMIT)


@pytest.mark.parametrize(("encoding", "encode"), [pair for pair in ENCODERS if pair[0] in ("gzip", "deflate", "br")])
@pytest.mark.parametrize(
    "spoilt",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"xyz",
        lambda _: b"not encoded",
        lambda data: data * 101,
        lambda data: b"\xff" + data,
    ],
)
def test_what_is_not_encoded_so_is_refused(encoding: str, encode: Encode, spoilt: Encode) -> None:
    with pytest.raises(InvalidRequest):
        decode(spoilt(encode(bytes(range(256)))), encoding, LIMIT)


def quick_brotli(data: bytes) -> bytes:
    return brotli.compress(data, quality=1)


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", quick_brotli)]
)
def test_a_bomb_takes_no_more_memory_than_the_limit(encoding: str, encode: Encode) -> None:
    bomb = encode(bytes(300_000_000))
    in_bytes = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * in_bytes
    with pytest.raises(RequestTooLarge):
        decode(bomb, encoding, LIMIT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * in_bytes - before < 20e6


# On a server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("encodings")
    with serving(folder, "{chat: {m: {backend: echo}}, speech: {s: {backend: echo}}}") as server:
        yield server
        assert not [line for line in server.lines if "Traceback" in line]


BODIES = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"model": "m", "prompt": "hello"},
    "/v1/tokenize": {"model": "m", "text": "hello"},
    "/v1/audio/speech": {"model": "s", "input": "hello"},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("header", "encode"), ENCODERS)
def test_a_compressed_body_is_answered_as_a_plain_one(server: Server, path: str, header: str, encode: Encode) -> None:
    body = encode(json.dumps(BODIES[path]).encode())
    assert server.request("POST", path, body, {"Content-Encoding": header}).status == 200


def test_an_encoding_that_is_not_known_is_415_and_says_which_are(server: Server) -> None:
    reply = server.request("POST", CHAT, b"(\xb5/\xfd", {"Content-Encoding": "zstd"})
    assert (reply.status, reply.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert reply.headers["accept-encoding"] == "gzip, deflate, br"


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, b"{}"), (400, gzip.compress(b"{")), (413, gzip.compress(bytes(10**8)))],
    ids=["not gzip", "not JSON", "too large"],
)
def test_a_compressed_body_that_cannot_be_read(server: Server, status: int, body: bytes) -> None:
    assert server.request("POST", CHAT, body, {"Content-Encoding": "gzip"}).status == status


@pytest.mark.parametrize("encode", [bytes, gzip.compress])
def test_a_byte_order_mark_before_the_json_is_skipped(server: Server, encode: Encode) -> None:
    header = {"Content-Encoding": "identity" if encode is bytes else "gzip"}
    body = encode(b"\xef\xbb\xbf" + json.dumps(BODIES[CHAT]).encode())
    assert server.request("POST", CHAT, body, header).status == 200


def test_a_byte_order_mark_alone_is_no_body(server: Server) -> None:
    assert "no body" in server.request("POST", CHAT, b"\xef\xbb\xbf").json()["error"]["message"]
