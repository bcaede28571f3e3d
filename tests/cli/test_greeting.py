"""The addresses that `localapi serve` prints: each can be opened as it stands."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from localapi.cli.serve import reachable
from tests.server import serving


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("192.168.1.5", "http://192.168.1.5:8000"),
        ("studio.local", "http://studio.local:8000"),
    ],
)
def test_an_address_that_stands_for_all_is_shown_as_this_machine(host: str, url: str) -> None:
    assert reachable(host, 8000) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_the_console_opens_at_the_address_that_is_printed(tmp_path: Path, host: str) -> None:
    with serving(tmp_path, "chat: {m: {backend: echo}}", "--host", host) as server:
        address = server.wait_for(r"console on (http://\S+)").group(1)
        with urllib.request.urlopen(address, timeout=60) as page:
            assert b"<html" in page.read()
