"""Models of the Hugging Face Hub: find or download a repository's folder, or raise one clear error."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from localapi.system.os_errors import NO_RIGHT, NO_ROOM, advise
from localapi.system.threads import within
from localapi.worker.model import CannotLoad, Report, first_line
from localapi.worker.protocol import Loading

DEMO: Final = "demo"
"""Server's name for the included model if the worker is on another machine, where the package is in another place."""
DEMO_FOLDER: Final = Path(__file__).parent.parent.parent / "demo" / "model"
DATA_FILES: Final = (
    *("*.json", "*.jsonl", "*.safetensors", "*.npz", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.yaml"),
)
"""Files that are downloaded for an audio model: neither code nor pickles, which would be executed."""
ANSWER_SECONDS: Final = 10.0
"""Time to wait for the Hub's first response."""
_REPORTS = 200
"""Approximate number of progress reports for one download."""
_REPORT_SECONDS = 10
"""Maximum interval between reports, so that the progress of a slow download is visible."""
_TELLS_BYTES = "tqdm_class" in inspect.signature(hf_hub_download).parameters
"""True if this huggingface_hub reports bytes (since 1.0). Older versions count files."""


def located(path: str, revision: str | None, report: Report, *, patterns: Sequence[str]) -> Path:
    """Return the folder of an entry's path: the path itself, or the repository's downloaded files. Raise CannotLoad.

    The server makes the paths of folders absolute, so an absolute path that does not exist is not a repository.
    """
    if path == DEMO:
        return DEMO_FOLDER
    if Path(path).is_dir():
        return Path(path)
    if Path(path).is_absolute():
        raise CannotLoad(f"The folder {path} does not exist. Restore it, or change the entry's path.")
    return download(path, revision, report, patterns=patterns)


def anew(file: Path, path: str) -> str:
    """Return what to do about a damaged file of the model at an entry's path."""
    if Path(path).is_absolute():
        return "Copy or download it again"
    return f"Delete {file.resolve()} and load the model again to download the file"


def download(repository: str, revision: str | None, report: Report, *, patterns: Sequence[str]) -> Path:
    """Return the folder of a Hub repository's snapshot, after downloading missing files of these patterns.

    Raise CannotLoad.
    """
    report(Loading(f"downloading {repository}"))
    return snapshot(repository, revision, report, patterns=patterns, away=unreachable(repository, revision))


def snapshot(
    repository: str, revision: str | None, report: Report, *, patterns: Sequence[str], away: Exception | None
) -> Path:
    """Return the snapshot as `download` does.

    If `away`, the Hub is unreachable, so only files on this machine count.
    """
    with told(repository, revision):
        try:
            return Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(patterns),
                    local_files_only=away is not None,
                    tqdm_class=_progress(f"downloading {repository}", report),
                )
            )
        except LocalEntryNotFoundError as error:
            raise error from away or error.__cause__


def unreachable(repository: str, revision: str | None) -> Exception | None:
    """Return why the Hub does not respond for a repository; None if it does, even with a refusal.

    huggingface_hub's own first request has no time limit, and the system's name resolution never has one.
    """
    try:
        within(ANSWER_SECONDS, lambda: HfApi().repo_info(repository, revision=revision, timeout=ANSWER_SECONDS))
    except HfHubHTTPError:
        return None  # the download gets the same response and explains it
    except Exception as error:  # of whichever HTTP library this huggingface_hub uses
        return error
    return None


@contextmanager
def told(repository: str, revision: str | None) -> Iterator[None]:
    """Turn any error about a repository into a CannotLoad that says what to do."""
    name = f"{repository} (revision {revision})" if revision else repository
    try:
        yield
    except RevisionNotFoundError as error:
        raise CannotLoad(f"The Hugging Face repository {repository} has no revision {revision!r}.") from error
    except GatedRepoError as error:
        raise CannotLoad(
            f"The Hugging Face repository {name} is gated. Accept its terms at https://huggingface.co/{repository} "
            "and log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise CannotLoad(
            f"There is no Hugging Face repository {name}, or it is private. Check the name, or log in with "
            "`hf auth login`."
        ) from error
    except LocalEntryNotFoundError as error:
        cause = first_line(error.__cause__ or error)
        state = "incomplete" if getattr(error, "snapshot_path", None) else "not"  # IncompleteSnapshotError, since 2.0
        raise CannotLoad(
            f"{name} is {state} on this machine and cannot be downloaded from Hugging Face ({cause}). Check the "
            "network and try again, or use the path of a folder."
        ) from error
    except CannotLoad:
        raise
    except Exception as error:  # a full disk, a proxy, a broken connection
        raise CannotLoad(f"Downloading {name} from Hugging Face failed: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """Return the cause and what to do, about the disk or about the network."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in NO_ROOM | NO_RIGHT):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError):
        return f"{advise(cause)}. Downloads are stored in {HF_HUB_CACHE}; HF_HOME sets another folder"
    return f"{first_line(error)}. Check the network and try again; complete files are kept"


class SilentBar(tqdm):  # type: ignore[misc]
    """A progress bar that draws nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})


def _progress(phase: str, report: Report) -> type[Any]:
    """Return a progress bar class that reports the bytes written to disk, or the number of files."""
    lock = threading.Lock()  # several threads download files

    class Bar(SilentBar):
        def __init__(self, *args: Any, **options: Any) -> None:
            # huggingface_hub counts bytes twice, received and written, and files in a third bar.
            self._counts = str(options.get("desc", "")).startswith("Reconstructing")
            self._reported = 0
            self._reported_at = time.monotonic()
            super().__init__(*args, **options)

        def update(self, n: float | None = 1) -> bool | None:
            with lock:
                self.n += n or 0
                done, total = int(self.n), int(self.total or 0)
                much = (done - self._reported) * _REPORTS >= total
                if self._counts and (much or time.monotonic() - self._reported_at >= _REPORT_SECONDS):
                    self._reported, self._reported_at = done, time.monotonic()
                    report(Loading(phase, done, max(done, total)))
                elif not _TELLS_BYTES:
                    report(Loading(f"{phase}: {done} of {total} files"))
            return None

    return Bar
