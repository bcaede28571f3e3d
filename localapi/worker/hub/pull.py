"""Download for the command line: `python -P -m localapi.worker.hub.pull REPO [--revision R] [--file NAME]`.

Prints lines of JSON: {"done", "total"} in bytes; at the end {"folder"} or {"path"}, or {"error"} with a sentence. With
--file, only that file is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Final

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from localapi.worker.hub.repository import DATA_FILES, snapshot, told, unreachable
from localapi.worker.hub.resumable_download import fetch
from localapi.worker.model import CannotLoad

PATTERNS: Final = (*DATA_FILES, "*.wav", "*.py")
"""Files that the backends request when they load. mlx-lm also requests code, which is never run."""
INTERRUPTED: Final = 130


def main() -> None:
    """Download, and exit with status 0 if that succeeded, 1 if it failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="localapi.worker.hub.pull", description="For internal use by the command line."
    )
    parser.add_argument("repository")
    parser.add_argument("--revision")
    parser.add_argument("--file")
    asked = parser.parse_args()
    try:
        pull(asked.repository, asked.revision, asked.file)
        status = 0
    except CannotLoad as error:
        _say(error=str(error))
        status = 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    os._exit(status)  # threads may wait for the network


def pull(repository: str, revision: str | None, name: str | None) -> None:
    """Download the file with this name, or all of `PATTERNS`. Raise CannotLoad."""
    away = unreachable(repository, revision)
    with told(repository, revision):
        if name:
            try:
                _say(path=hf_hub_download(repository, name, revision=revision, local_files_only=away is not None))
            except LocalEntryNotFoundError as error:
                raise error from away or error.__cause__
            except EntryNotFoundError:
                raise CannotLoad(f"The Hugging Face repository {repository} has no file {name}.") from None
            return
        if away is None:
            fetch(repository, revision, lambda loading: _say(done=loading.done, total=loading.total), patterns=PATTERNS)
    _say(folder=str(snapshot(repository, revision, lambda _: None, patterns=PATTERNS, away=away)))


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201  # what the command line reads


if __name__ == "__main__":
    main()
