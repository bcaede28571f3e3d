#!/usr/bin/env python3
"""Measure the shape of the code: sizes of files and functions, density of expressions, files entered by one request.

    uv run tools/structure.py                         # this checkout
    uv run tools/structure.py --checkout ../before    # another one beside it, as a second column

Each checkout is traced with its own environment (`.venv`), so run `uv sync --all-groups` in it first.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import tokenize
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_OURS = ("vendor", "model", "__pycache__")
PATIENCE_SECONDS = 60.0

MANIFEST = """\
chat:
  demo: {backend: mlx-lm, path: demo, pin: true}
speech:
  voice: {backend: espeak-ng, pin: true}
"""

# Runs the server with a profiler that notes each function of localapi while it is switched on. SIGUSR1 switches it on,
# and off again; then what was entered is written to the file named by STRUCTURE_TRACE.
TRACED_SERVER = """\
import json, os, signal, sys, threading
seen, on = set(), False
def note(frame, event, arg):
    if on and event == "call" and "/localapi/" in frame.f_code.co_filename:
        seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))
def switch(*_):
    global on
    on = not on
    if not on:
        with open(os.environ["STRUCTURE_TRACE"] + ".new", "w") as file:
            json.dump(sorted(seen), file)
        os.replace(os.environ["STRUCTURE_TRACE"] + ".new", os.environ["STRUCTURE_TRACE"])
        seen.clear()
signal.signal(signal.SIGUSR1, switch)
threading.setprofile(note)
sys.setprofile(note)
from localapi.cli import main
sys.argv = ["localapi", *sys.argv[1:]]
main()
"""


def source_files(checkout: Path, pattern: str = "*.py") -> list[Path]:
    """Return the package's source files without vendored code and models."""
    found = (checkout / "localapi").rglob(pattern)
    return [path for path in found if not any(part in NOT_OURS for part in path.parts)]


def comment_lines(path: Path) -> int:
    """Return how many lines have a comment."""
    with path.open("rb") as file:
        return sum(token.type == tokenize.COMMENT for token in tokenize.tokenize(file.readline))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def sizes(checkout: Path) -> dict[str, float | str]:
    """Return the figures that can be read from the source alone."""
    files = source_files(checkout)
    texts = [path.read_text() for path in files]
    trees = [ast.parse(text) for text in texts]
    lines = [text.count("\n") for text in texts]
    total = sum(lines)
    lengths = sorted((node.end_lineno or 0) - node.lineno + 1 for tree in trees for node in functions(tree))
    nodes = Counter(type(node) for tree in trees for node in ast.walk(tree))
    comprehensions = sum(nodes[kind] for kind in (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp))
    private = once = 0
    for text, tree in zip(texts, trees, strict=True):
        words = Counter(re.findall(r"\b_[a-z]\w*", text))
        names = [node.name for node in functions(tree) if re.match(r"_[a-z]", node.name)]
        private += len(names)
        once += sum(words[name] == 2 for name in names)  # its definition and one use
    everything = [path for suffix in ("*.py", "*.js", "*.css", "*.html") for path in source_files(checkout, suffix)]
    return {
        "Python files": len(files),
        "Python lines": total,
        "files with the console": len(everything),
        "lines with the console": sum(path.read_text().count("\n") for path in everything),
        "modules at the top level": len(list((checkout / "localapi").glob("*.py"))),
        "median file, lines": statistics.median(lines),
        "function p95, lines": lengths[int(len(lengths) * 0.95)],
        "private functions used once": f"{once} of {private}",
        "walrus per 1000 lines": round(1000 * nodes[ast.NamedExpr] / total, 1),
        "comprehensions per 1000 lines": round(1000 * comprehensions / total, 1),
        "conditional expressions per 1000 lines": round(1000 * nodes[ast.IfExp] / total, 1),
        "comments, % of lines": round(100 * sum(comment_lines(path) for path in files) / total, 1),
    }


def until(done: Callable[[], bool], what: str) -> None:
    """Wait until something is so. Raise TimeoutError after a minute."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


class TracedServer:
    """A server of one checkout that tells which files and functions it enters."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.manifest = folder / "models.yaml"
        self.manifest.write_text(MANIFEST)
        self._trace = folder / "trace.json"
        python = checkout / ".venv" / "bin" / "python"
        command = [str(python), "-c", TRACED_SERVER, "serve", "--port", str(port), "--manifest", str(self.manifest)]
        environment = {**os.environ, "PYTHONPATH": str(checkout), "STRUCTURE_TRACE": str(self._trace)}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(lambda: self._answers("/health/ready"), "the server did not start")

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def post(self, path: str, body: dict[str, object]) -> None:
        """Send a request and read its whole reply."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            reply.read()

    def revision(self) -> int:
        """Return the revision that is active."""
        with urllib.request.urlopen(self.url + "/status") as reply:
            return int(json.load(reply)["revision"])

    def entered(self, act: Callable[[], None]) -> str:
        """Return "files / functions" that were entered while `act` ran."""
        self._trace.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
        act()
        self.process.send_signal(signal.SIGUSR1)
        until(self._trace.exists, "no trace was written")
        found = json.loads(self._trace.read_text())
        return f"{len({file for file, _ in found})} / {len(found)}"


def traces(checkout: Path) -> dict[str, float | str]:
    """Return how many files and functions of the server one request of each sort enters."""
    chat = {"model": "demo", "stream": True, "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
    speech = {"model": "voice", "input": "Hello.", "voice": "alloy", "response_format": "wav"}
    with tempfile.TemporaryDirectory() as folder:
        server = TracedServer(checkout, Path(folder))
        try:
            for _ in range(2):  # the first one of each loads what is imported late
                server.post("/v1/chat/completions", dict(chat))
                server.post("/v1/audio/speech", dict(speech))

            def edit() -> None:
                before = server.revision()
                server.manifest.write_text(MANIFEST.replace("pin: true}", "pin: true, aliases: [other]}", 1))
                until(lambda: server.revision() > before, "the edit was not applied")

            return {
                "files / functions of one streamed chat": server.entered(
                    lambda: server.post("/v1/chat/completions", dict(chat))
                ),
                "files / functions of one speech request": server.entered(
                    lambda: server.post("/v1/audio/speech", dict(speech))
                ),
                "files / functions of one reload (with GET /status)": server.entered(edit),
            }
        finally:
            server.process.terminate()
            server.process.wait(timeout=PATIENCE_SECONDS)


def main() -> None:
    """Print a table with a column for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", action="append", type=Path, default=[], help="another checkout to set beside it")
    parser.add_argument("--no-trace", action="store_true", help="only read the source; start no server")
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.checkout] + [ROOT]
    columns = []
    for checkout in checkouts:
        figures = sizes(checkout)
        if not options.no_trace:
            figures |= traces(checkout)
        columns.append(figures)
    print(f"| | {' | '.join(path.name for path in checkouts)} |")
    print(f"|---|{'--:|' * len(checkouts)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(str(column[name]) for column in columns)} |")


if __name__ == "__main__":
    main()
