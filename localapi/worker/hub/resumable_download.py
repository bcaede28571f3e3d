"""Files of a Hub repository, fetched into the Hub's cache so that what has come is still there after an interruption.

huggingface_hub throws away a file that is not complete, and leaves those that are. Here the bytes of each file go into
one beside its final place, and the next time the Hub is asked for the rest of them. The cache ends up as it would by
huggingface_hub's own hand, which then finds nothing left to fetch.
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import DryRunError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from localapi.system.byte_sizes import readable
from localapi.worker.model import CannotLoad, Report
from localapi.worker.protocol import Loading

AT_ONCE: Final = 4
"""Files that come at the same time."""
PIECE_BYTES: Final = 1024 * 1024
"""What is written at once, in place of ten times as much: less is lost, and a slow download is seen to go on."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
"""What the Hub calls a large file by; a small one is called by git's own digest."""


def fetch(repository: str, revision: str | None, report: Report, *, patterns: Sequence[str]) -> None:
    """Fetch the files of these patterns that the cache has not. Nothing happens where the Hub cannot be reached."""
    try:
        listed = snapshot_download(repository, revision=revision, allow_patterns=list(patterns), dry_run=True)
    except DryRunError:
        return  # huggingface_hub's own download says why
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
        pool.shutdown(wait=False, cancel_futures=True)  # after an error or Ctrl-C the others may wait for the network
    _sweep(blobs)


class Done:
    """Bytes that have come, of all files together."""

    def __init__(self, phase: str, report: Report, total: int) -> None:
        self.total = total
        self._phase, self._report = phase, report
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """More have come; fewer where a file begins anew."""
        with self._lock:
            self._bytes += count
            self._report(Loading(self._phase, self._bytes, max(self.total, self._bytes)))


def _refuse_a_full_disk(blobs: Path, missing: int) -> None:
    """Before anything comes: a full disk harms more than this download."""
    needed = missing - sum(part.stat().st_size for part in blobs.glob("*.part"))
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise CannotLoad(
            f"The disk is too full: {readable(needed)} are to be downloaded, and {readable(free)} are free in "
            f"{constants.HF_HUB_CACHE}. Make room, or name another folder in HF_HOME."
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
    # Not buffered: what is written is there for the next time, however this process ends.
    with part.open("ab", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                return  # another process fetches it
            raise
        if os.fstat(file.fileno()).st_nlink == 0:
            return  # another process has swept it away meanwhile; huggingface_hub's own download fetches it
        if blob.exists():  # whoever had the lock has fetched it, perhaps into the very file that is open here
            part.unlink(missing_ok=True)
            done.add(about.size or 0)
            return
        _complete(url, headers, file, about.size, done)
        _refuse_other_content(part, about.etag, name)
        part.replace(blob)


def _complete(url: str, headers: dict[str, Any], file: Any, size: int | None, done: Done) -> None:
    """Fetch what the file has not."""
    begun = os.fstat(file.fileno()).st_size
    if size is None or begun > size:
        file.truncate(0)
        begun = 0
    done.add(begun)
    http_get(url, file, resume_size=begun, headers=headers, expected_size=size, tqdm_class=_counter(done.add))


def _sweep(blobs: Path) -> None:
    """Delete what was begun and is no part of what is there now, such as of an old revision, unless it still comes."""
    for part in blobs.glob("*.part"):
        with contextlib.suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _refuse_other_content(part: Path, etag: str, name: str) -> None:
    if not _SHA256.fullmatch(etag):
        return
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != etag:
        part.unlink()
        raise CannotLoad(f"{name} came with other content than the Hub says, and was deleted: try again.")


def _counter(add: Callable[[int], None]) -> type[Any]:
    """A progress bar's class that passes on what comes, and draws nothing."""

    class Counter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            add(int(n or 0))
            return None

    return Counter
