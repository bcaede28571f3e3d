"""Status of a running server, and its models as table rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import click
from rich.cells import cell_len

from localapi.cli.plain_text import shown_in_line
from localapi.client import Server
from localapi.errors import NoServer, Refused
from localapi.system.byte_sizes import readable

Status = Mapping[str, Any]
SECONDS: Final = 2.0
_KEYS: Final = frozenset({"revision", "manifest", "server", "last_attempt", "models", "retiring"})
_LISTED: Final = ("id", "kind", "backend", "state", "aliases")
_OF_MODELS: Final = frozenset({"id", "kind", "state", "leases", "identity", "serving", "keys"})
HEAD: Final = ("model", "kind", "backend", "state", "memory", "running", "waiting", "tokens/s", "place", "aliases")
_FIRST_TO_GO: Final = ("aliases", "place", "kind", "backend", "memory", "waiting")
"""Columns to omit on a narrow terminal, in this order."""
GAP: Final = 2
"""Characters between columns."""
_SECONDS: Final = 10.0
"""Time limit for a list, in seconds."""


def status_of(server: Server, *, seconds: float = SECONDS) -> Status:
    """Return the reply to `GET /status`. Raise NoServer, also if another program replies, or Refused."""
    try:
        status = server.get("/status", seconds=seconds)
    except Refused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        status = None
    try:
        ours = status.keys() >= _KEYS and all(model.keys() >= _OF_MODELS for model in status["models"])
    except (AttributeError, TypeError):
        ours = False
    if not ours:
        raise NoServer(f"the program on {server.address} is not localapi, or another version of it")
    return status  # type: ignore[no-any-return]  # JSON, of the shape that was looked at


def followed(status: Status) -> dict[Path, str]:
    """Return the files that the server follows, as paths on its machine, with the SHA-256 of what it has read."""
    folder = Path(status["manifest"]["folder"])
    return {(folder / file["path"]).resolve(): str(file["sha256"]) for file in status["manifest"]["files"]}


def tell_if_another_is_followed(server: Server, status: Status, manifest: Path) -> None:
    """Warn if the server follows another manifest than this, and so would not see a change of it."""
    files = list(followed(status))
    if manifest.exists() and manifest.resolve() not in files:
        what = str(files[0]) if files else "no file"
        click.echo(f"the server on {server.address} follows {what}, not {manifest.absolute()}", err=True)


@dataclass(frozen=True)
class ModelRow:
    """Row of one model. None means unknown, or not visible with this key."""

    id: str
    kind: str
    backend: str
    state: str
    aliases: Sequence[str]
    memory_bytes: int | None = None
    running: int | None = None
    """Requests that hold the model."""
    waiting: int | None = None
    """Queued requests."""
    tokens_per_second: float | None = None
    progress: Mapping[str, Any] | None = None
    """`phase`, `done` and `total` of a load."""
    pinned: bool | None = None
    last_error: str | None = None
    place: Mapping[str, Any] | None = None
    """Place where it runs: `kind`, `at`, `pid` and `parts`."""
    variant_of: str | None = None
    """Base model, if this is a variant."""
    download_bytes: int | None = None
    """Approximate bytes to download, if files are missing and their size is known."""

    @property
    def told_place(self) -> str:
        """Place where the model runs, unless that is a single process on this machine."""
        return place_in_words(self.place) if self.place else ""

    @property
    def share(self) -> float | None:
        """Load progress from 0 to 1; None if unknown."""
        if not self.progress or not self.progress["total"]:
            return None
        return min(float(self.progress["done"] / self.progress["total"]), 1)

    @property
    def told_state(self) -> str:
        """State, as shown to people."""
        state = self.state.replace("_", " ")
        if self.download_bytes is not None:
            state += f" ({readable(self.download_bytes)})"
        return f"{state}, pinned" if self.pinned else state

    @property
    def told_progress(self) -> str:
        """Phase of a load, and its progress; empty if nothing is loading."""
        if not self.progress:
            return ""
        share = "" if self.share is None else f" {100 * self.share:.0f} %"
        return f"{shown_in_line(str(self.progress['phase']))}{share}"

    def cells(self) -> list[str]:
        """Return the cells for the columns of HEAD."""
        return [
            self.id if self.variant_of is None else f"└ {self.id}", self.kind, self.backend, self.told_state,
            readable(self.memory_bytes) if self.memory_bytes else "",
            *("" if count is None else str(count) for count in (self.running, self.waiting)),
            "" if not self.tokens_per_second else f"{self.tokens_per_second:.1f}", self.told_place,
            ", ".join(self.aliases),
        ]  # fmt: skip

    def json(self) -> dict[str, Any]:
        """Return the row as machine-readable output."""
        return asdict(self)


def fetch(server: Server) -> tuple[list[ModelRow], Status]:
    """Fetch the models, and the status, which is empty if the key has no admin right. Raise NoServer or Refused."""
    try:
        status = status_of(server, seconds=_SECONDS)
    except Refused as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        listed = server.get("/v1/models", seconds=_SECONDS)["data"]
        found = [ModelRow(**{name: model[name] for name in _LISTED}) for model in listed]
        return [replace(row, variant_of=model.get("variant_of")) for row, model in zip(found, listed, strict=True)], {}
    return rows(status), status


def rows(status: Status) -> list[ModelRow]:
    """Return the models of a status in manifest order, each followed by its variants."""
    found: list[ModelRow] = []
    for model in status["models"]:
        row = ModelRow(
            **{name: model[name] for name in (*_LISTED, "pinned", "waiting", "progress", "last_error")},
            memory_bytes=model.get("memory_bytes"),
            running=model["leases"],
            tokens_per_second=model.get("tokens_per_second"),
            place=model.get("place"),
            download_bytes=model.get("download_bytes"),
        )
        found.append(row)
        for variant in model.get("variants") or ():
            said = {"id": variant["id"], "aliases": variant["aliases"], "variant_of": row.id}
            found.append(ModelRow(kind=row.kind, backend=row.backend, state=row.state, **said))
    return found


def place_in_words(place: Mapping[str, Any]) -> str:
    """Return where a model runs: "node box", "peer studio", "2 of 3 members". Empty for a process on this machine."""
    parts = place["parts"]
    if place["kind"] == "members":
        able = sum(part["away"] is None for part in parts)
        return f"{able} of {len(parts)} members"
    words = [place["kind"], place["at"]] if place["at"] else []
    if len(parts) > 1:
        words.append(f"{len(parts)} {parts[0]['kind']}s")
    return shown_in_line(" ".join(words))


def columns(cells: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Return the columns to show: the first four, and the others that have content, as far as there is room."""
    shown = [at for at in range(len(HEAD)) if at < HEAD.index("memory") or any(row[at] for row in cells)]
    widths = {at: max([len(HEAD[at]), *(cell_len(row[at]) for row in cells)]) for at in shown}
    for name in _FIRST_TO_GO:
        if width is None or sum(widths.values()) + GAP * (len(widths) - 1) <= width:
            break
        widths.pop(HEAD.index(name), None)
    return list(widths)


def most_active(found: Sequence[ModelRow], count: int) -> list[ModelRow]:
    """Return at most `count` rows in their order; unloaded, idle models are dropped first, from the end."""
    idle = [at for at, row in enumerate(found) if row.state in ("unloaded", "not_downloaded") and not row.waiting]
    busy = [at for at in range(len(found)) if at not in set(idle)]
    return [found[at] for at in sorted([*busy, *idle][: max(count, 1)])]


def troubles(status: Status) -> Iterator[str]:
    """Yield a line for each current problem: the manifest's last error, failed or unhealthy models, warnings."""
    attempt = status.get("last_attempt")
    if attempt and not attempt["ok"]:
        yield f"the manifest on disk is not applied; still serving revision {attempt['revision']}:"
        yield from (f"  {problem_line(problem)}" for problem in attempt["problems"])
    for model in status.get("models") or ():
        if model.get("peer"):
            continue  # a warning already names the cause on its server
        if model["state"] == "failed" and model["last_error"]:
            yield f"{model['id']}: {shown_in_line(model['last_error'])}"
        elif model.get("healthy") is False:
            yield f"{model['id']}: unhealthy: {shown_in_line(model['unhealthy_reason'] or 'unknown reason')}"
        for part in model["place"]["parts"]:
            if part["away"]:
                yield f"{model['id']}: member {part['name']} gets no requests: {shown_in_line(part['away'])}"
    yield from (shown_in_line(warning) for warning in status.get("warnings") or ())


def problem_line(problem: Mapping[str, Any]) -> str:
    """Return a problem of the manifest with its position, as the server prints it."""
    line = problem["line"]
    place = problem["source"] if line is None else f"{problem['source']}:{line}:{problem['column']}"
    words = [place, problem["key"], problem["message"]]
    return shown_in_line(": ".join(word for word in words if word))


def footer(status: Status) -> str:
    """Describe the server in one line: revision and memory; empty without a status."""
    if not status:
        return ""
    memory = status["memory"]
    budget = f" of {readable(memory['budget_bytes'])}" if memory["budget_bytes"] else ""
    retiring = len(status["retiring"])
    parts = [f"revision {status['revision']}", f"memory {readable(memory['used_bytes'])}{budget}"]
    parts += [f"{retiring} retiring"] if retiring else []
    return " · ".join(parts)
