"""API keys: what each opens, and where its secret is. A secret itself stays outside: what is kept of it is a digest.

A digest is made with a number that this process chose, so it tells nothing outside of it. No message of this module
repeats what the manifest says below `api_keys`: somebody may have put a secret there.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from localapi.backends.options import Name

SHORTEST: Final = 16
LONGEST: Final = 1000
DOTENV: Final = Path(".env")
_OF_THIS_PROCESS: Final = secrets.token_bytes(32)
_WHERE: Final = (
    "{env: NAME} or {file: path}, which say where the secret is; it does not belong into the manifest itself"
)


class KeyOptions(BaseModel):
    """One key as the manifest writes it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    env: Annotated[
        str | None,
        Field(description="The variable of the environment or of .env that holds it.", examples=["LAPTOP_KEY"]),
    ] = None
    file: Annotated[
        str | None,
        Field(
            description="The file that holds it and nothing else, a path from the manifest's folder.",
            examples=["./laptop.key"],
        ),
    ] = None
    models: Annotated[
        list[Name] | None,
        Field(
            description="Ids and aliases of the models that it opens; all of them, if left out.",
            examples=[["local-chat"]],
        ),
    ] = None
    admin: Annotated[bool, Field(description="Whether it also opens /status, /metrics and /admin.")] = False

    @model_validator(mode="before")
    @classmethod
    def _is_no_secret(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError(f"should be {_WHERE}")  # noqa: TRY004  # pydantic takes ValueError
        if (value.get("env") is None) == (value.get("file") is None):
            raise ValueError(f"should be either {_WHERE}")
        return value

    @field_validator("env")
    @classmethod
    def _is_a_variable(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isidentifier()):
            raise ValueError("should be the name of a variable (letters, digits and _), not the secret itself")
        return value


@dataclass(frozen=True)
class Key:
    """One key as the server knows it."""

    name: str
    digest: bytes = field(repr=False)
    models: frozenset[str] | None = None
    """The ids of the entries that it opens; None: all."""
    admin: bool = False

    def opens(self, entry_id: str) -> bool:
        """Whether requests with this key may use the entry."""
        return self.models is None or entry_id in self.models


class NoSecret(ValueError):
    """A key's secret cannot be had; the message says why, and not what was found."""


class SecretElsewhere(NoSecret):
    """Whoever reads now does not have it; the server may."""


def digest(secret: str) -> bytes:
    """Equal for equal secrets, in this process only."""
    return hmac.digest(_OF_THIS_PROCESS, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)


def holder(keys: tuple[Key, ...], presented: str) -> Key | None:
    """The key whose secret this is. It takes as long for one key as for another, and for none."""
    shown, found = digest(presented), None
    for key in keys:
        found = key if hmac.compare_digest(shown, key.digest) else found
    return found


def secret_of(options: KeyOptions, folder: Path) -> str:
    """The secret, from where the options say. Blocks on files. Raises NoSecret."""
    what = "the variable" if options.env is not None else "the file"
    found = _variable(options.env) if options.env is not None else _content(folder / str(options.file))
    secret = found.strip()
    if not secret:
        raise NoSecret(f"{what} is empty; put a secret of at least {SHORTEST} characters there")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise NoSecret(f"{what} should hold one word of printable ASCII characters, as a header carries it")
    if len(secret) < SHORTEST:
        raise NoSecret(
            f"the secret in {what} has {len(secret)} characters, and fewer than {SHORTEST} can be guessed; "
            f"make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    if len(secret) > LONGEST:
        raise NoSecret(f"the secret in {what} has more than {LONGEST} characters")
    return secret


def files_of(options: KeyOptions, folder: Path) -> Iterator[Path]:
    """What to watch for changes of the secret."""
    yield DOTENV if options.env is not None else folder / str(options.file)


def _variable(name: str) -> str:
    """The environment wins over `.env`, as everywhere."""
    try:
        value = os.environ.get(name) or dotenv_values(DOTENV, interpolate=False).get(name)
    except (OSError, ValueError) as error:  # also what is no UTF-8
        reason = (error.strerror if isinstance(error, OSError) else None) or "it holds no UTF-8 text"
        raise NoSecret(f".env cannot be read: {reason}") from None
    if value is None:
        raise SecretElsewhere(
            "there is no such variable in the environment or in .env; set it before the server starts"
        )
    return value


def _content(path: Path) -> str:
    if os.path.exists(path) and not os.path.isfile(path):  # where Path.exists raises, open tells why
        raise NoSecret("this is no regular file")
    try:
        with path.open("rb") as file:
            return file.read(LONGEST * 2).decode()
    except FileNotFoundError:
        raise NoSecret("there is no such file; create it, readable for you only") from None
    except UnicodeDecodeError:
        raise NoSecret("the file holds no text") from None
    except PermissionError:
        raise SecretElsewhere("the file cannot be read: Permission denied") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no path"
        raise NoSecret(f"the file cannot be read: {reason}") from None
