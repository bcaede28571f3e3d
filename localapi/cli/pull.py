"""`localapi pull`: models into the Hub's cache, before anybody waits for them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import click

from localapi.backends.model_path import is_repository
from localapi.cli.options import manifest_option, profile_option, source_of
from localapi.errors import CannotDownload
from localapi.manifest import ManifestSource, read
from localapi.settings import Settings
from localapi.system.byte_sizes import readable

BAR: Final = 24
REPORT_SECONDS: Final = 10.0
"""Seconds between progress lines if there is no terminal."""
FILE_SECONDS: Final = 30.0
"""How long a small file may take."""
END_SECONDS: Final = 5.0
_QUIET: Final = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"}
"""Without telemetry huggingface_hub does not ask the Hub first which agents there are."""
Progress = Callable[[int, int], None]
"""Takes the bytes that are there, and all of them."""


@click.command("pull")
@click.argument("repository", required=False, metavar="[REPO]")
@click.option("--revision", help="Branch, tag or commit of the repository.")
@manifest_option
@profile_option
def command(repository: str | None, revision: str | None, **flags: Any) -> None:
    """Download a model of the Hugging Face Hub, or all models in the manifest.

    After Ctrl-C or a broken connection, the same command continues where it stopped, even in the middle of a file.
    """
    if repository is None and revision is not None:
        raise click.UsageError("--revision says which one of a REPO; without it the manifest says")
    if repository is not None and not is_repository(repository):
        raise click.UsageError(f"{repository!r} is no repository of the Hugging Face Hub, which is called owner/name")
    wanted = [(repository, revision)] if repository else _named(source_of(Settings.read(**flags)))
    if not wanted:
        click.echo("the manifest names no repository of the Hugging Face Hub: there is nothing to download", err=True)
    failed = [name for name, version in wanted if not _pulled(name, version, alone=len(wanted) == 1)]
    if failed:
        raise CannotDownload(f"{len(failed)} of {len(wanted)} were not downloaded: {', '.join(failed)}")


def _pulled(name: str, revision: str | None, *, alone: bool) -> bool:
    """Download one and print its folder or the error; return True on success. Raise CannotDownload if it is `alone`."""
    try:
        with Bar(name) as bar:
            folder = pull(name, revision, bar.show)
    except KeyboardInterrupt:
        click.echo("stopped; what has come is kept, and the same command goes on from there", err=True)
        raise click.Abort from None
    except CannotDownload as error:
        if alone:
            raise
        click.echo(error, err=True)
        return False
    click.echo(folder)
    return True


def _named(source: ManifestSource) -> list[tuple[str, str | None]]:
    entries = read(source, needs_secrets=False).entries.values()
    here = [entry.options for entry in entries if not entry.options.is_remote]
    found = [each for options in here for each in options.repositories()]
    return list(dict.fromkeys(found))


class Bar:
    """How far a download is: a line that changes, or on no terminal a line now and then."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._first: int | None = None
        self._told_at = 0.0
        self._open = False

    def show(self, done: int, total: int) -> None:
        """So many bytes of so many are there."""
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._told_at < (0.1 if self._terminal else REPORT_SECONDS) and done < total:
            return
        self._told_at = now
        share = done / total if total else 1.0
        speed = (done - self._first) / max(now - self._began, 1e-3)
        text = f"{self._name}  {readable(done)} of {readable(total)} ({share:.0%})"
        if not self._terminal:
            click.echo(text, err=True)
            return
        filled = int(share * BAR)
        bar = "█" * filled + "░" * (BAR - filled)
        self._open = True
        line = f"{bar}  {text}  {readable(speed)}/s{_left(total - done, speed)}"
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be written over
        click.echo(f"\r\x1b[K{line[:width]}", nl=False, err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line as it is."""
        if self._open:
            click.echo(err=True)
        self._open = False


def _left(missing: int, speed: float) -> str:
    if missing <= 0 or speed <= 0:
        return ""
    minutes, seconds = divmod(int(missing / speed), 60)
    return f", {minutes}:{seconds:02d} left"


def pull(repository: str, revision: str | None, progress: Progress) -> Path:
    """Download what is missing of a repository, and return its folder in the cache. Raise CannotDownload.

    After an interruption, the next call resumes.
    """
    with _child(repository, *(("--revision", revision) if revision else ())) as lines:
        for line in lines:
            if "total" in line:
                progress(line["done"], line["total"])
            elif "folder" in line:
                return Path(line["folder"])
    raise AssertionError("a child without a last word raises")


def file_of(repository: str, name: str, revision: str | None = None) -> Path:
    """Return one small file of a repository. Raise CannotDownload, also if it takes too long."""
    arguments = (repository, "--file", name, *(("--revision", revision) if revision else ()))
    with _child(*arguments, seconds=FILE_SECONDS) as lines:
        for line in lines:
            return Path(line["path"])
    raise AssertionError("a child without a last word raises")


@contextmanager
def _child(*arguments: str, seconds: float | None = None) -> Iterator[Iterator[dict[str, Any]]]:
    """Start a child that ends with the block, and yield its messages. Reading them may raise CannotDownload."""
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
    """End the child, which may still be working: Ctrl-C reaches it, too, and the caller may need no more messages."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    process.terminate()
    try:
        process.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
