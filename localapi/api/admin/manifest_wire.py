"""Bodies and replies of the endpoints of `/admin/manifest`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Struct
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from localapi.api.admin.attempt_status import ProblemReply
from localapi.api.openai.wire import ErrorDetails
from localapi.kinds import KINDS
from localapi.manifest import Patch
from localapi.reload.plan import Does

SERVER: Final = "server"
PEERS: Final = "peers"
MOST_CHANGES: Final = 100
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class WrittenReply(Struct, kw_only=True):
    """An entry, a peer or the server's options, as written in the file. Marks stand for possible secrets."""

    section: str
    id: Annotated[str, Meta(description="Empty for the server's options.")]
    file: Annotated[str, Meta(description="The manifest file, or one that it includes.")]
    line: int
    options: dict[str, Any]
    inherited: Annotated[dict[str, Any], Meta(description="Values inherited by `<<`.")]
    yaml: str
    overridden: Annotated[
        dict[str, str], Meta(description="Options set by a profile or the environment, with their source.")
    ]


class ElsewhereReply(Struct, kw_only=True):
    """Entry that is in none of the files."""

    section: str
    id: str
    origin: str


class LastSaveReply(Struct, kw_only=True):
    """The last save from here, which can be undone."""

    what: str
    at: float
    sha256: Annotated[str, Meta(description="Digest of the resulting file.")]


class FileDigest(Struct, kw_only=True):
    """One of the manifest's files."""

    path: str
    sha256: Annotated[str | None, Meta(description="Null: there is no file yet.")]


class ManifestContent(Struct, kw_only=True):
    """The manifest file, and the files that it includes."""

    path: str
    sha256: Annotated[str | None, Meta(description="Null: there is no file yet.")]
    files: Annotated[list[FileDigest], Meta(description="The file, and the files that it includes.")]
    profile: str | None
    refusal: Annotated[str | None, Meta(description="Reason why it cannot be edited here.")]
    written: list[WrittenReply]
    elsewhere: list[ElsewhereReply]
    undo: Annotated[LastSaveReply | None, Meta(description="Null if there is nothing to undo.")]


class PlannedChange(Struct, kw_only=True):
    """Effect of a change on one model."""

    id: str
    kind: str
    does: Does
    says: str
    keys: list[str]
    requests: int
    loads: Annotated[bool, Meta(description="True if it loads at once.")]
    expected_bytes: Annotated[
        int | None, Meta(description="Memory that it will use; null if unknown, or on another machine.")
    ]
    obstacle: Annotated[str | None, Meta(description="Reason why it will not load.")]


class MemoryFit(Struct, kw_only=True):
    """Memory after the change, as far as known."""

    budget_bytes: int | None
    used_bytes: int
    more_bytes: Annotated[int, Meta(description="Memory of the models that load at once.")]
    fits: Annotated[bool | None, Meta(description="Null without a budget.")]


class PlanReply(Struct, kw_only=True):
    """Effect of a change to the file."""

    sha256: Annotated[str, Meta(description="Digest of the file with the change.")]
    diff: Annotated[str, Meta(description="Changed lines, with possible secrets hidden.")]
    changes: list[PlannedChange]
    server: Annotated[list[str], Meta(description="Options of the server that change.")]
    memory: MemoryFit


class SavedReply(Struct, kw_only=True):
    """The file is saved, and the server is reading it."""

    sha256: str
    diff: str


class ConflictReply(Struct, kw_only=True):
    """The file was not changed."""

    error: ErrorDetails
    diff: Annotated[str, Meta(description="Changes in the file since the client read it.")] = ""


class InvalidReply(Struct, kw_only=True):
    """The file was not changed, because it would be invalid."""

    error: ErrorDetails
    problems: list[ProblemReply]


class PatchRequest(BaseModel):
    """Change of one entry: its options, or its lines. With neither, it is removed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    section: str
    id: Annotated[str, Field(max_length=200)] = ""
    options: dict[str, JsonValue] | None = None
    yaml: str | None = None
    new_id: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    remove: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> PatchRequest:
        if self.section not in (*KINDS, PEERS, SERVER):
            raise ValueError(f"section should be one of {', '.join((*KINDS, PEERS, SERVER))}")
        if (self.section == SERVER) == bool(self.id):
            raise ValueError("id should name an entry or a peer; the section server has none")
        if (self.options is not None) + (self.yaml is not None) + self.remove != 1:
            raise ValueError("should have options, or yaml, or remove: true")
        return self

    def patch(self) -> Patch:
        """Return the change for the editor."""
        return Patch(self.section, self.id, self.options, self.yaml, self.new_id)


class EditRequest(BaseModel):
    """Changes of a file with this digest."""

    model_config = ConfigDict(strict=True, frozen=True)

    file: Annotated[
        str | None, Field(max_length=4096, description="Path of an included file, as in `files`; null: the manifest.")
    ] = None
    sha256: Annotated[
        Sha256 | None, Field(description="As returned by GET /admin/manifest; null: there is no file.")
    ] = None
    changes: Annotated[list[PatchRequest], Field(min_length=1, max_length=MOST_CHANGES)]


class UndoRequest(BaseModel):
    """Digest of the file that the last save made."""

    model_config = ConfigDict(strict=True, frozen=True)

    sha256: Sha256
