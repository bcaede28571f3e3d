"""`GET /status`: the whole truth, for people and for `localapi check`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from quart import Blueprint, Response

import localapi
from localapi.backends.engine import Engine
from localapi.backends.worker_engine import WorkerEngine
from localapi.http.replies import json_reply
from localapi.kinds import CHAT
from localapi.manifest import Entry, fingerprint
from localapi.reload.reloader import Attempt, Reloader
from localapi.reload.swaps import Swap
from localapi.runtime.instance import Instance
from localapi.runtime.registry import Registry
from localapi.system.working_directory import WorkingFolder
from localapi.worker.protocol import Loading


def routes(describe: Callable[[], dict[str, Any]]) -> Blueprint:
    """The endpoint."""
    blueprint = Blueprint("status", __name__)

    @blueprint.get("/status")
    async def status() -> Response:
        return json_reply(describe())

    return blueprint


def describe(registry: Registry, reloader: Reloader, warnings: list[str], folder: WorkingFolder) -> dict[str, Any]:
    """Times are Unix seconds."""
    snapshot = registry.snapshot
    files = snapshot.manifest.files if snapshot else ()
    entries = [(e, registry.instance(e.id)) for e in registry.entries.values()]
    return {
        "version": localapi.__version__,
        "started_at": registry.started_at,
        "now": time.time(),
        "revision": snapshot.revision if snapshot else 0,
        "manifest": {
            "folder": str(folder.path),
            "files": [{"path": str(file.path), "sha256": file.sha256} for file in files],
        },
        "server": snapshot.manifest.keys_of_server if snapshot else {},
        "last_attempt": describe_attempt(reloader.last_attempt) if reloader.last_attempt else None,
        "last_change": describe_attempt(reloader.last_change) if reloader.last_change else None,
        "reading_since": reloader.reading_since,
        "preparing": reloader.preparing,
        "warnings": warnings,
        "memory": {
            "budget_bytes": registry.memory.budget,
            "used_bytes": registry.memory.used,
            "waiting": registry.memory.waiting,
        },
        "models": [
            {
                **_entry(entry, registry),
                **describe_instance(instance),
                "waiting": registry.admissions[entry.id].waiting,
                "memory_bytes": registry.memory.of(instance),
                "swap": _swap(reloader.swaps.of(entry.id)),
            }
            for entry, instance in entries
        ],
        "retiring": [{"id": instance.name, **describe_instance(instance)} for instance in registry.retiring],
    }


def _entry(entry: Entry, registry: Registry) -> dict[str, Any]:
    manifest = registry.snapshot.manifest if registry.snapshot else None
    path = manifest.said.get((entry.kind.name, entry.id, "path")) if manifest else None
    by_hand = "hand" if entry.id in registry.pinned_by_hand else None
    return {
        "id": entry.id,
        "kind": entry.kind.name,
        "backend": entry.options.backend_name,
        "path": path.text if path else None,
        "description": entry.options.description,
        "aliases": list(entry.options.aliases),
        "pinned_by": "manifest" if entry.options.pin else by_hand,
        "identity": fingerprint(entry.identity),
        "serving": fingerprint(entry.settings),
        "keys": entry.keys,
    }


def _swap(swap: Swap | None) -> dict[str, Any] | None:
    """What is to replace an entry: it loads, or has not loaded and is tried again."""
    if swap is None:
        return None
    return {
        "state": swap.state,
        "backend": swap.entry.options.backend_name,
        "path": swap.entry.identity.options.get("path"),
        "identity": fingerprint(swap.entry.identity),
        "error": swap.error,
        "failures": swap.failures,
        "next_try_at": swap.next_try_at,
        "progress": _progress(swap.progress),
    }


def _progress(progress: Loading | None) -> dict[str, Any] | None:
    return {"phase": progress.phase, "done": progress.done, "total": progress.total} if progress else None


def describe_instance(instance: Instance) -> dict[str, Any]:
    """How one instance is."""
    return {
        "state": instance.state,
        "pinned": instance.pinned,
        "leases": instance.leases,
        "since_revision": instance.since_revision,
        "pid": instance.engine.pid if instance.engine else None,
        "requests": _work(instance.engine),
        "tokens_per_second": _tokens_per_second(instance),
        "ready_since": instance.ready_since,
        "loads": instance.loads,
        "last_step_age_seconds": None if instance.last_step_at is None else time.monotonic() - instance.last_step_at,
        "worker_deaths": instance.worker_deaths,
        "restarts": instance.restarted,
        "failures_in_a_row": instance.restarts.in_a_row,
        "cooling_down_until": instance.restarts.cooling_down_until,
        "last_error": instance.last_error,
        "progress": _progress(instance.progress),
    }


def _work(engine: Engine | None) -> dict[str, int] | None:
    """Of engines in processes; the others keep nobody waiting."""
    return asdict(engine.work) if isinstance(engine, WorkerEngine) else None


def _tokens_per_second(instance: Instance) -> float | None:
    """Of chat models in processes of their own: 0 while they write nothing, or are not loaded."""
    if instance.options.section != CHAT.name or not (
        instance.engine is None or isinstance(instance.engine, WorkerEngine)
    ):
        return None
    return round(instance.engine.tokens_per_second, 1) if instance.engine else 0.0


def describe_attempt(attempt: Attempt) -> dict[str, Any]:
    """One pass of the reloader."""
    changes = attempt.diff
    return {
        "at": attempt.at,
        "ok": attempt.ok,
        "revision": attempt.revision,
        "changes": {
            "added": changes.added,
            "changed": changes.changed,
            "updated": changes.updated,
            "removed": changes.removed,
            "server": changes.server,
        },
        "not_loaded": dict(attempt.not_loaded),
        "problems": [
            {
                "source": p.source,
                "line": p.line,
                "column": p.column,
                "key": p.key,
                "message": p.message,
                "excerpt": asdict(p.excerpt) if p.excerpt else None,
            }
            for p in attempt.problems
        ],
    }
