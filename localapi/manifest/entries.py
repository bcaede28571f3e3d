"""The content of a manifest after reading: frozen values that the server compares, without YAML.

Two revisions are compared with ==. An entry with an equal `identity` keeps its loaded model; different `settings` are
changed in place.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from localapi.backends.openai import OtherServer
from localapi.backends.options import FOREVER, ChatOptions, EntryOptions, Identity
from localapi.backends.peer import SEPARATOR, PeerOptions
from localapi.errors import Problem
from localapi.kinds import KINDS, Kind, ModelObject
from localapi.manifest.keys import Key
from localapi.manifest.origin import KeyPath, Origin
from localapi.manifest.server_options import ServerOptions
from localapi.manifest.text import Text


@dataclass(frozen=True)
class Entry:
    """One model of the manifest."""

    id: str
    options: EntryOptions
    """Options from the manifest, with absolute, checked paths. In echo mode, options of the backend echo."""
    identity: Identity
    """Part of the options that decides what is loaded."""
    keep_alive: float
    """Seconds without a request until the model is unloaded; infinity for never. Includes the server's default."""
    max_keep_alive: float = FOREVER
    """Longest keep_alive, in seconds, that a request may set. Includes the server's default."""
    peer: str | None = None
    """Name of the peer that offers the model; None if the manifest has the entry."""
    variant_of: str | None = None
    """Id of the entry whose model answers, if this is a variant."""

    @property
    def model_id(self) -> str:
        """Id of the entry whose model answers: this one, or the base entry of this variant."""
        return self.id if self.variant_of is None else self.variant_of

    @functools.cached_property
    def variants(self) -> tuple[Entry, ...]:
        """Variants of this entry, as entries of their own that share its model."""
        options = self.options
        if not isinstance(options, ChatOptions):
            return ()
        return tuple(
            dataclasses.replace(self, id=name, options=options.as_variant(name), variant_of=self.id)
            for name in options.variants
        )

    @property
    def kind(self) -> Kind:
        """Kind of the model."""
        return KINDS[self.options.section]

    @functools.cached_property
    def settings(self) -> Mapping[str, object]:
        """Options that can change while the model stays loaded."""
        settings = {name: getattr(self.options, name) for name in self.options.setting_names()}
        return {**settings, "keep_alive": self.keep_alive, "max_keep_alive": self.max_keep_alive}

    @functools.cached_property
    def keys(self) -> Mapping[str, str]:
        """Fingerprint of each option, for `localapi plan`."""
        said = {"backend": self.identity.backend, **self.identity.options, **self.settings}
        return {name: fingerprint(value) for name, value in said.items()}

    @classmethod
    def of(cls, entry_id: str, options: EntryOptions, *, server: ServerOptions) -> Entry:
        """Return the entry that these options describe."""
        keep_alive = server.keep_alive if options.keep_alive is None else options.keep_alive
        longest = server.max_keep_alive if options.max_keep_alive is None else options.max_keep_alive
        options = options.on_cluster(server.cluster.ray if server.cluster else None)
        return cls(entry_id, options, options.identity(), keep_alive, longest)

    @classmethod
    def of_peer(cls, peer: str, options: PeerOptions, model: ModelObject) -> Entry | None:
        """Return an entry for a model of a peer; None if such a model cannot be used on a peer.

        It is an entry of the backend `openai`, so every kind that has this backend can be used on a peer.
        """
        backend = KINDS[model.kind].backends.get("openai")
        if backend is None:
            return None
        place = {name: getattr(options, name) for name in OtherServer.model_fields}
        aliases = [f"{peer}{SEPARATOR}{alias}" for alias in model.aliases]
        own = {"backend": "openai", "model": model.id, "aliases": aliases, "description": model.description}
        try:
            found = backend.model_validate({**place, **own, **model.as_options()})
        except ValidationError:  # a name that no manifest could contain
            return None
        return cls(f"{peer}{SEPARATOR}{model.id}", found, found.identity(), FOREVER, peer=peer)


@dataclass(frozen=True)
class Said:
    """Value as written, and its place."""

    text: str
    origin: Origin
    value: object = field(default=None, repr=False)
    """Value after references to variables were replaced; messages must not show it."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Merged content of models.yaml, a profile and the environment."""

    entries: Mapping[str, Entry]
    """Entries by id, one kind after the other, each in the order of the files."""
    server: ServerOptions = field(default_factory=ServerOptions)
    echo: bool = False
    """True if every entry uses the backend echo."""
    peers: Mapping[str, PeerOptions] = field(default_factory=dict)
    """Other localapi servers, with absolute paths."""
    keys: tuple[Key, ...] = ()
    """API keys; if there are none, access is open."""
    key_files: tuple[Path, ...] = field(default=(), compare=False)
    """Files with the secrets of keys."""
    key_variables: tuple[str, ...] = field(default=(), compare=False)
    """Variables with API keys, of this server and for others, and with other secrets of entries."""
    missing_secrets: tuple[Problem, ...] = field(default=(), compare=False)
    """Problems of keys that are missing from `keys` because their secrets cannot be read here."""
    absent: tuple[Problem, ...] = field(default=(), compare=False)
    """Missing files of entries that are unchanged since the files existed."""
    files: tuple[Text, ...] = field(default=(), compare=False)
    said: Mapping[KeyPath, Said] = field(default_factory=dict, compare=False)
    """Explicit values by path of keys; a list is one value."""

    @functools.cached_property
    def keys_of_server(self) -> Mapping[str, str]:
        """Fingerprint of each option of the server; for API keys, without their secrets."""
        options = {name: getattr(self.server, name) for name in ServerOptions.model_fields}
        return {name: fingerprint(value) for name, value in {**options, "peers": self.peers}.items()}

    def resolve(self, name: str) -> Entry | None:
        """Return the entry with this id or alias."""
        if name in self.entries:
            return self.entries[name]
        if name in self.variants:
            return self.variants[name]
        return next((entry for entry in self.offered if name in entry.options.aliases), None)

    @functools.cached_property
    def variants(self) -> Mapping[str, Entry]:
        """Variants of all entries, by name."""
        return {variant.id: variant for entry in self.entries.values() for variant in entry.variants}

    @functools.cached_property
    def offered(self) -> tuple[Entry, ...]:
        """Everything that clients can name: each entry, followed by its variants."""
        return tuple(each for entry in self.entries.values() for each in (entry, *entry.variants))

    def written_at(self, entry: Entry) -> str:
        """Return the file and the first line of an entry; empty if it is not in a file."""
        values = (said.origin for key, said in self.said.items() if key[:2] == (entry.kind.name, entry.id))
        files = {str(file.path): index for index, file in enumerate(self.files)}
        places = [(files[each.source], each.line) for each in values if each.source in files and each.line is not None]
        if not places:
            return ""
        index, line = min(places)
        return f"{self.files[index].path}:{line}"

    @property
    def cluster(self) -> str | None:
        """Address of the cluster to join; None if there is none, or if no entry is placed on it."""
        return self.server.cluster.ray if self.server.cluster is not None and not self.echo else None

    @property
    def files_beside(self) -> tuple[Path, ...]:
        """Files that the manifest names, which the server also follows.

        The manifest's own files are among them: one that is included by a pattern may be missing for a moment while it
        is saved.
        """
        own = (file.path for file in self.files)
        of_entries = (path for entry in self.entries.values() for path in entry.options.files())
        of_peers = (path for peer in self.peers.values() for path in peer.secret_files())
        return tuple(dict.fromkeys((*own, *of_entries, *of_peers, *self.key_files)))

    @property
    def declared(self) -> Mapping[str, Entry]:
        """Entries of the manifest itself, without those of peers."""
        return {name: entry for name, entry in self.entries.items() if entry.peer is None}

    def with_peers(self, offered: Sequence[Entry]) -> Manifest:
        """Return this manifest with these entries of its peers, and no other peers' entries."""
        entries = {**self.declared, **{entry.id: entry for entry in offered}}
        if entries == self.entries:
            return self
        keys = tuple(dataclasses.replace(key, of_peers=_opened(key, offered)) for key in self.keys)
        return dataclasses.replace(self, entries=entries, keys=keys)

    def keeping(self, other: Manifest, entry_ids: Collection[str]) -> Manifest:
        """Return this manifest with these entries taken from `other`.

        They get their new aliases and variants, because another entry may have taken an old name.
        """
        if not entry_ids:
            return self
        kept: dict[str, Entry] = {}
        for name in entry_ids:
            new_options, options = self.entries[name].options, other.entries[name].options
            names: dict[str, object] = {"aliases": new_options.aliases}
            if isinstance(options, ChatOptions):
                names["variants"] = new_options.variants if isinstance(new_options, ChatOptions) else {}
            options = options.model_copy(update=names)
            kept[name] = dataclasses.replace(other.entries[name], options=options)
        new, old = ({(each.entries[name].kind.name, name) for name in kept} for each in (self, other))
        said = {key: value for key, value in self.said.items() if key[:2] not in new}
        said |= {key: value for key, value in other.said.items() if key[:2] in old}
        entries = {name: kept.get(name, entry) for name, entry in self.entries.items()}
        return dataclasses.replace(self, entries=entries, said=said)


def _opened(key: Key, offered: Sequence[Entry]) -> frozenset[str]:
    """Return the ids of the peers' models that a key names: by id or alias, or all models of a peer by PEER/*."""
    if key.models is None:
        return frozenset()
    names = {entry.id: {entry.id, *entry.options.aliases, f"{entry.peer}{SEPARATOR}*"} for entry in offered}
    return frozenset(name for name, also in names.items() if also & key.models)


def fingerprint(value: object) -> str:
    """Return a short digest that is equal for equal values, in every process and on every machine."""
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
