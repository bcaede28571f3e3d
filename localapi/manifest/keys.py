"""API keys: which models each key may use, and where its secret is. Only a digest of a secret is kept.

Digests are salted with a random number of this process, so they are useless outside it. No message of this module
repeats a value below `api_keys`, because it may be a secret by mistake.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from localapi.backends.option_types import StrictModel
from localapi.backends.options import Name
from localapi.backends.secret import DOTENV, LONGEST, NoSecret, read_file, read_variable

SHORTEST: Final = 16
_OF_THIS_PROCESS: Final = secrets.token_bytes(32)
_WHERE: Final = "{env: NAME} or {file: path}, which say where the secret is; do not write a secret into the manifest"


class KeyOptions(StrictModel):
    """One key as written in the manifest."""

    env: Annotated[
        str | None,
        Field(description="Variable in the environment or .env that holds the secret.", examples=["LAPTOP_KEY"]),
    ] = None
    file: Annotated[
        str | None,
        Field(
            description="File that contains only the secret; relative to the manifest's folder.",
            examples=["./laptop.key"],
        ),
    ] = None
    models: Annotated[
        list[Name] | None,
        Field(
            description="Ids and aliases of the models that the key may use. Default: all models.",
            examples=[["local-chat"]],
        ),
    ] = None
    admin: Annotated[bool, Field(description="Also allow /status, /metrics and /admin.")] = False

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
    """A key as the server uses it."""

    name: str
    digest: bytes = field(repr=False)
    models: frozenset[str] | None = None
    """Ids of the entries that the key may use; None for all."""
    admin: bool = False
    of_peers: frozenset[str] = field(default=frozenset(), compare=False)
    """Ids of peers' models among these, as far as they are known."""

    def opens(self, entry_id: str) -> bool:
        """Return whether requests with this key may use the entry."""
        return self.models is None or entry_id in self.models or entry_id in self.of_peers


def digest(secret: str) -> bytes:
    """Return a digest that is equal for equal secrets, in this process only."""
    return hmac.digest(_OF_THIS_PROCESS, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)


def holder(keys: tuple[Key, ...], presented: str) -> Key | None:
    """Return the key with this secret, or None. The time does not depend on which key it is."""
    shown, found = digest(presented), None
    for key in keys:
        found = key if hmac.compare_digest(shown, key.digest) else found
    return found


def secret_of(options: KeyOptions, folder: Path) -> str:
    """Read the secret. Blocks on files. Raise NoSecret if it cannot be read or is unsuitable."""
    what = "the variable" if options.env is not None else "the file"
    found = read_variable(options.env) if options.env is not None else read_file(folder / str(options.file))
    secret = found.strip()
    if not secret:
        raise NoSecret(f"{what} is empty; put a secret of at least {SHORTEST} characters there")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise NoSecret(f"{what} should consist of printable ASCII characters without spaces")
    if len(secret) < SHORTEST:
        raise NoSecret(
            f"the secret in {what} has {len(secret)} characters and should have at least {SHORTEST}; "
            f"generate one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    if len(secret) > LONGEST:
        raise NoSecret(f"the secret in {what} should have at most {LONGEST} characters")
    return secret


def files_of(options: KeyOptions, folder: Path) -> Iterator[Path]:
    """Yield the files to watch for changes of the secret."""
    yield DOTENV if options.env is not None else folder / str(options.file)
