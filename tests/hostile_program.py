"""A server that speaks OpenAI's API and does what no server should: `python hostile_program.py PORT [WAY...]`.

Ways at the start: never-ready, elsewhere, ipv6, silent, fork, daemon, ignore-term, loud-exit. A request may
say die, close or hang; env and key are answered with what the program knows, anything else is repeated.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT, WAYS = int((sys.argv[1:2] or ["0"])[0]), sys.argv[2:]
CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ThreadingHTTPServer

    def do_GET(self) -> None:
        if self.path == "/health":
            self._reply(503 if "never-ready" in WAYS else 200, {"status": "ok"})
        elif self.path == "/v1/models":
            self._reply(200, {"object": "list", "data": [{"id": "hostile", "object": "model"}]})
        else:
            self._reply(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        if text == "close":
            self.server.socket.close()
            os.close(self.connection.detach())
            return
        if text == "hang":
            time.sleep(600)
        if text == "key":
            text = self.headers.get("Authorization", "none")
        if text == "env":
            text = os.environ.get("HOSTILE", "none")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if body.get("stream") else "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        if body.get("stream"):
            for word in (text, "."):
                self._event({"content": word})
                if text == "die":
                    self.wfile.flush()
                    os._exit(7)
            self._event({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self.wfile.write(json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode())
        self.close_connection = True

    def _event(self, delta: dict[str, str], reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def _reply(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        pass


def fork() -> None:
    """Leave two processes in sessions of their own, one of them without a parent."""
    subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", CHILD])
        os._exit(0)
    os.wait()


def misbehave() -> None:
    """Do what is to be done before there is a server."""
    if "ignore-term" in WAYS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "fork" in WAYS:
        fork()
    if "daemon" in WAYS and os.fork() > 0:
        os._exit(0)
    if "loud-exit" in WAYS:
        sys.exit("out of memory: buy more")
    print("hello from the program", flush=True)
    if "silent" in WAYS:
        time.sleep(600)


def main() -> None:
    misbehave()
    port = 0 if "elsewhere" in WAYS else PORT
    if "ipv6" in WAYS:
        ThreadingHTTPServer.address_family = socket.AF_INET6
    host = "::1" if "ipv6" in WAYS else "127.0.0.1"
    ThreadingHTTPServer((host, port), Handler).serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
