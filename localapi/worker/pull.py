"""A download for the command line: `python -P -m localapi.worker.pull REPO [--revision R] [--file NAME]`.

Says what happens in lines of JSON: {"done", "total"} in bytes, at the end {"folder"} or {"path"}, or else {"error"} in
a sentence. With --file that file alone is fetched.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Final

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from localapi.worker.engine import CannotLoad, Report
from localapi.worker.hub import download, told
from localapi.worker.protocol import Loading
from localapi.worker.resuming import fetch

PATTERNS: Final = (
    *("*.json", "*.jsonl", "*.safetensors", "*.npz", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.yaml", "*.wav"),
    "*.py",
)
"""Whatever one of the engines asks for when it loads; mlx-lm asks for code, too, which is not run."""
INTERRUPTED: Final = 130


def main() -> None:
    """Exit status 0 where all is there, 1 where it is not, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="localapi.worker.pull", description="For the command line's use only.")
    parser.add_argument("repository")
    parser.add_argument("--revision")
    parser.add_argument("--file")
    asked = parser.parse_args()
    try:
        if asked.file:
            _say(path=_file(asked.repository, asked.file, asked.revision))
        else:
            _say(folder=_folder(asked.repository, asked.revision))
        status = 0
    except CannotLoad as error:
        _say(error=str(error))
        status = 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    os._exit(status)  # threads may wait for the network


def _folder(repository: str, revision: str | None) -> str:
    with told(repository, revision):
        fetch(repository, revision, _report(), patterns=PATTERNS)
    return str(download(repository, revision, lambda _: None, patterns=PATTERNS))


def _file(repository: str, name: str, revision: str | None) -> str:
    with told(repository, revision):
        try:
            _refuse_without_a_network(hf_hub_url(repository, name, revision=revision))
            return str(hf_hub_download(repository, name, revision=revision))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            raise CannotLoad(f"The Hugging Face repository {repository} has no file {name}.") from None


def _refuse_without_a_network(url: str) -> None:
    """Ask once: the download itself would ask for half a minute before it says that there is no network."""
    try:
        get_hf_file_metadata(url, headers=build_hf_headers())
    except HfHubHTTPError:
        raise
    except Exception as error:  # of the HTTP library, whichever this huggingface_hub has
        raise LocalEntryNotFoundError(str(error)) from error


def _report() -> Report:
    def report(loading: Loading) -> None:
        _say(done=loading.done, total=loading.total)

    return report


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201  # what the command line reads


if __name__ == "__main__":
    main()
