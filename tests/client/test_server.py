"""Messages of the command line about a server that cannot be asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from localapi.client import Server
from localapi.errors import NoServer, StartError
from localapi.settings import Settings


@contextlib.contextmanager
def listener() -> Iterator[tuple[socket.socket, Server]]:
    """A socket on which somebody connects, and nobody answers by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, Server(f"http://127.0.0.1:{listening.getsockname()[1]}")


def test_a_server_that_says_nothing_is_told_from_one_that_is_not_there() -> None:
    with listener() as (_, server), pytest.raises(NoServer, match="did not respond within"):
        server.get("/status", seconds=0.1)
    with pytest.raises(NoServer, match="no server responds on"):
        server.get("/status")


def test_a_server_that_hangs_up_is_told_as_that() -> None:
    with listener() as (listening, server):

        def hang_up() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1)

        ending = threading.Thread(target=hang_up)
        ending.start()
        with pytest.raises(NoServer, match="closed the connection"):
            server.get("/status")
        ending.join()


@pytest.mark.parametrize("host", ["a b", "x" * 70])
def test_what_can_be_no_address_is_told(host: str) -> None:
    server = Server(f"http://{host}:8000")
    assert not server.is_there()
    with pytest.raises(NoServer, match="not a valid address"):
        server.get("/status")


@pytest.mark.parametrize("key", ["ключ", "a\nb"])
def test_a_key_that_no_header_can_carry_is_told_without_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAPI_API_KEY", key)
    with pytest.raises(StartError, match="LOCALAPI_API_KEY should be") as refused:
        _ = Settings.read().key_header
    assert key not in str(refused.value)
