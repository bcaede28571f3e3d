"""A server that sends one half of a reply, and the other when it is told to."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator

from playwright.sync_api import Page


class HalfReply:
    """The first half, at once; the rest, once `opened` is set. Without a rest, the reply does not end until then."""

    def __init__(self, first: bytes, rest: bytes = b"", content_type: str = "audio/mpeg") -> None:
        self.opened = threading.Event()
        opened = self.opened

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                if rest:
                    self.send_header("Content-Length", str(len(first) + len(rest)))
                self.end_headers()
                self.wfile.write(first)
                self.wfile.flush()
                opened.wait()
                self.wfile.write(rest)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing to say."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @contextlib.contextmanager
    def instead_of(self, url: str, page: Page) -> Iterator[None]:
        """Requests of the page to this address come here."""
        here = f"http://127.0.0.1:{self._server.server_port}/"
        page.route(url, lambda route: route.continue_(url=here))
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.opened.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()
