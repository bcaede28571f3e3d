"""Compare a manifest with the status of a running server, as a summary or entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from localapi.backends.pool import PoolOptions
from localapi.manifest import Entry, Manifest, fingerprint
from localapi.reload.diff import Diff, compare

IN_USE: Final = frozenset({"ready", "loading"})
"""States of a model that a change replaces at once."""

_WORDS: Final = {
    "added": "is new",
    "warm": "loads beside the old one, which answers until the new one is ready (warm)",
    "cold": "loads after the old one has finished its requests and ended; new requests wait (cold)",
    "not loaded": "is not loaded; the next request loads the new one",
    "did not load": "did not load, so the old one still answers; the server retries from time to time",
    "in place": "changes in place, even if loaded",
    "removed": "is removed",
}
_ENDS: Final = {"removed": "they finish first", "warm": "they end on the old one", "cold": "they finish first"}
_ENDS_ELSE: Final = "they continue"

Does = Literal["added", "warm", "cold", "not loaded", "did not load", "in place", "removed"]


def diff(manifest: Manifest, models: Mapping[str, Any]) -> Diff:
    """Return the difference that a server with these models would apply for the manifest.

    `models` are those of `/status`, by id.
    """
    before = {name: ((model["kind"], model["identity"]), model["serving"]) for name, model in models.items()}
    after = {
        entry.id: ((entry.kind.name, fingerprint(entry.identity)), fingerprint(entry.settings))
        for entry in manifest.entries.values()
    }
    return compare(before, after)


def own_models(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the models of a status by id, without those of peers, which no manifest lists."""
    return {model["id"]: model for model in status["models"] if not model.get("peer")}


@dataclass(frozen=True)
class Change:
    """Change of one entry."""

    id: str
    kind: str
    does: Does
    keys: tuple[str, ...] = ()
    """Settings that differ."""
    requests: int = 0
    """Number of its running requests."""
    error: str | None = None
    """Reason why it did not load, if the server has already tried."""
    place: str = ""
    """Place where it will run, unless that is a single process on this machine."""
    written_at: str = ""
    """File and line of the entry; empty if it is removed, or if only the environment has it."""


@dataclass(frozen=True)
class Plan:
    """Effect of a save."""

    changes: tuple[Change, ...]
    server: tuple[str, ...] = ()
    """Settings of the section `server` that differ."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.server)


def plan(manifest: Manifest, status: Mapping[str, Any] | None) -> Plan:
    """Return what a server with this status would do with the manifest; without a status, everything is new."""
    models = own_models(status) if status else {}
    found = diff(manifest, models)
    entries = manifest.entries
    changes = [Change(name, entries[name].kind.name, "added", place=place_of(entries[name])) for name in found.added]
    changes += [_changed(entries[name], models[name], _swap(entries[name], models[name])) for name in found.changed]
    changes += [_changed(entries[name], models[name], "in place") for name in found.updated]
    changes = [replace(change, written_at=manifest.written_at(entries[change.id])) for change in changes]
    changes += [
        Change(name, models[name]["kind"], "removed", (), int(models[name]["leases"])) for name in found.removed
    ]
    server = _differing(manifest.keys_of_server, status["server"]) if status else ()
    return Plan(tuple(changes), server)


def _swap(entry: Entry, model: Mapping[str, Any]) -> Does:
    """Return how the entry is replaced: by its new `swap` if it is loaded."""
    swap = model.get("swap") or {}
    if swap.get("error") is not None and swap["identity"] == fingerprint(entry.identity):
        return "did not load"  # also while the server retries
    return entry.options.swap if model["state"] in IN_USE else "not loaded"


def _changed(entry: Entry, model: Mapping[str, Any], does: Does) -> Change:
    error = model["swap"]["error"] if does == "did not load" else None
    keys = _differing(entry.keys, model["keys"])
    return Change(entry.id, entry.kind.name, does, keys, int(model["leases"]), error, place_of(entry))


def place_of(entry: Entry) -> str:
    """Return where an entry's model will run; empty for a single process on this machine."""
    options = entry.options
    if isinstance(options, PoolOptions):
        return f"in {', '.join(options.of)}"
    words: list[str] = []
    if options.runs_in == "upstream":
        words.append(f"on {options.runs_at}")
    elif options.runs_in == "program":
        words.append(f"in the program {options.runs_at}")
    elif options.runs_in == "node":
        words.append("on a node of the cluster")
    limits = options.replica_limits
    if limits is not None and limits.max > 1:
        words.append(
            f"as {limits.min} to {limits.max} replicas" if limits.min < limits.max else f"as {limits.max} replicas"
        )
    if options.processes > 1:
        words.append(f"split over {options.processes} processes")
    return " ".join(words)


def _differing(new: Mapping[str, str], old: Mapping[str, str]) -> tuple[str, ...]:
    """Return the settings that differ; for two backends, only those that both have."""
    names = {**new, **old} if new.get("backend") == old.get("backend") else [name for name in new if name in old]
    return tuple(name for name in names if new.get(name) != old.get(name))


def words_of(change: Change) -> str:
    """Describe the effect of a change."""
    keys = f": {', '.join(change.keys)}" if change.keys else ""
    running = f"; running requests: {change.requests}, {_ENDS.get(change.does, _ENDS_ELSE)}" if change.requests else ""
    reason = f"; {change.error}" if change.error else ""
    place = f"; it runs {change.place}" if change.place else ""
    written = f" ({change.written_at})" if change.written_at else ""
    return f"{_WORDS[change.does]}{keys}{place}{running}{reason}{written}"
