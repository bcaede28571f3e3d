"""`localapi models --watch`: a live table of models, with events as lines above it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from localapi.cli import server_status
from localapi.cli.live_area import LiveArea
from localapi.cli.plain_text import shown_in_line
from localapi.cli.server_status import ModelRow, Status, problem_line, rows
from localapi.client import Event, Server
from localapi.errors import NoServer, Refused
from localapi.reload.diff import Diff

AGAIN_SECONDS: Final = 1.0
"""Interval for reconnecting to a server that has stopped."""
_STYLES: Final = {"ready": "green", "loading": "yellow", "failed": "red"}
_NUMBERS: Final = {"memory", "running", "waiting", "tokens/s"}
_BAR_CELLS: Final = 24
_LINES_AROUND: Final = 5
"""Lines of the view besides models, loads and problems: head, footer, two blank lines, and the cursor's line."""
_GONE: Final = "the server has stopped; waiting for it to return (Ctrl-C exits)"
STATUS_EVENTS: Final = {"status", "change"}
"""Events of `/status/events` whose data is the status; others carry something else."""


def watch(server: Server, *, as_json: bool) -> None:
    """Follow the server until Ctrl-C. Raise NoServer or Refused if it cannot be followed from the start."""
    if not sys.stdout.isatty():
        threading.Thread(target=end_with_the_reader, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            _lines(server, lambda _, now: [json.dumps([row.json() for row in rows(now)])])
        elif sys.stdout.isatty():
            _live(server)
        else:
            _lines(server, _told)


def end_with_the_reader() -> None:
    """End the process when the reader closes the pipe, as in `localapi models --watch | head -1`."""
    output = select.poll()
    output.register(sys.stdout, 0)
    if any(happened & (select.POLLERR | select.POLLHUP) for _, happened in output.poll()):
        os._exit(1)


def _lines(server: Server, told: Callable[[Status, Status], list[str]]) -> None:
    before: Status = {}
    for now in _statuses(server):
        for line in told(before, now) if now else []:
            click.echo(line)
        sys.stdout.flush()
        if now is None:
            click.echo(_GONE, err=True)
        before = now or before


def _told(before: Status, now: Status) -> list[str]:
    """Return what has changed since, with the time of day; at first, the state of each model."""
    if not before:
        lines = [f"{row.id}: {row.told_state}" for row in rows(now)] + list(server_status.troubles(now))
    else:
        lines = [*happenings(before, now), *requests_of(before, now)]
    return [f"{_clock()} {line}" for line in lines]


def _live(server: Server) -> None:
    console = Console(highlight=False)
    before: Status = {}
    shown: list[RenderableType] = []
    with LiveArea(console, lambda: Group(*shown), keep=True) as area:
        for now in _statuses(server):
            if now is None:
                shown = [view(before, console), Text(_GONE, style="yellow")]
                area.draw()
                continue
            shown = [view(now, console)]
            lines = happenings(before, now) if before else ()
            area.print(*(Text.assemble((_clock(), "dim"), f" {line}\n") for line in lines))
            before = now


def _statuses(server: Server) -> Iterator[Status | None]:
    """Yield each status as it arrives, and None whenever the connection is lost."""
    status: Status = {}
    while True:
        try:
            for event in _events(server, tell_refusal=not status):
                if event.name in STATUS_EVENTS:
                    status = after(status, event)
                    yield status
        except NoServer:
            if not status:
                raise
        yield None
        while not server.is_there():
            time.sleep(AGAIN_SECONDS)


def _events(server: Server, *, tell_refusal: bool) -> Iterator[Event]:
    try:
        yield from server.events("/status/events")
    except Refused as error:
        if tell_refusal and error.status == HTTPStatus.FORBIDDEN:
            message = "--watch needs a key with the admin right; set LOCALAPI_API_KEY"
            raise Refused(message, status=error.status, code=error.code) from None
        raise


def view(status: Status, console: Console) -> Group:
    """Return the table, a bar for each load, and the problems. If not all models fit, show the most active."""
    found = rows(status)
    loads = list(_loads(found))
    below = [Text(line, style="red") for line in server_status.troubles(status)]
    seen = server_status.most_active(found, console.height - _LINES_AROUND - len(loads) - len(below))
    unseen = len(found) - len(seen)
    words = [server_status.footer(status)] + [f"{unseen} more in `localapi models`"] * bool(unseen)
    return Group(Text(), _table(seen, console.width), *loads, Text(), Text(" · ".join(words), style="dim"), *below)


def _table(found: list[ModelRow], width: int) -> Table:
    cells = [row.cells() for row in found]
    chosen = server_status.columns(cells, width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, server_status.GAP, 0, 0))
    for at in chosen:
        name = server_status.HEAD[at]
        # A narrow terminal truncates names, never states.
        least = None if name == "model" else max([len(name), *(cell_len(row[at]) for row in cells)])
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True, min_width=least)
    state = server_status.HEAD.index("state")
    for row, texts in zip(found, cells, strict=True):
        styles = {state: _STYLES.get(row.state, "dim")}
        table.add_row(*(Text(texts[at], style=styles.get(at, "")) for at in chosen))
    return table


def _loads(found: list[ModelRow]) -> Iterator[Table]:
    """Yield a bar for each model that is loading; it pulses if the progress is unknown."""
    for row in found:
        if row.progress:
            load = Table.grid(padding=(0, 1, 0, 0))
            unknown = row.share is None
            bar = ProgressBar(None if unknown else 1, row.share or 0, width=_BAR_CELLS, pulse=unknown)
            load.add_row(Text(row.id), bar, Text(row.told_progress, style="yellow"))
            yield load


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def after(before: Status, event: Event) -> Status:
    """Return the status after one of STATUS_EVENTS."""
    told = event.json()
    if event.name != "change":
        return dict(told)
    news = {model["id"]: model for model in told["models"]}
    models = [news.get(model["id"], model) for model in before["models"]]
    return {**before, **told, "models": models}


def happenings(before: Status, now: Status) -> Iterator[str]:
    """Yield reloads with their errors and each model's changes of state, but no request counts."""
    yield from _reloads(before, now)
    if now.get("preparing") and not before.get("preparing"):
        yield "the manifest has changed; preparing"
    earlier = {row.id: row for row in rows(before)}
    for row in rows(now):
        old = earlier.get(row.id)
        if old and row.state != old.state:
            yield f"{row.id}: {old.state} → {row.state}"
        if old and row.last_error and row.last_error != old.last_error:
            yield f"{row.id}: {shown_in_line(row.last_error)}"
    yield from (f"warning: {shown_in_line(text)}" for text in now["warnings"] if text not in before["warnings"])


def _reloads(before: Status, now: Status) -> Iterator[str]:
    """Yield the last change and the last attempt: the file may have been read twice before this status arrived."""
    change, attempt = now.get("last_change"), now.get("last_attempt")
    changed = change if change != before.get("last_change") else None
    if changed:
        yield from _reload(changed)
    earlier = before.get("last_attempt")
    if not attempt or attempt in (change, earlier) or (changed and attempt["ok"]):
        return
    failed = attempt.get("not_loaded")
    only_retried = failed and not any(attempt["changes"].values()) and earlier and earlier.get("not_loaded") == failed
    if not only_retried:  # a warning reports models that failed again
        yield from _reload(attempt)


def _reload(attempt: Mapping[str, Any]) -> Iterator[str]:
    if attempt["ok"]:
        yield f"revision {attempt['revision']}: {Diff(**attempt['changes'])}"
        return
    yield f"the manifest was rejected; still serving revision {attempt['revision']}"
    yield from (problem_line(problem) for problem in attempt["problems"])


def requests_of(before: Status, now: Status) -> Iterator[str]:
    """Yield a line for each change in a model's requests or load progress."""
    earlier = {row.id: row for row in rows(before)}
    for row in rows(now):
        old = earlier.get(row.id)
        if old and (row.running, row.waiting) != (old.running, old.waiting):
            yield f"{row.id}: {row.running} running, {row.waiting} waiting"
        if old and row.progress and row.progress != old.progress:
            yield f"{row.id}: {row.told_progress}"
