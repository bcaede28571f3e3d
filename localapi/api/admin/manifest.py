"""`/admin/manifest`: the manifest's files as data, the effect of a change, saving a change, and undoing it.

The files are authoritative: a change is made for one file with one digest, and refused if an editor has saved the file
in the meantime.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel
from quart import Response

from localapi.api.admin.attempt_status import problem_replies
from localapi.api.admin.manifest_wire import (
    ConflictReply,
    EditRequest,
    ElsewhereReply,
    FileDigest,
    InvalidReply,
    LastSaveReply,
    ManifestContent,
    MemoryFit,
    PlannedChange,
    PlanReply,
    SavedReply,
    UndoRequest,
    WrittenReply,
)
from localapi.api.admin.status import StatusReply
from localapi.api.dialect import ApiBlueprint
from localapi.api.openai.wire import ErrorReply, error_body
from localapi.api.operation import JSON, Operation, Operations
from localapi.errors import (
    ApiError,
    CannotEdit,
    EditConflict,
    EditRefused,
    FileChanged,
    InvalidManifest,
    ManifestError,
)
from localapi.http import request_context
from localapi.http.body import name_ignored, parse, read_object
from localapi.http.edit_rights import EditRights
from localapi.http.replies import json_reply
from localapi.manifest import Draft, Edit, Manifest, Written, json_schema
from localapi.reload.editor import Editor, Look
from localapi.reload.fit import need_of, obstacle_of
from localapi.reload.plan import Change, plan, words_of
from localapi.reload.protected import protected_changes
from localapi.reload.reloader import Reloader
from localapi.system.threads import aside

log = logging.getLogger(__name__)

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


class ManifestEndpoints:
    """The endpoints. Everything that touches files runs in a thread."""

    def __init__(
        self, editor: Editor, reloader: Reloader, status: Callable[[], StatusReply], rights: EditRights
    ) -> None:
        self._editor = editor
        self._reloader = reloader
        self._status = status
        self._rights = rights

    def blueprint(self) -> ApiBlueprint:
        """Return the routes."""
        blueprint = ApiBlueprint("manifest", edit_error_body)
        blueprint.get("/admin/manifest")(self.content)
        blueprint.get("/admin/manifest/schema")(self.schema)
        blueprint.post("/admin/manifest/plan")(self.plan)
        blueprint.post("/admin/manifest/save")(self.save)
        blueprint.post("/admin/manifest/undo")(self.undo)
        return blueprint

    async def content(self) -> Response:
        """Return the files as data. Raise InvalidManifest if one is not YAML."""
        looks = await self._aside(self._editor.look)
        last = self._editor.last_of(*(each.sha256 for each in looks))
        reply = ManifestContent(
            path=str(looks[0].path),
            sha256=looks[0].sha256,
            files=[FileDigest(path=str(each.path), sha256=each.sha256) for each in looks],
            profile=self._status().manifest.profile,
            refusal=self._rights.refusal(),
            written=[_written(each, self._reloader.served, str(look.path)) for look in looks for each in look.written],
            elsewhere=_elsewhere(self._reloader.served, looks),
            undo=LastSaveReply(what=last.what, at=last.at, sha256=last.edit.sha256) if last is not None else None,
        )
        return json_reply(reply)

    async def schema(self) -> Response:
        """Return the JSON Schema of the file, from which forms are made."""
        return json_reply(await aside(_schema))

    async def plan(self) -> Response:
        """Return the effect of a change, without saving it."""
        asked, ignored = await _read(EditRequest)
        draft = await self._draft(asked)
        status = self._status()
        reply = await aside(lambda: _plan_reply(draft, status))
        return name_ignored(ignored, json_reply(reply))

    async def save(self) -> Response:
        """Save a change, and let the server read the file."""
        asked, ignored = await _read(EditRequest)
        draft = await self._draft(asked)
        what = ", ".join(str(each.patch()) for each in asked.changes)
        edit = await self._aside(lambda: self._editor.save(draft, what), asked.sha256, asked.file)
        return self._saved(edit, what, ignored)

    async def undo(self) -> Response:
        """Restore the file as before the last save from here."""
        self._rights.check()
        asked, ignored = await _read(UndoRequest)
        edit = await self._aside(lambda: self._editor.undo(asked.sha256))
        return self._saved(edit, "last change undone", ignored)

    def _saved(self, edit: Edit, what: str, ignored: list[str]) -> Response:
        log.info("%s: %s saved: %s", request_context.current().id, edit.path, what)
        self._reloader.trigger_by_hand()
        return name_ignored(ignored, json_reply(SavedReply(sha256=edit.sha256, diff=edit.shown_diff())))

    async def _draft(self, asked: EditRequest) -> Draft:
        """Return a change that the client may make. Raise Forbidden, EditRefused or InvalidManifest."""
        self._rights.check()
        patches = [each.patch() for each in asked.changes]
        draft = await self._aside(
            lambda: self._editor.draft(asked.file, patches, asked.sha256), asked.sha256, asked.file
        )
        self._rights.check_protected(protected_changes(self._reloader.served, draft.manifest))
        return draft

    async def _aside(self, call: Callable[[], T], sha256: str | None = None, file: str | None = None) -> T:
        """Run a call for a file with this digest in a thread, and raise its errors as API errors."""
        try:
            return await aside(call)
        except FileChanged as error:
            diff = await aside(lambda: self._editor.changes_since(file, sha256))
            raise EditConflict(f"{error}. Reload it, and repeat the change.", diff=diff) from None
        except CannotEdit as error:
            raise EditRefused(f"{error}.") from None
        except ManifestError as error:
            raise InvalidManifest(error) from None


_CHANGE: Final = Operation(
    summary="Show what a change of the manifest would do.",
    body=EditRequest,
    example={"sha256": "0" * 64, "changes": [{"section": "chat", "id": "demo", "options": {"pin": True}}]},
    content={JSON: PlanReply},
    errors=frozenset({400, 413, 415}),
    others={409: ConflictReply, 422: InvalidReply},
)
OPERATIONS: Final[Operations] = {
    ("GET", "/admin/manifest"): Operation(
        summary="The manifest file as data.",
        content={JSON: ManifestContent},
        others={409: ConflictReply, 422: InvalidReply},
    ),
    ("GET", "/admin/manifest/schema"): Operation(summary="The JSON Schema of the manifest.", content={JSON: None}),
    ("POST", "/admin/manifest/plan"): _CHANGE,
    ("POST", "/admin/manifest/save"): replace(_CHANGE, summary="Change the manifest file.", content={JSON: SavedReply}),
    ("POST", "/admin/manifest/undo"): replace(
        _CHANGE,
        summary="Undo the last change.",
        body=UndoRequest,
        example={"sha256": "0" * 64},
        content={JSON: SavedReply},
    ),
}


def edit_error_body(error: ApiError) -> object:
    """Return the JSON of an error, with the changes since, or with the problems of the manifest."""
    details = error_body(error).error
    if isinstance(error, EditRefused):
        return ConflictReply(error=details, diff=error.diff)
    if isinstance(error, InvalidManifest):
        return InvalidReply(error=details, problems=problem_replies(error.problems))
    return ErrorReply(details)


@functools.cache
def _schema() -> dict[str, Any]:
    return json_schema()


async def _read(model: type[Body]) -> tuple[Body, list[str]]:
    """Return the body of the request, and the names of unknown fields."""
    content = await read_object()
    return parse(model, content), [name for name in content if name not in model.model_fields]


def _written(each: Written, served: Manifest | None, path: str) -> WrittenReply:
    overridden: dict[str, str] = {}
    for key, said in served.said.items() if served is not None else ():
        if key[: len(each.path)] == each.path and said.origin.source != path:
            overridden[".".join(map(str, key[len(each.path) :]))] = str(said.origin)
    return WrittenReply(
        section=each.section,
        id=each.id,
        file=path,
        line=each.line,
        options=dict(each.options),
        inherited=dict(each.inherited),
        yaml=each.yaml,
        overridden=overridden,
    )


def _elsewhere(served: Manifest | None, looks: Sequence[Look]) -> list[ElsewhereReply]:
    """Return the server's entries that come from elsewhere than these files."""
    here = {(each.section, each.id) for look in looks for each in look.written}
    files = {str(look.path) for look in looks}
    found: list[ElsewhereReply] = []
    for entry in served.declared.values() if served is not None else ():
        if (entry.kind.name, entry.id) in here:
            continue
        said = served.said if served is not None else {}
        origins = [each.origin for key, each in said.items() if key[:2] == (entry.kind.name, entry.id)]
        if origins and origins[0].source not in files:  # otherwise it has just been removed from its file
            found.append(ElsewhereReply(section=entry.kind.name, id=entry.id, origin=str(origins[0])))
    return found


def _plan_reply(draft: Draft, status: StatusReply) -> PlanReply:
    """Return the effect of a draft. Blocks, because it reads the sizes of files."""
    found = plan(draft.manifest, msgspec.to_builtins(status))
    budget = draft.manifest.server.memory_budget
    changes = [_planned(change, draft.manifest, budget) for change in found.changes]
    more = sum(each.expected_bytes or 0 for each in changes if each.loads and each.does != "cold")
    used = status.memory.used_bytes
    return PlanReply(
        sha256=draft.edit.sha256,
        diff=draft.edit.shown_diff(),
        changes=changes,
        server=list(found.server),
        memory=MemoryFit(
            budget_bytes=budget,
            used_bytes=used,
            more_bytes=more,
            fits=None if budget is None else used + more <= budget,
        ),
    )


def _planned(change: Change, manifest: Manifest, budget: int | None) -> PlannedChange:
    entry = manifest.entries.get(change.id)
    loads = change.does in ("warm", "cold") or (
        change.does == "added" and entry is not None and entry.options.wants_loading
    )
    expected, obstacle = None, None
    if entry is not None and change.does not in ("in place", "removed"):
        expected = need_of(entry.options)
        obstacle = obstacle_of(entry, expected, budget)
    return PlannedChange(
        id=change.id,
        kind=change.kind,
        does=change.does,
        says=words_of(change),
        keys=list(change.keys),
        requests=change.requests,
        loads=loads,
        expected_bytes=expected,
        obstacle=obstacle,
    )
