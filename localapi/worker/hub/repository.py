"""Models of the Hugging Face Hub: from a repository's name to a folder, or to one clear line about why not."""

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

ANSWER_SECONDS: Final = 10.0
"""How long the Hub may take to say that it is there."""
_REPORTS = 200
"""About how many reports there are of one download."""
_REPORT_SECONDS = 10
"""A slow one gives more of them: whoever watches must see that it goes on."""
_TELLS_BYTES = "tqdm_class" in inspect.signature(hf_hub_download).parameters
"""Whether this huggingface_hub counts bytes where we see it: since 1.0. Older ones count files."""


def located(path: str, revision: str | None, report: Report, *, patterns: Sequence[str]) -> Path:
    """The folder that an entry's path means: that folder, or the repository's, downloaded. Raises CannotLoad.

    The server makes folders' paths absolute, so what is absolute and not there is no repository.
    """
    if Path(path).is_dir():
        return Path(path)
    if Path(path).is_absolute():
        raise CannotLoad(f"The folder {path} does not exist any more. Bring it back, or change the entry's path.")
    return download(path, revision, report, patterns=patterns)


def anew(file: Path, path: str) -> str:
    """What to do about a damaged file of the model at an entry's path."""
    if Path(path).is_absolute():
        return "Copy or download it again"
    return f"Delete {file.resolve()} and load the model again: the file is downloaded anew"


def download(repository: str, revision: str | None, report: Report, *, patterns: Sequence[str]) -> Path:
    """The folder of a Hub repository's snapshot; downloads the files of these patterns that are not there yet.

    Raises CannotLoad.
    """
    report(Loading(f"downloading {repository}"))
    return snapshot(repository, revision, report, patterns=patterns, away=unreachable(repository, revision))


def snapshot(
    repository: str, revision: str | None, report: Report, *, patterns: Sequence[str], away: Exception | None
) -> Path:
    """As `download`, for whoever has asked whether the Hub is `unreachable`: then only what is here counts."""
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
    """Why the Hub does not answer for a repository; None where it does, also where it refuses.

    huggingface_hub's own first question has no time limit, and the system's search for an address has none anywhere.
    """
    try:
        within(ANSWER_SECONDS, lambda: HfApi().repo_info(repository, revision=revision, timeout=ANSWER_SECONDS))
    except HfHubHTTPError:
        return None  # the download is told so, too, and says what it means
    except Exception as error:  # of the HTTP library, whichever this huggingface_hub has
        return error
    return None


@contextmanager
def told(repository: str, revision: str | None) -> Iterator[None]:
    """Whatever goes wrong with a repository inside becomes a CannotLoad that says what to do."""
    name = f"{repository} (revision {revision})" if revision else repository
    try:
        yield
    except RevisionNotFoundError as error:
        raise CannotLoad(f"The Hugging Face repository {repository} has no revision {revision!r}.") from error
    except GatedRepoError as error:
        raise CannotLoad(
            f"The Hugging Face repository {name} is gated: accept its terms on https://huggingface.co/{repository} "
            "and log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise CannotLoad(
            f"There is no Hugging Face repository {name} that this machine may read. Check the name; log in with "
            "`hf auth login` where it is private."
        ) from error
    except LocalEntryNotFoundError as error:
        cause = first_line(error.__cause__ or error)
        there = "in part" if getattr(error, "snapshot_path", None) else "not"  # IncompleteSnapshotError, since 2.0
        raise CannotLoad(
            f"{name} is {there} on this machine and cannot be downloaded from Hugging Face ({cause}). Check the "
            "network and try again, or give the path of a folder."
        ) from error
    except CannotLoad:
        raise
    except Exception as error:  # a full disk, a proxy, a refused connection in the middle
        raise CannotLoad(f"Downloading {name} from Hugging Face failed: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """With what to do: about the disk, or about the network."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in NO_ROOM | NO_RIGHT):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError):
        return f"{advise(cause)}. Downloads go to {HF_HUB_CACHE}, and HF_HOME moves them"
    return f"{first_line(error)}. Check the network and try again; files that are whole are kept"


def _progress(phase: str, report: Report) -> type[Any]:
    """A progress bar's class that reports the bytes which are on the disk, or else the files, and draws nothing."""
    lock = threading.Lock()  # files come in several threads

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            # huggingface_hub counts bytes twice, from the network and to the disk, and files in a third bar.
            self._counts = str(options.get("desc", "")).startswith("Reconstructing")
            self._reported = 0
            self._reported_at = time.monotonic()
            super().__init__(*args, **{**options, "disable": True})

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
