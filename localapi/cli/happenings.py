"""What happens on a server, told in lines: the difference between one status and the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from localapi.cli.model_rows import ModelRow, problem_line, rows
from localapi.cli.plain_text import shown_in_line
from localapi.cli.server_status import Status
from localapi.client import Event
from localapi.reload.summary import told

STATUS_EVENTS: Final = {"status", "change"}
"""Events of `/status/events` that tell of the status; others tell of other things."""


def after(before: Status, event: Event) -> Status:
    """The status that one of STATUS_EVENTS makes of the one before."""
    told = event.json()
    if event.name != "change":
        return dict(told)
    news = {model["id"]: model for model in told["models"]}
    models = [news.get(model["id"], model) for model in before["models"]]
    return {**before, **told, "models": models}


def happenings(before: Status, now: Status) -> Iterator[str]:
    """Reloads with their errors, and what became of each model; numbers of requests are not told."""
    yield from _reloads(before, now)
    if now.get("preparing") and not before.get("preparing"):
        yield "the manifest has changed: preparing"
    earlier = {row.id: row for row in rows(before)}
    for row in rows(now):
        if row.id in earlier:
            yield from _model(earlier[row.id], row)
    yield from (f"warning: {shown_in_line(text)}" for text in now["warnings"] if text not in before["warnings"])


def _reloads(before: Status, now: Status) -> Iterator[str]:
    """The change and the last attempt: a second reading of the same file may have followed before this status came."""
    change, attempt = now.get("last_change"), now.get("last_attempt")
    changed = change if change != before.get("last_change") else None
    if changed:
        yield from _reload(changed)
    news = attempt and attempt not in (change, before.get("last_attempt")) and not (changed and attempt["ok"])
    if attempt and news and not _is_another_try(attempt, before.get("last_attempt")):
        yield from _reload(attempt)


def _is_another_try(attempt: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    """Whether it only tried again what had not loaded, for which the server's warnings stand."""
    failed = attempt.get("not_loaded")
    changed = any(attempt["changes"].values())
    return bool(failed) and not changed and before is not None and before.get("not_loaded") == failed


def _reload(attempt: Mapping[str, Any]) -> Iterator[str]:
    if attempt["ok"]:
        changes = attempt["changes"]
        yield f"revision {attempt['revision']}: {told(changes, server=changes['server'])}"
        return
    yield f"the manifest was not taken; revision {attempt['revision']} serves on"
    yield from (problem_line(problem) for problem in attempt["problems"])


def _model(before: ModelRow, now: ModelRow) -> Iterator[str]:
    if now.state != before.state:
        yield f"{now.id}: {before.state} → {now.state}"
    if now.last_error and now.last_error != before.last_error:
        yield f"{now.id}: {shown_in_line(now.last_error)}"


def requests_of(before: Status, now: Status) -> Iterator[str]:
    """What changed in the numbers of requests and in the progress of loads, a line for each model."""
    earlier = {row.id: row for row in rows(before)}
    for row in rows(now):
        old = earlier.get(row.id)
        if old and (row.running, row.waiting) != (old.running, old.waiting):
            yield f"{row.id}: {row.running} running, {row.waiting} waiting"
        if old and row.progress and row.progress != old.progress:
            yield f"{row.id}: {row.told_progress}"
