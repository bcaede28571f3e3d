"""Hosts and origins on a real server: what a browser's page can do, and what it cannot."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from localapi.http.host_check import exposure
from tests.server import Server, save, serving

MANIFEST = """
server:
  allowed_hosts: [llm.example, Studio.local]
  allowed_origins: ["https://chat.example", "http://192.168.1.5:*", "app://obsidian.md"]
chat: {bird: {backend: echo}}
"""
CHAT = "/v1/chat/completions"
ASK = {"model": "bird", "messages": [{"role": "user", "content": "hi"}]}
WANTS = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, x-stainless-os",
    "Access-Control-Request-Private-Network": "true",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sites"), MANIFEST) as server:
        yield server


@pytest.mark.parametrize("host", ["llm.example", "LLM.example:8000", "studio.local.", "localhost", "[::1]:5"])
def test_a_host_of_the_manifest_is_served(server: Server, host: str) -> None:
    assert server.request("GET", "/v1/models", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "llm.example.evil.example",
        "xllm.example",
        "10.0.0.1",
        "",
        "a@b",
        "[::",
        "localhost..",
        "localhost...evil.example",
        "evil.example@localhost",
        "localhost:evil",
        "localhost/x",
        "localhost?x",
        "localhost#x",
        "localhost,evil.example",
        "localhost evil.example",
        "a" * 64,
        "." * 300,
        "xn--" + "a" * 70,
        "%6cocalhost",
    ],
)
def test_another_host_is_refused_with_where_to_add_it(server: Server, host: str) -> None:
    reply = server.request("GET", "/health", headers={"Host": host})
    assert (reply.status, reply.json()["error"]["code"]) == (403, "forbidden")
    assert "server.allowed_hosts" in reply.json()["error"]["message"]


def answered(server: Server, sent: str) -> bytes:
    """All that comes for these bytes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(sent.encode())
        return connection.makefile("rb").read()


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/", "/v1/models"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_probe_of_http_1_0_needs_no_host(server: Server, method: str, path: str) -> None:
    assert answered(server, f"{method} {path} HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "lines",
    [
        "Host:\r\n", "Host: evil.example\r\n", "Origin: https://evil.example\r\n", "Origin: null\r\n",
        "Host: evil.example\r\nConnection: keep-alive\r\n",
    ],
)  # fmt: skip
def test_http_1_0_is_no_way_around_the_host_and_the_origin(server: Server, lines: str) -> None:
    assert answered(server, f"GET /health HTTP/1.0\r\n{lines}\r\n").startswith(b"HTTP/1.1 403 ")


def test_http_1_1_needs_a_host(server: Server) -> None:
    assert answered(server, "GET /health HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "origin",
    [
        "https://chat.example", "http://192.168.1.5:3000", "http://192.168.1.5", "app://obsidian.md",
        "http://localhost:5173", "http://127.0.0.1", "https://[::1]:3000",
    ],
)  # fmt: skip
def test_a_page_of_an_allowed_origin_asks_and_reads(server: Server, origin: str) -> None:
    asked = server.request("OPTIONS", CHAT, headers={"Origin": origin, **WANTS})
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == origin
    assert asked.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert asked.headers["access-control-allow-private-network"] == "true"
    for path, body, status in ((CHAT, ASK, 200), (CHAT, {}, 400), ("/nothing", {}, 404)):
        reply = server.request("POST", path, body, {"Origin": origin})
        assert reply.status == status
        assert reply.headers["access-control-allow-origin"] == origin
        assert reply.headers["vary"] == "Origin"
        assert "x-request-id" in reply.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in asked.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "https://chat.example.evil.example", "http://chat.example",
        "https://chat.example:444", "http://192.168.1.5:3000@evil.example", "http://192.168.1.5:99999999",
        "http://192.168.1.50", "http://localhost.evil.example", "file://", "evil", "http://", "http://[",
        "https://chat.example, https://evil.example", "ftp://localhost",
    ],
)  # fmt: skip
def test_a_page_of_another_origin_neither_asks_nor_reads(server: Server, origin: str) -> None:
    for method, headers in (("OPTIONS", WANTS), ("POST", {"Content-Type": "text/plain"}), ("GET", {})):
        reply = server.request(method, CHAT, ASK if method == "POST" else None, {"Origin": origin, **headers})
        assert reply.status == 403
        assert reply.headers["vary"] == "Origin"
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origins",
    [
        ["http://evil.example@localhost"], ["http://localhost/"], ["http://localhost/evil"], ["http://localhost?x"],
        ["http://localhost", "http://evil.example"], ["http://evil.example", "http://localhost"], ["localhost"],
        ["http://localhost:99999999"], ["http://localhost, http://evil.example"], [""], ["http://"],
    ],
)  # fmt: skip
def test_what_no_browser_sends_as_an_origin_is_none_that_is_allowed(server: Server, origins: list[str]) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        lines = "".join(f"Origin: {origin}\r\n" for origin in origins)
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_a_program_without_an_origin_gets_no_cors_headers(server: Server) -> None:
    reply = server.request("GET", "/v1/models")
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert (reply.headers["vary"], reply.headers["x-content-type-options"]) == ("Origin", "nosniff")
    assert "server" not in reply.headers


def test_headers_that_are_no_names_are_not_repeated(server: Server) -> None:
    asked = {**WANTS, "Origin": "http://localhost", "Access-Control-Request-Headers": 'a, "b"; c'}
    assert "access-control-allow-headers" not in server.request("OPTIONS", CHAT, headers=asked).headers


def test_a_preflight_needs_no_key_and_the_request_does(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 16)
    with serving(tmp_path, "server: {api_keys: {x: {file: key}}}\nchat: {bird: {backend: echo}}") as server:
        headers = {"Origin": "http://localhost:3000"}
        assert server.request("OPTIONS", CHAT, headers={**headers, **WANTS}).status == 204
        refused = server.request("POST", CHAT, ASK, headers)
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, headers["Origin"])
        assert server.request("OPTIONS", CHAT, headers=headers).status == 401


def test_an_address_for_everybody_answers_to_numbers_and_its_own_name_and_warns(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {bird: {backend: echo}}", "--host", "0.0.0.0") as server:
        server.wait_for("other machines can reach this address, and the manifest has no api_keys")
        assert "other machines" in server.status()["warnings"][0]
        for host, status in {
            "192.168.1.7": 200, "[fe80::1]:8000": 200, socket.gethostname(): 200, "evil.example": 403,
        }.items():  # fmt: skip
            assert server.request("GET", "/v1/models", headers={"Host": host}).status == status, host

        (tmp_path / "key").write_text("k" * 16)
        save(
            tmp_path / "models.yaml", "server: {api_keys: {x: {file: key, admin: true}}}\nchat: {bird: {backend: echo}}"
        )
        server.wait_for("reloaded revision 2: server")
        assert server.request("GET", "/status", headers={"x-api-key": "k" * 16}).json()["warnings"] == []
        save(tmp_path / "models.yaml", "chat: {bird: {backend: echo}}")
        server.wait_for(r"\d+ warning: other machines can reach this address")


def test_a_loopback_address_does_not_warn(server: Server) -> None:
    assert exposure("127.0.0.2", keys=False) == exposure("LOCALHOST", keys=False) == []
    assert exposure("192.168.1.5", keys=False)
    assert exposure("192.168.1.5", keys=True) == []
    assert server.status()["warnings"] == []
    assert not [line for line in server.lines if "other machines" in line]
