"""Secrets that the manifest refers to without containing them: in a variable, or in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

from dotenv import dotenv_values
from pydantic import BaseModel, Field, model_validator

from localapi.backends.option_types import StrictModel
from localapi.backends.options import FolderOf
from localapi.backends.speech import file_at

LONGEST: Final = 1000
DOTENV: Final = Path(".env")
_WHERE: Final = "{env: NAME} or {file: path}, which say where the secret is; do not write a secret into the manifest"


class NoSecret(ValueError):
    """A secret cannot be read. The message gives the reason, never the value found."""


class SecretElsewhere(NoSecret):
    """This process has no access to a secret; the server may have it."""


def read_variable(name: str) -> str:
    """Return a variable; the environment takes precedence over `.env`. Blocks. Raise NoSecret."""
    value = os.environ.get(name) or read_dotenv().get(name)
    if value is None:
        raise SecretElsewhere("the variable is not set in the environment or in .env; set it before the server starts")
    return value


def read_dotenv() -> Mapping[str, str | None]:
    """Return the variables of `.env`. Blocks. Raise NoSecret if it cannot be read."""
    try:
        return dotenv_values(DOTENV, interpolate=False)
    except (OSError, ValueError) as error:  # also for invalid UTF-8
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8 text"
        raise NoSecret(f".env cannot be read: {reason}") from None


def read_file(path: Path) -> str:
    """Return the content of a file. Blocks. Raise NoSecret."""
    if os.path.exists(path) and not os.path.isfile(path):  # open gives the reason in cases in which Path.exists raises
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


class SecretPlace(StrictModel):
    """Place of a secret: a variable, a file, or a command."""

    env: Annotated[
        str | None,
        Field(description="Variable in the environment or .env that holds the secret.", examples=["CLOUD_KEY"]),
    ] = None
    file: Annotated[
        str | None,
        Field(
            description="File that contains only the secret; relative to the manifest's folder.",
            examples=["./cloud.key"],
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _is_no_secret(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError(f"should be {_WHERE}")  # noqa: TRY004  # pydantic takes ValueError
        if set(value) - {"env", "file"} or (value.get("env") is None) == (value.get("file") is None):
            raise ValueError(f"should be either {_WHERE}")
        name = value.get("env")
        if isinstance(name, str) and not (name.isascii() and name.isidentifier()):
            raise ValueError("should be the name of a variable (letters, digits and _), not the secret itself")
        return value

    def read(self) -> str:
        """Return the secret. Blocks. Raise NoSecret."""
        found = read_variable(self.env) if self.env is not None else read_file(Path(str(self.file)))
        secret = found.strip()
        if not secret or not (secret.isascii() and secret.isprintable()):
            raise NoSecret("it should consist of printable ASCII characters")
        return secret


def secret_variables(options: BaseModel) -> Iterator[str]:
    """Yield the variables that contain secrets of options."""
    for name in type(options).model_fields:
        value = getattr(options, name)
        for each in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(each, SecretPlace) and each.env is not None:
                yield each.env


def located_place(keys: tuple[str, ...], place: SecretPlace, folder_of: FolderOf) -> SecretPlace:
    """Return a place with an absolute path; `keys` lead to it in the entry. Raise PathProblem if there is no file."""
    if place.file is None:
        return place
    return place.model_copy(update={"file": str(file_at((*keys, "file"), place.file, folder_of))})


def stamp_of(files: Iterable[Path]) -> list[int]:
    """Return numbers that change when one of the files changes. Blocks."""
    found: list[int] = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            found.append(0)
        else:
            found += [state.st_size, state.st_mtime_ns]
    return found
