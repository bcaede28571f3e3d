"""As much of the Hugging Face Hub as downloads need, on this machine: HF_ENDPOINT leads here.

Large files are called by their SHA-256, small ones by git's SHA-1, as the Hub does; a part of a file is given where it
is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE_BYTES = 1_000_000
PIECE_BYTES = 256 * 1024
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories, each the content of a folder."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path], gated: tuple[str, ...] = ()) -> None:
        self.repositories = repositories
        self.gated = gated
        self.asked: list[tuple[str, str | None]] = []
        """Contents that were asked for: name of the file, and the part of it."""
        self.sent = 0
        """Bytes of large files, in all."""
        self.stops_after: int | None = None
        """A large file comes so far, and then no further, as long as it is set."""
        self.goes_on = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def hub_with(repositories: Mapping[str, Path], gated: tuple[str, ...] = ()) -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    with Hub(repositories, gated) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.goes_on.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:  # noqa: PLR0911  # one for each kind of request
        if self.path.startswith("/api/models?"):
            return self._reply(200, json.dumps(self._search()).encode(), {})
        found = re.match(r"/(?:api/models/)?([\w.-]+/[\w.-]+)(?:/|$)(.*)", self.path)
        if not found or found[1] not in {*self.server.repositories, *self.server.gated}:
            return self._reply(401, b"", {"X-Error-Code": "RepoNotFound"})
        if found[1] in self.server.gated:
            return self._reply(403, b"", {"X-Error-Code": "GatedRepo"})
        folder, rest = self.server.repositories[found[1]], found[2].partition("?")[0]
        if rest.startswith("revision/main") or not rest:
            files = [{"rfilename": str(file.relative_to(folder))} for file in _files(folder)]
            return self._reply(200, json.dumps({"id": found[1], "sha": COMMIT, "siblings": files}).encode(), {})
        if rest.startswith("tree/"):
            return self._reply(200, json.dumps([_listed(folder, file) for file in _files(folder)]).encode(), {})
        if rest.startswith("resolve/"):
            return self._content(folder / rest.split("/", 2)[2])
        return self._reply(404, b"", {"X-Error-Code": "RevisionNotFound"})

    def _search(self) -> list[dict[str, object]]:
        """Return the repositories whose name has the text; those of mlx-community are for MLX."""
        asked = urllib.parse.parse_qs(self.path.partition("?")[2])
        text, tags = asked.get("search", [""])[0], asked.get("filter", [])
        found = [name for name in self.server.repositories if text in name]
        found = [name for name in found if "mlx" not in tags or name.startswith("mlx-community/")]
        return [
            {
                "id": name, "downloads": 1, "tags": ["mlx"] if name.startswith("mlx-community/") else [],
                "pipeline_tag": "text-generation", "gated": False,
                "safetensors": {"parameters": {"BF16": 1_000_000}, "total": 1_000_000},
            }
            for name in found
        ]  # fmt: skip

    def _content(self, file: Path) -> None:
        if not file.is_file():
            return self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        body = file.read_bytes()
        headers = {"ETag": f'"{_digest(body)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        part = self.headers.get("Range")
        if self.command == "GET":
            self.server.asked.append((file.name, part))
        if part and (asked := re.fullmatch(r"bytes=(\d+)-", part)):
            begin = int(asked[1])
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
            return self._reply(206, body[begin:], headers)
        return self._reply(200, body, headers)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(OSError):  # whoever asked has gone
            for at in range(0, len(body), PIECE_BYTES):
                stops = self.server.stops_after
                if len(body) > LARGE_BYTES and stops is not None and at >= stops:
                    self.server.goes_on.wait()
                    return
                self.wfile.write(body[at : at + PIECE_BYTES])
                self.server.sent += len(body[at : at + PIECE_BYTES]) if len(body) > LARGE_BYTES else 0


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _digest(body: bytes) -> str:
    return (hashlib.sha256 if len(body) > LARGE_BYTES else hashlib.sha1)(body).hexdigest()


def _listed(folder: Path, file: Path) -> dict[str, object]:
    body = file.read_bytes()
    about = {"type": "file", "path": str(file.relative_to(folder)), "size": len(body), "oid": "0" * 40}
    large = {"lfs": {"oid": _digest(body), "size": len(body), "pointerSize": 130}} if len(body) > LARGE_BYTES else {}
    return {**about, **large}
