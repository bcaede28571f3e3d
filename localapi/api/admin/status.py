"""`GET /status`: the full state of the server, for people and for `localapi check`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from quart import Blueprint, Response

import localapi
from localapi.api import reply_shapes as shapes
from localapi.api.operation import JSON, Operation, Operations
from localapi.backends.engine import Vitals
from localapi.http.replies import json_reply
from localapi.manifest import Entry, fingerprint
from localapi.reload.reloader import Attempt, Reloader
from localapi.reload.swaps import Swap
from localapi.runtime.instance import Instance
from localapi.runtime.registry import Registry
from localapi.system.working_directory import WorkingFolder
from localapi.worker.protocol import Loading


def routes(describe: Callable[[], dict[str, Any]]) -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("status", __name__)

    @blueprint.get("/status")
    async def status() -> Response:
        return json_reply(describe())

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/status"): Operation(summary="The full state of the server.", content={JSON: shapes.StatusReply}),
}


def describe(registry: Registry, reloader: Reloader, warnings: list[str], folder: WorkingFolder) -> dict[str, Any]:
    """Return the full state of the server. Times are Unix seconds."""
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
                "waiting": registry.queues[entry.id].occupancy.waiting,
                "memory_bytes": _memory_bytes(registry, instance),
                "swap": _swap(reloader.swaps.of(entry.id)),
            }
            for entry, instance in entries
        ],
        "retiring": [{"id": instance.name, **describe_instance(instance)} for instance in registry.retiring],
    }


def _memory_bytes(registry: Registry, instance: Instance) -> int | None:
    """Return the memory that the budget counts, or what the engine reports; None if unknown."""
    counted = registry.memory.of(instance)
    if counted is None and instance.vitals is not None:
        return instance.vitals.total_bytes
    return counted


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
    """Return the state of an entry's replacement, which is loading, or will be tried again."""
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
    """Return the state of one instance."""
    vitals = instance.vitals
    last_step_at = vitals.last_step_at if vitals else None
    return {
        "state": instance.state,
        "pinned": instance.pinned,
        "leases": instance.leases,
        "since_revision": instance.since_revision,
        "pid": vitals.pid if vitals else None,
        "requests": _requests(vitals) if vitals else None,
        "healthy": vitals.healthy if vitals else None,
        "unhealthy_reason": vitals.reason if vitals and not vitals.healthy else None,
        "tokens_per_second": _tokens_per_second(vitals),
        "ready_since": instance.ready_since,
        "loads": instance.loads,
        "last_step_age_seconds": None if last_step_at is None else time.monotonic() - last_step_at,
        "worker_deaths": instance.worker_deaths,
        "restarts": instance.restarts,
        "failures_in_a_row": instance.backoff.failures,
        "cooling_down_until": instance.backoff.paused_until,
        "last_error": instance.last_error,
        "progress": _progress(instance.progress),
    }


def _requests(vitals: Vitals) -> dict[str, int]:
    return {
        "running": vitals.running,
        "waiting": vitals.unanswered,
        "prompt_tokens_done": vitals.prompt_tokens_done,
        "prompt_tokens_total": vitals.prompt_tokens_total,
    }


def _tokens_per_second(vitals: Vitals | None) -> float | None:
    """Return the generation rate, 0 if nothing is generated now, or None if unknown or not loaded."""
    return None if vitals is None or vitals.tokens_per_second is None else round(vitals.tokens_per_second, 1)


def describe_attempt(attempt: Attempt) -> dict[str, Any]:
    """Return the outcome of one pass of the reloader."""
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
