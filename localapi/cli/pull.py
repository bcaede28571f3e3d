"""`localapi pull`: download models into the Hub's cache before they are requested."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from localapi.backends.model_path import is_repository
from localapi.cli.options import manifest_option, profile_option, source_of
from localapi.errors import CannotDownload
from localapi.manifest import read
from localapi.settings import Settings
from localapi.system.byte_sizes import readable

BAR: Final = 24
REPORT_SECONDS: Final = 10.0
"""Seconds between progress lines if there is no terminal."""
FILE_SECONDS: Final = 30.0
"""Time limit for a small file."""
END_SECONDS: Final = 5.0
_QUIET: Final = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"}
"""Environment in which huggingface_hub does not first ask the Hub which agents exist, which is part of its telemetry.
"""
Report = Callable[[int, int], None]
"""Function that is called with the bytes present and the total."""


@click.command("pull")
@click.argument("repository", required=False, metavar="[REPO]")
@click.option("--revision", help="Branch, tag or commit of the repository.")
@manifest_option
@profile_option
def command(repository: str | None, revision: str | None, **flags: Any) -> None:
    """Download a model from the Hugging Face Hub, or all models in the manifest.

    After Ctrl-C or a lost connection, the same command resumes where it stopped, even within a file.
    """
    if repository is None and revision is not None:
        raise click.UsageError("--revision needs REPO; without REPO, revisions come from the manifest")
    if repository is not None and not is_repository(repository):
        raise click.UsageError(f"{repository!r} is not a Hugging Face repository; the form is owner/name")
    if repository is not None:
        wanted = [(repository, revision)]
    else:
        entries = read(source_of(Settings.read(**flags)), needs_secrets=False).entries.values()
        here = [entry.options for entry in entries if not entry.options.is_remote]
        wanted = list(dict.fromkeys(each for options in here for each in options.repositories()))
    if not wanted:
        click.echo("the manifest names no Hugging Face repository; nothing to download", err=True)
    failed = [name for name, version in wanted if not _pulled(name, version, alone=len(wanted) == 1)]
    if failed:
        raise CannotDownload(f"{len(failed)} of {len(wanted)} failed to download: {', '.join(failed)}")


def _pulled(name: str, revision: str | None, *, alone: bool) -> bool:
    """Download one repository, and print its folder or the error; return True on success.

    Raise CannotDownload if it is `alone`.
    """
    try:
        with Bar(name) as bar:
            folder = pull(name, revision, bar.show)
    except KeyboardInterrupt:
        click.echo("stopped; the same command resumes the download", err=True)
        raise click.Abort from None
    except CannotDownload as error:
        if alone:
            raise
        click.echo(error, err=True)
        return False
    click.echo(folder)
    return True


class Bar:
    """Progress of a download: a bar or, without a terminal, a line every few seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told_at = 0.0
        console = Console(stderr=True)
        columns = (BarColumn(BAR), TextColumn("{task.description}", markup=False), DownloadColumn())
        self._bar = Progress(
            *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self._task = self._bar.add_task(name, total=None)

    def show(self, done: int, total: int) -> None:
        """Show that `done` bytes of `total` are present."""
        self._bar.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if self._bar.disable and (now - self._told_at >= REPORT_SECONDS or done >= total):
            self._told_at = now
            share = done / total if total else 1.0
            click.echo(f"{self._name}  {readable(done)} of {readable(total)} ({share:.0%})", err=True)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


def pull(repository: str, revision: str | None, report: Report) -> Path:
    """Download the missing files of a repository, and return its folder in the cache. Raise CannotDownload.

    After an interruption, the next call resumes.
    """
    with _child(repository, *(("--revision", revision) if revision else ())) as lines:
        for line in lines:
            if "total" in line:
                report(line["done"], line["total"])
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


def found_on_hub(text: str, limit: int) -> list[dict[str, Any]]:
    """Return the models that match a text, as `localapi.worker.hub.search` describes them. Raise CannotDownload."""
    found: list[dict[str, Any]] = []
    # "=" keeps a text that begins with a dash from being parsed as an option.
    with _child(f"--text={text}", f"--limit={limit}", seconds=FILE_SECONDS, module="search") as lines:
        for line in lines:
            if "end" in line:
                return found
            found.append(line)
    raise AssertionError("a child without a last word raises")


@contextmanager
def _child(
    repository: str, *arguments: str, seconds: float | None = None, module: str = "pull"
) -> Iterator[Iterator[dict[str, Any]]]:
    """Start a child process that ends with the block, and yield its messages. Reading them may raise CannotDownload."""
    command = [sys.executable, "-P", "-m", f"localapi.worker.hub.{module}", repository, *arguments]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(  # noqa: S603  # this Python, with our own module
            command, env={**os.environ, **_QUIET}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            text=True, errors="replace",
        ) as process,
    ):  # fmt: skip
        timer = threading.Timer(seconds or 0, process.kill)
        timer.daemon = True
        if seconds is not None:
            timer.start()
        try:
            yield _messages(process, repository, errors, limited=seconds is not None)
        finally:
            timer.cancel()
            _end(process)


def _messages(
    process: subprocess.Popen[str], repository: str, errors: TextIO, *, limited: bool
) -> Iterator[dict[str, Any]]:
    """Yield the messages of a child process. Raise CannotDownload with its error, or with its last line of output."""
    assert process.stdout is not None  # noqa: S101  # it was started with a pipe
    for text in process.stdout:
        line: dict[str, Any] = json.loads(text)
        if "error" in line:
            raise CannotDownload(line["error"])
        yield line
    status = process.wait()
    if limited and status == -signal.SIGKILL:
        raise CannotDownload(f"Hugging Face did not respond in time for {repository}. Check the network.")
    errors.seek(0)
    said = [line.strip() for line in errors if line.strip()] or [f"exit status {status}"]
    raise CannotDownload(f"{repository} could not be downloaded: {said[-1]}")


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
