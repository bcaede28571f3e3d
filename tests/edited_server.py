"""A server whose manifest tests edit. It has a profile that works and one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server import Server, save, serving

FAST = "chat: {bird: {description: fast}}\n"


@contextmanager
def edited_server(folder: Path, manifest: str) -> Iterator[Server]:
    """Start it with a manifest that has the chat model `bird`."""
    (folder / "configs").mkdir()
    (folder / "configs" / "fast.yaml").write_text(FAST)
    (folder / "configs" / "broken.yaml").write_text("chat: {bird: {nope: 1}}\n")
    with serving(folder, manifest) as server:
        yield server


def as_at_first(server: Server, manifest: str) -> Server:
    """Return the server with its first manifest."""
    path = server.folder / "models.yaml"
    if path.read_text() != manifest:
        save(path, manifest)
        assert server.request("POST", "/admin/reload").status == 200
    return server
