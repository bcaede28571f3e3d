"""The environment (and `.env`) as a layer above the files: its variables, and the values that they set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, create_model, model_validator
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
    """Variables about models. Create it with `read()`; `NO_OVERRIDES` is empty."""

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
            # ECHO_MODE is the only variable that is not a string.
            message = f"should be 1, true, yes, on, 0, false, no or off; found {shown(error.errors()[0]['input'])}"
            raise ManifestError([Problem("environment ECHO_MODE", message)]) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError([Problem(".env", f"cannot be read: {error}")]) from None
        values = {name: getattr(said, name.lower()) for name in variables()}
        return cls({name: value for name, value in values.items() if value is not None}, said.echo_mode)

    def entry_id(self, about: Variables) -> str:
        """Return the id of the entry that a kind's variables describe."""
        return next((self.values[name] for name in about.names if name in self.values), about.entry_id)


NO_OVERRIDES = Overrides()
"""Overrides without any variables, regardless of the environment."""


def variables() -> list[str]:
    """Return the names of all variables that describe entries."""
    return [name for kind in KINDS.values() if kind.variables for name in kind.variables.all]


def layer(overrides: Overrides, lower: Table, *, alone: bool) -> Table:
    """Return the environment as a layer above `lower`, with new entries for those that `lower` lacks.

    If there is no manifest (`alone`), echo mode adds an entry of each kind. Raise ManifestError if nothing but the id
    of an entry is known.
    """
    members: dict[str, Node] = {}
    echo = lower.get("echo")
    if overrides.echo_mode is not None:
        echo = Scalar(overrides.echo_mode, str(overrides.echo_mode).lower(), _origin("ECHO_MODE"))
        members["echo"] = echo
    echo_origin = echo.origin if isinstance(echo, Scalar) and echo.value is True else None
    unknown: list[Problem] = []
    for kind in KINDS.values():
        if kind.variables is not None:
            try:
                entries = _entries(overrides, kind, kind.variables, lower.section(kind.name), echo_origin, alone=alone)
            except ManifestError as error:
                unknown.extend(error.problems)
            else:
                members |= entries
    if unknown:
        raise ManifestError(unknown)
    return _table(members) if members else Table({}, _origin(""))


def _entries(
    overrides: Overrides, kind: Kind, about: Variables, known: Collection[str], echo: Origin | None, *, alone: bool
) -> dict[str, Node]:
    """Return the section of a kind with the entry that its variables describe, if any. Raise ManifestError."""
    entry_id = overrides.entry_id(about)
    named_by = next((name for name in about.names if name in overrides.values), None)
    options, defaults = _set_by(overrides, about.options), _set_by(overrides, about.defaults)
    if entry_id not in known:
        if options or defaults:
            first = next(iter((options or defaults).values()))
            options.setdefault("backend", Scalar(about.backend, about.backend, first.origin))
        elif echo and (alone or named_by):
            options["backend"] = Scalar("echo", "echo", echo)
        elif named_by:
            add = " or ".join(names[0] for names in about.options.values())
            message = f"there is no {kind} model {shown(entry_id)}; set {add} to add it, or name an existing one"
            raise ManifestError([_origin(named_by).problem(message, (kind.name, entry_id))])
    if defaults:
        options["defaults"] = _table(defaults)
    return {kind.name: _table({entry_id: _table(options)})} if options else {}


def _set_by(overrides: Overrides, variables_of: Mapping[str, Sequence[str]]) -> dict[str, Node]:
    """Return the value of the first set variable of each option; its origin notes the other ones, which are unused."""
    found: dict[str, Node] = {}
    for option, names in variables_of.items():
        used = [name for name in names if name in overrides.values]
        if used:
            value, origin = overrides.values[used[0]], _origin(used[0])
            others = [name for name in used[1:] if overrides.values[name] != value]
            if others:
                note = ", ".join(f"{name}={readable(overrides.values[name])}" for name in others)
                origin = replace(origin, note=f"{note} is not used")
            found[option] = Scalar(value, value, origin)
    return found


def _origin(variable: str) -> Origin:
    return Origin(f"environment {variable}".strip(), Path.cwd())


def _table(nodes: Mapping[str, Node]) -> Table:
    """Return a table with the origin of its first member."""
    members = {key: Member(node.origin, node) for key, node in nodes.items()}
    return Table(members, next(iter(members.values())).origin)
