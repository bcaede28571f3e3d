"""Read the text of a file, or explain why that is not possible."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from localapi.errors import ManifestError, Problem
from localapi.system.os_errors import advise

MAX_BYTES = 1024 * 1024

UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML does not allow (https://yaml.org/spec/1.2.2/#51-character-set)."""


@dataclass(frozen=True)
class Text:
    """Content of a file when it was read."""

    path: Path
    text: str = field(repr=False)
    sha256: str


def read_text(path: Path) -> Text:
    """Return a file's text. Raise ManifestError if it is not a text file of ordinary size."""
    try:
        if path.is_dir():
            raise _problem(path, "is a folder; give a YAML file")
        if path.exists() and not path.is_file():
            raise _problem(path, "is not a regular file, so its changes cannot be followed; give a YAML file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _problem(path, "does not exist; create it, or give another file") from None
    except OSError as error:
        error.filename = None  # the message begins with it
        raise _problem(path, f"cannot be read: {advise(error)}", passing=True) from None
    except ValueError as error:
        raise _problem(path, f"cannot be read: {error}") from None
    return text_of(path, data)


def text_of(path: Path, data: bytes) -> Text:
    """Return bytes of a file as text. Raise ManifestError as `read_text` does."""
    if len(data) > MAX_BYTES:
        raise _problem(path, f"is larger than {MAX_BYTES // 1024} KiB; is this the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", errors="replace")
        message = f"is not UTF-8 text: found the byte 0x{data[error.start]:02x}; save the file as UTF-8"
        raise _problem(path, message, before=before) from None
    if found := UNPRINTABLE.search(text):
        message = f"contains a control character (U+{ord(found[0]):04X}) that YAML does not allow; remove it"
        raise _problem(path, message, before=text[: found.start()])
    return Text(path, text, hashlib.sha256(data).hexdigest())


def _problem(path: Path, message: str, *, before: str | None = None, passing: bool = False) -> ManifestError:
    """Return an error with a single problem, at the end of the text `before`."""
    if before is None:
        return ManifestError([Problem(str(path), message, passing=passing)])
    lines = re.split(r"\r\n|\r|\n", before)
    return ManifestError([Problem(str(path), message, line=len(lines), column=len(lines[-1]) + 1)])
