"""Secrets that the manifest names and does not hold: in a variable, or in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

LONGEST: Final = 1000
DOTENV: Final = Path(".env")


class NoSecret(ValueError):
    """A secret cannot be read. The message gives the reason, never the value found."""


class SecretElsewhere(NoSecret):
    """This process has no access to a secret; the server may have."""


def read_variable(name: str) -> str:
    """Return a variable; the environment takes precedence over `.env`. Blocks. Raise NoSecret."""
    try:
        value = os.environ.get(name) or dotenv_values(DOTENV, interpolate=False).get(name)
    except (OSError, ValueError) as error:  # also for invalid UTF-8
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8 text"
        raise NoSecret(f".env cannot be read: {reason}") from None
    if value is None:
        raise SecretElsewhere("the variable is not set in the environment or in .env; set it before the server starts")
    return value


def read_file(path: Path) -> str:
    """Return the content of a file. Blocks. Raise NoSecret."""
    if os.path.exists(path) and not os.path.isfile(path):  # where Path.exists raises, open tells why
        raise NoSecret("this is not a regular file")
    try:
        with path.open("rb") as file:
            return file.read(LONGEST * 2).decode()
    except FileNotFoundError:
        raise NoSecret("the file does not exist; create it, readable only by you") from None
    except UnicodeDecodeError:
        raise NoSecret("the file is not UTF-8 text") from None
    except PermissionError:
        raise SecretElsewhere("the file cannot be read: Permission denied") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not a valid path"
        raise NoSecret(f"the file cannot be read: {reason}") from None
