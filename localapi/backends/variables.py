"""The option `env`: environment variables for the process of one entry, with or without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from localapi.backends.options import EntryOptions, FolderOf, Identity
from localapi.backends.secret import NoSecret, SecretPlace, located_place, stamp_of
from localapi.errors import LoadFailed
from localapi.system.threads import aside

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_names(variables: dict[str, Any]) -> dict[str, Any]:
    """Return the variables. Raise ValueError if a name or value is not possible."""
    for name, value in variables.items():
        if not _NAME.fullmatch(name):
            raise ValueError("should have variable names of letters, digits and _")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("should have values without null characters")
    return variables


def number_as_text(value: object) -> object:
    """Return a number as text, as written on a command line."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Variables:
    """Variables with their values."""

    plain: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables whose values must not appear in messages."""

    @property
    def all(self) -> dict[str, str]:
        """All variables."""
        return {**self.plain, **self.secret}


NO_VARIABLES: Final = Variables()
NOT_FOR_ENGINES: Final = frozenset({"env", "env_stamp", "place", "cluster"})
"""Options in an entry's identity that are for its process, not for the engine."""


class WithVariables(EntryOptions):
    """Options of entries with their own process; they precede those of the kind in the order of base classes."""

    env: Annotated[
        dict[str, Annotated[str, BeforeValidator(number_as_text)] | SecretPlace],
        AfterValidator(check_names),
        Field(
            description="Environment variables for the process; values may name secrets: {env: NAME}, {file: path}.",
            examples=[{"OMP_NUM_THREADS": "4"}],
            repr=False,
        ),
    ] = {}

    def located_variables(self, folder_of: FolderOf) -> dict[str, Any]:
        """Return the option with absolute paths. Raise PathProblem."""
        located = dict(self.env)
        for name, value in self.env.items():
            if isinstance(value, SecretPlace):
                located[name] = located_place(("env", name), value, folder_of)
        return {"env": located}

    def identity(self) -> Identity:
        identity = super().identity()
        stamp = stamp_of(self._secret_files())
        return Identity(identity.backend, {**identity.options, "env_stamp": stamp}) if stamp else identity

    def files(self) -> tuple[Path, ...]:
        return (*super().files(), *self._secret_files())

    def _secret_files(self) -> list[Path]:
        places = [value for value in self.env.values() if isinstance(value, SecretPlace)]
        return [Path(place.file) for place in places if place.file is not None]

    async def variables(self) -> Variables:
        """Return the variables, with secrets read. Raise LoadFailed if one cannot be read."""
        return await aside(self._read)

    def _read(self) -> Variables:
        plain: dict[str, str] = {}
        secret: dict[str, str] = {}
        for name, value in self.env.items():
            if isinstance(value, str):
                plain[name] = value
                continue
            try:
                secret[name] = value.read()
            except NoSecret as error:
                raise LoadFailed(f"`env.{name}` cannot be read: {error}.") from None
        return Variables(plain, secret)
