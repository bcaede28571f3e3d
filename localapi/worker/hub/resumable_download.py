"""Download a Hub repository's files into the Hub's cache so that an interrupted download can be resumed.

huggingface_hub deletes incomplete files and keeps complete ones. Here the bytes of each file are written beside its
final place, and the next download requests the rest from the Hub. The cache ends up as huggingface_hub would leave it,
so that it then finds nothing left to download.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import DryRunError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from localapi.system.byte_sizes import readable
from localapi.worker.hub.repository import SilentBar
from localapi.worker.model import CannotLoad, Report
from localapi.worker.protocol import Loading

AT_ONCE: Final = 4
"""Files that are downloaded at the same time."""
PIECE_BYTES: Final = 1024 * 1024
"""Bytes written at once, a tenth of the usual: less is lost, and slow downloads show progress."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
"""The Hub's name of a large file's content. Small files have git's own digest."""


def fetch(repository: str, revision: str | None, report: Report, *, patterns: Sequence[str]) -> None:
    """Download the files of these patterns that the cache lacks. Do nothing if the Hub cannot be reached."""
    try:
        listed = snapshot_download(repository, revision=revision, allow_patterns=list(patterns), dry_run=True)
    except DryRunError:
        return  # huggingface_hub's own download explains the reason
    constants.DOWNLOAD_CHUNK_SIZE = PIECE_BYTES
    done = Done(f"downloading {repository}", report, sum(file.file_size or 0 for file in listed))
    missing = [file for file in listed if file.will_download]
    done.add(done.total - sum(file.file_size or 0 for file in missing))
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    _refuse_a_full_disk(blobs, sum(file.file_size or 0 for file in missing))
    pool = ThreadPoolExecutor(AT_ONCE)
    fetched = [pool.submit(_fetch, repository, file.commit_hash, file.filename, blobs, done) for file in missing]
    try:
        for each in fetched:
            each.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # other files may still wait for the network
    # No download needs the incomplete files that are left, such as those of an old revision.
    for part in blobs.glob("*.part"):
        with contextlib.suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


class Done:
    """Bytes received, of all files together."""

    def __init__(self, phase: str, report: Report, total: int) -> None:
        self.total = total
        self._phase, self._report = phase, report
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count and report more bytes; a negative number if a file starts again."""
        with self._lock:
            self._bytes += count
            self._report(Loading(self._phase, self._bytes, max(self.total, self._bytes)))


def _refuse_a_full_disk(blobs: Path, missing: int) -> None:
    """Raise CannotLoad before downloading if the disk has no room: a full disk harms other programs too."""
    needed = missing - sum(part.stat().st_size for part in blobs.glob("*.part"))
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise CannotLoad(
            f"Not enough disk space: the download needs {readable(needed)}, and {readable(free)} are free in "
            f"{constants.HF_HUB_CACHE}. Free some space, or set another folder with HF_HOME."
        )


def _fetch(repository: str, commit: str, name: str, blobs: Path, done: Done) -> None:
    url = hf_hub_url(repository, name, revision=commit)
    headers = build_hf_headers()
    about = get_hf_file_metadata(url, headers=headers)
    assert about.etag is not None  # noqa: S101  # the Hub names every file by its content
    blob = blobs / about.etag
    if blob.exists():
        done.add(about.size or 0)
        return
    part = blobs / f"{about.etag}.part"
    # Not buffered, so that everything received is on disk however this process ends.
    with part.open("ab", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                return  # another process downloads it
            raise
        if os.fstat(file.fileno()).st_nlink == 0:
            return  # another process has deleted it meanwhile; huggingface_hub's own download gets it
        if blob.exists():  # the previous holder of the lock has downloaded it, perhaps into the file that is open here
            part.unlink(missing_ok=True)
            done.add(about.size or 0)
            return
        begun = os.fstat(file.fileno()).st_size
        if about.size is None or begun > about.size:
            file.truncate(0)
            begun = 0
        done.add(begun)

        class Counter(SilentBar):
            def update(self, n: float | None = 1) -> bool | None:
                done.add(int(n or 0))
                return None

        http_get(url, file, resume_size=begun, headers=headers, expected_size=about.size, tqdm_class=Counter)
        _refuse_other_content(part, about.etag, name)
        part.replace(blob)


def _refuse_other_content(part: Path, etag: str, name: str) -> None:
    if not _SHA256.fullmatch(etag):
        return
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != etag:
        part.unlink()
        raise CannotLoad(f"{name} was damaged in the download and has been deleted. Try again.")
