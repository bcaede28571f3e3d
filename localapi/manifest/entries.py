"""What a manifest is once it is read: frozen values that the server compares, and nothing of YAML.

Two revisions are compared with ==: an entry whose `identity` is equal keeps what is loaded; one whose `settings` differ
are changed in place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from localapi.backends.options import Duration, EntryOptions, Identity, MemorySize, Name
from localapi.errors import Problem
from localapi.kinds import KINDS, Kind
from localapi.manifest.keys import Key, KeyOptions
from localapi.manifest.origin import KeyPath, Origin

LogLevel = Literal["debug", "info", "warning", "error"]

_MINUTES = 60.0
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:(\d{1,5}|\*))?")


def _host_name(value: object) -> object:
    if isinstance(value, str) and not _HOST.fullmatch(value.lower()):
        raise ValueError("should be a name or an address, without http:// and without a port")
    return value.lower() if isinstance(value, str) else value


def _origin(value: object) -> object:
    if isinstance(value, str) and not _ORIGIN.fullmatch(value.lower()):
        raise ValueError(
            "should be an origin such as https://chat.example or http://localhost:*, without a path; "
            "to name all pages of the web is not possible"
        )
    return value.lower() if isinstance(value, str) else value


HostName = Annotated[str, BeforeValidator(_host_name)]
OriginPattern = Annotated[str, BeforeValidator(_origin)]


class ServerOptions(BaseModel):
    """What the server does for every model; applied while it runs."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    drain_seconds: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="How long a shutdown waits for running requests, in seconds.",
            examples=[60],
        ),
    ] = 30.0
    keep_alive: Annotated[
        Duration,
        Field(
            description="keep_alive of every entry that does not say: 30s, 15m, 0 (at once), forever.",
            examples=["1h"],
        ),
    ] = 15 * _MINUTES
    memory_budget: Annotated[
        MemorySize,
        Field(
            description="What all models together may take: 8GB, 75% (of the machine's memory); null: no bound.",
            examples=["75%"],
        ),
    ] = None
    log_level: Annotated[LogLevel, Field(description="How much the server logs.")] = "info"
    api_keys: Annotated[
        dict[Name, KeyOptions],
        Field(
            description="Keys by their names; where there are any, requests need one. docs/security.md has more.",
            examples=[{"laptop": {"env": "LAPTOP_KEY", "admin": True}}],
        ),
    ] = {}
    allowed_hosts: Annotated[
        list[HostName],
        Field(
            description="Names of this server beside localhost and HOST, as clients write them; without a port.",
            examples=[["studio.local"]],
        ),
    ] = []
    allowed_origins: Annotated[
        list[OriginPattern],
        Field(
            description="Web pages that may use this server beside those of this machine: https://chat.example, or "
            "http://192.168.1.5:* for every port.",
            examples=[["https://chat.example"]],
        ),
    ] = []


@dataclass(frozen=True)
class Entry:
    """One model of the manifest."""

    id: str
    options: EntryOptions
    """What the manifest says; paths are absolute and checked. In echo mode these are echo's."""
    identity: Identity
    """The part of the options that decides what is loaded."""
    keep_alive: float
    """Seconds without a request until the model is unloaded; infinity for never. The server's default is applied."""

    @property
    def kind(self) -> Kind:
        """What the model does."""
        return KINDS[self.options.section]

    @cached_property
    def settings(self) -> Mapping[str, object]:
        """How the model is offered: everything that can change while it stays loaded."""
        settings = {name: getattr(self.options, name) for name in self.options.setting_names()}
        return {**settings, "keep_alive": self.keep_alive}

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """A fingerprint of each option, by its name, which tells `localapi plan` what changed."""
        said = {"backend": self.identity.backend, **self.identity.options, **self.settings}
        return {name: fingerprint(value) for name, value in said.items()}

    @classmethod
    def of(cls, entry_id: str, options: EntryOptions, *, server: ServerOptions) -> Entry:
        """Return the entry that these options describe."""
        keep_alive = server.keep_alive if options.keep_alive is None else options.keep_alive
        return cls(entry_id, options, options.identity(), keep_alive)


def _called(entry: Entry, aliases: list[str]) -> Entry:
    return dataclasses.replace(entry, options=entry.options.model_copy(update={"aliases": aliases}))


@dataclass(frozen=True)
class ManifestFile:
    """A file that a manifest was read from, and what it held then."""

    path: Path
    sha256: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Said:
    """A value as it was written, and where."""

    text: str
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What models.yaml, a profile and the environment say together."""

    entries: Mapping[str, Entry]
    """By id, in the order of the files, one kind after the other."""
    server: ServerOptions = field(default_factory=ServerOptions)
    echo: bool = False
    """Every entry answers with echo."""
    keys: tuple[Key, ...] = ()
    """Who may ask; none: everybody."""
    key_files: tuple[Path, ...] = field(default=(), compare=False)
    """The files that the keys' secrets came from."""
    key_variables: tuple[str, ...] = field(default=(), compare=False)
    """The variables that hold keys' secrets."""
    missing_secrets: tuple[Problem, ...] = field(default=(), compare=False)
    """Keys that are left out of `keys` because their secrets are not to be had here, where that is allowed."""
    files: tuple[ManifestFile, ...] = field(default=(), compare=False)
    said: Mapping[KeyPath, Said] = field(default_factory=dict, compare=False)
    """Each value that somebody said, by its path of keys; a list is one value."""

    @cached_property
    def keys_of_server(self) -> Mapping[str, str]:
        """A fingerprint of each setting of the server; of API keys what the manifest says, and no secret."""
        return {name: fingerprint(getattr(self.server, name)) for name in ServerOptions.model_fields}

    def resolve(self, name: str) -> Entry | None:
        """The entry with this id or alias."""
        if name in self.entries:
            return self.entries[name]
        return next((entry for entry in self.entries.values() if name in entry.options.aliases), None)

    @property
    def files_beside(self) -> tuple[Path, ...]:
        """Files that it names, and that are followed as it is itself."""
        return (*(path for entry in self.entries.values() for path in entry.options.files()), *self.key_files)

    def keeping(self, other: Manifest, entry_ids: Collection[str]) -> Manifest:
        """The same, with these entries as `other` has them.

        Their aliases are the new ones: one that they gave up may be another entry's now.
        """
        if not entry_ids:
            return self
        kept = {name: _called(other.entries[name], self.entries[name].options.aliases) for name in entry_ids}
        new, old = ({(each.entries[name].kind.name, name) for name in kept} for each in (self, other))
        said = {key: value for key, value in self.said.items() if key[:2] not in new}
        said |= {key: value for key, value in other.said.items() if key[:2] in old}
        entries = {name: kept.get(name, entry) for name, entry in self.entries.items()}
        return dataclasses.replace(self, entries=entries, said=said)


def fingerprint(value: object) -> str:
    """A short digest that is equal for equal values, in every process and on every machine."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, str | int | float | None):
        return value
    return str(value)
