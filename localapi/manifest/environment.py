"""The environment (and `.env`) as a layer over the files: its variables, and the values that they set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, create_model, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from localapi.errors import ManifestError, Problem, readable, shown
from localapi.kinds import KINDS, Kind, Variables
from localapi.manifest.origin import Member, Node, Origin, Scalar, Table


class _Environment(BaseSettings):
    """Variables that do not belong to a kind: echo mode."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    echo_mode: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, values: Mapping[str, object]) -> Mapping[str, object]:
        return {name: value for name, value in values.items() if not (isinstance(value, str) and not value.strip())}


@dataclass(frozen=True)
class Overrides:
    """Variables about models. Build it with `read()`; `NO_OVERRIDES` is empty."""

    values: Mapping[str, str] = field(default_factory=dict)
    """Variables that are set and not blank, by name."""
    echo_mode: bool | None = None

    @classmethod
    def read(cls) -> Self:
        """Return the variables of the environment and of `.env` in the current folder. Raise ManifestError."""
        fields: dict[str, Any] = {name.lower(): (str | None, None) for name in variables()}
        try:
            said = create_model("Environment", __base__=_Environment, **fields)()
        except ValidationError as error:
            raise ManifestError([_unclear(part) for part in error.errors()]) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError([Problem(".env", f"cannot be read: {error}")]) from None
        values = {name: getattr(said, name.lower()) for name in variables()}
        return cls({name: value for name, value in values.items() if value is not None}, said.echo_mode)

    def entry_id(self, about: Variables) -> str:
        """Return the id of the entry that a kind's variables describe."""
        return next((self.values[name] for name in about.names if name in self.values), about.entry_id)


NO_OVERRIDES = Overrides()
"""Overrides without any variable, whatever the environment has."""


def variables() -> list[str]:
    """Return the names of all variables that describe entries."""
    return [name for kind in KINDS.values() if kind.variables for name in kind.variables.all]


def _unclear(error: ErrorDetails) -> Problem:
    """Return the problem of ECHO_MODE, the only variable that is not text."""
    message = f"should be 1, true, yes, on, 0, false, no or off; found {shown(error['input'])}"
    return Problem(f"environment {str(error['loc'][0]).upper()}", message)


@dataclass(frozen=True)
class _Said:
    """Values of the variables about one entry."""

    kind: Kind
    about: Variables
    entry_id: str
    named_by: str | None
    """Variable that names the entry; None if it is the default id."""
    options: dict[str, Scalar]
    defaults: dict[str, Scalar]

    def problem(self) -> Problem:
        """Return the problem of an entry that is only named, neither in a file nor described by another variable."""
        add = " or ".join(names[0] for names in self.about.options.values())
        message = f"there is no {self.kind} model {shown(self.entry_id)}; set {add} to add it, or name an existing one"
        return _origin(str(self.named_by)).problem(message, (self.kind.name, self.entry_id))


def layer(overrides: Overrides, lower: Table, *, alone: bool) -> Table:
    """Return the environment as a layer over `lower`, with new entries for those that `lower` lacks.

    If there is no manifest (`alone`), echo mode adds an entry of each kind. Raise ManifestError if only the id of an
    entry is known.
    """
    echo = lower.get("echo")
    members: dict[str, Member] = {}
    if overrides.echo_mode is not None:
        echo = Scalar(overrides.echo_mode, str(overrides.echo_mode).lower(), _origin("ECHO_MODE"))
        members["echo"] = Member(echo.origin, echo)
    echo_origin = echo.origin if isinstance(echo, Scalar) and echo.value is True else None
    unknown: list[Problem] = []
    for said in (_said(overrides, kind, kind.variables) for kind in KINDS.values() if kind.variables):
        entries = lower.table(said.kind.name)
        options = dict(said.options)
        if entries is None or said.entry_id not in entries.members:
            if options or said.defaults:
                first = next(iter((options or said.defaults).values()))
                options.setdefault("backend", _text(said.about.backend, first.origin))
            elif echo_origin and (alone or said.named_by):
                options["backend"] = _text("echo", echo_origin)
            elif said.named_by:
                unknown.append(said.problem())
        if options or said.defaults:
            entry = _table({**options, **({"defaults": _table(said.defaults)} if said.defaults else {})})
            members[said.kind.name] = Member(entry.origin, _table({said.entry_id: entry}))
    if unknown:
        raise ManifestError(unknown)
    return Table(members, _origin(""))


def _said(overrides: Overrides, kind: Kind, about: Variables) -> _Said:
    named_by = next((name for name in about.names if name in overrides.values), None)
    options = {option: _first(overrides, names) for option, names in about.options.items()}
    defaults = {parameter: _first(overrides, names) for parameter, names in about.defaults.items()}
    return _Said(
        kind,
        about,
        overrides.entry_id(about),
        named_by,
        {option: value for option, value in options.items() if value is not None},
        {parameter: value for parameter, value in defaults.items() if value is not None},
    )


def _first(overrides: Overrides, names: Sequence[str]) -> Scalar | None:
    """Return the value of the first variable that is set, with a note about unused others in its origin."""
    found = [name for name in names if name in overrides.values]
    if not found:
        return None
    value = overrides.values[found[0]]
    others = [name for name in found[1:] if overrides.values[name] != value]
    note = ", ".join(f"{name}={readable(overrides.values[name])}" for name in others)
    origin = _origin(found[0])
    if note:
        origin = replace(origin, note=f"{note} is not used")
    return Scalar(value, value, origin)


def _origin(variable: str) -> Origin:
    return Origin(f"environment {variable}".strip(), Path.cwd())


def _text(value: str, origin: Origin) -> Scalar:
    return Scalar(value, value, origin)


def _table(nodes: Mapping[str, Node]) -> Table:
    """Return a table with the origin of its first member."""
    members = {key: Member(node.origin, node) for key, node in nodes.items()}
    return Table(members, next(iter(members.values())).origin)
