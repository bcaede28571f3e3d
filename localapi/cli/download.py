"""Downloads from the Hugging Face Hub into its cache, by a process of their own.

Here nothing is known of the Hub: `localapi.worker.hub.pull` speaks with it, and tells how far it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from localapi.errors import CannotDownload

FILE_SECONDS: Final = 30.0
"""How long a small file may take."""
END_SECONDS: Final = 5.0
_QUIET: Final = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"}
"""Without telemetry huggingface_hub does not ask the Hub first which agents there are."""

Progress = Callable[[int, int], None]
"""Takes the bytes that are there, and all of them."""


def pull(repository: str, revision: str | None, progress: Progress) -> Path:
    """Download a repository, or what is missing of it; its folder in the cache. Raises CannotDownload.

    An interruption leaves what has come for the next time.
    """
    with _child(repository, *(("--revision", revision) if revision else ())) as lines:
        for line in lines:
            if "total" in line:
                progress(line["done"], line["total"])
            elif "folder" in line:
                return Path(line["folder"])
    raise AssertionError("a child without a last word raises")


def file_of(repository: str, name: str, revision: str | None = None) -> Path:
    """One small file of a repository. Raises CannotDownload, also where it takes too long."""
    arguments = (repository, "--file", name, *(("--revision", revision) if revision else ()))
    with _child(*arguments, seconds=FILE_SECONDS) as lines:
        for line in lines:
            return Path(line["path"])
    raise AssertionError("a child without a last word raises")


@contextmanager
def _child(*arguments: str, seconds: float | None = None) -> Iterator[Iterator[dict[str, Any]]]:
    """What a child says, which ends with the block. Raises CannotDownload for its error, and for its silence."""
    with subprocess.Popen(  # noqa: S603  # this Python, with our own module
        [sys.executable, "-P", "-m", "localapi.worker.hub.pull", *arguments],
        env={**os.environ, **_QUIET},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        said: list[str] = []
        reader = threading.Thread(target=_read, args=(process.stderr, said), daemon=True)
        reader.start()
        late = threading.Event()
        timer = threading.Timer(seconds or 0, _give_up, (process, late))
        timer.daemon = True
        if seconds is not None:
            timer.start()
        try:
            yield _lines(process, arguments[0], said, late, reader)
        finally:
            timer.cancel()
            _end(process)
            reader.join()  # before its pipe is closed


def _lines(
    process: subprocess.Popen[str], repository: str, said: list[str], late: threading.Event, reader: threading.Thread
) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None  # noqa: S101  # it was started with a pipe
    for text in process.stdout:
        line: dict[str, Any] = json.loads(text)
        if "error" in line:
            raise CannotDownload(line["error"])
        yield line
    if late.is_set():
        raise CannotDownload(f"Hugging Face did not answer for {repository} in time. Check the network.")
    reader.join()
    last = said[-1].strip() if said else f"exit status {process.wait()}"
    raise CannotDownload(f"{repository} could not be downloaded: {last}")


def _read(stream: Any, said: list[str]) -> None:
    said.extend(line for line in stream if line.strip())


def _give_up(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.kill()


def _end(process: subprocess.Popen[str]) -> None:
    """It may be in the middle of something: Ctrl-C has reached it, too, or nobody wants the rest."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    process.terminate()
    try:
        process.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
