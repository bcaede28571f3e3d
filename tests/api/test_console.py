"""The console's files over HTTP: a fixed table, checked by browsers before they use what they have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from localapi.api.console import CONTENT_TYPES, table
from tests.server import Server, serving

FOLDER = Path(__file__).parents[2] / "localapi" / "console"
FILES = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("console"), "chat: {bird: {backend: echo}}") as server:
        yield server


def test_every_file_is_served_as_what_it_is(server: Server) -> None:
    assert set(table()) == FILES
    for name in FILES:
        reply = server.request("GET", f"/console/{name}")
        kind = next(kind for end, kind in CONTENT_TYPES.items() if name.endswith(end))
        assert (reply.status, reply.headers["content-type"]) == (200, kind)
        assert reply.body == (FOLDER / name).read_bytes()
        assert reply.headers["cache-control"] == "no-cache"
        assert "script-src 'self'" in reply.headers["content-security-policy"]


def test_the_page_is_its_index(server: Server) -> None:
    assert server.request("GET", "/").body == (FOLDER / "index.html").read_bytes()


def test_what_a_browser_has_is_not_sent_again(server: Server) -> None:
    first = server.request("GET", "/console/app.js")
    again = server.request("GET", "/console/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    other = server.request("GET", "/console/app.js", headers={"If-None-Match": '"older"'})
    assert (other.status, other.body) == (200, first.body)


@pytest.mark.parametrize(
    "path",
    [
        *("/console/", "/console/nothing.js", "/console/../api/console.py", "/console/%2e%2e/errors.py"),
        *("/console/vendor/", "/console/etc/passwd", "/console/vendor/..%2f..%2f__init__.py", "/console/app.js%00"),
    ],
)
def test_no_other_name_opens_a_file(server: Server, path: str) -> None:
    reply = server.request("GET", path)
    assert (reply.status, reply.json()["error"]["code"]) == (404, "not_found")


def test_nothing_is_loaded_from_elsewhere_and_every_import_is_there() -> None:
    for name in FILES - {name for name in FILES if name.startswith("vendor/")}:
        text = (FOLDER / name).read_text()
        assert not re.search(r"""(?:src|href)=["']https?:|@import|url\(["']?http""", text), name
        assert not re.search(r"""\sstyle=|<script(?! type="module" src=)|\son[a-z]+=["']""", text), name
        for found in re.findall(r"""(?:from|import)\s*\(?["']([^"']+)["']""", text):
            place = (FOLDER / name).parent.joinpath(found).resolve()
            assert found.startswith("."), (name, found)
            assert place.is_file(), (name, found)
            assert place.is_relative_to(FOLDER), (name, found)
