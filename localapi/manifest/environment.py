"""The environment (and `.env`) as a layer over the files: which variables there are, and which values they set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from localapi.backends.options import Kind
from localapi.errors import ManifestError, Problem, readable, shown
from localapi.manifest.origin import Member, Node, Origin, Scalar, Table

CHAT_ID = "local-chat"
AUDIO_ID = "local-audio"
_AUDIO_DEFAULTS = ("ref_audio", "ref_text", "instruct_text", "source_audio")


class Overrides(BaseSettings):
    """What the environment says about models. Build it with `read()`; `NO_OVERRIDES` says nothing."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    chat_model_id: str | None = None
    chat_model_path: str | None = None
    model_id: str | None = None
    model_path: str | None = None
    audio_model_id: str | None = None
    audio_backend: str | None = None
    audio_model_path: str | None = None
    audio_ref_audio: str | None = None
    audio_ref_text: str | None = None
    audio_instruct_text: str | None = None
    audio_source_audio: str | None = None
    echo_mode: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, values: Mapping[str, object]) -> Mapping[str, object]:
        return {name: value for name, value in values.items() if not (isinstance(value, str) and not value.strip())}

    @classmethod
    def read(cls) -> Self:
        """What the environment and `.env` in the current folder say. Raises ManifestError."""
        try:
            return cls()
        except ValidationError as error:
            raise ManifestError([_unclear(part) for part in error.errors()]) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError([Problem(".env", f"cannot be read: {error}")]) from None

    @property
    def chat_id(self) -> str:
        """The entry that the CHAT variables are about."""
        return self.chat_model_id or self.model_id or CHAT_ID

    @property
    def audio_id(self) -> str:
        """The entry that the AUDIO variables are about."""
        return self.audio_model_id or AUDIO_ID


NO_OVERRIDES = Overrides.model_construct()
"""Says nothing, whatever the environment holds."""


def _unclear(error: ErrorDetails) -> Problem:
    """ECHO_MODE is the only variable that is not text."""
    message = f"should be 1, true, yes, on, 0, false, no or off; found {shown(error['input'])}"
    return Problem(f"environment {str(error['loc'][0]).upper()}", message)


@dataclass(frozen=True)
class _Said:
    """What the variables say about one entry."""

    section: Kind
    entry_id: str
    named_by: str | None
    """The variable that names the entry; None where it is the usual one."""
    backend_if_new: str
    options: dict[str, Scalar]
    defaults: dict[str, Scalar]

    def problem(self) -> Problem:
        """The entry is named, and neither a file nor another variable says what it is."""
        add = "CHAT_MODEL_PATH" if self.section == "chat" else "AUDIO_BACKEND or AUDIO_MODEL_PATH"
        message = (
            f"no file has a {self.section} model {shown(self.entry_id)}; set {add} to add it, or name one that exists"
        )
        return _origin(str(self.named_by)).problem(message, (self.section, self.entry_id))


def layer(overrides: Overrides, lower: Table, *, alone: bool) -> Table:
    """What the environment says, as a layer over `lower`; entries that it describes and `lower` lacks are added.

    `alone` says that there is no manifest: then echo mode adds an entry of each kind. Raises ManifestError where an
    id is all that is known of an entry.
    """
    echo = lower.get("echo")
    members: dict[str, Member] = {}
    if overrides.echo_mode is not None:
        echo = Scalar(overrides.echo_mode, str(overrides.echo_mode).lower(), _origin("ECHO_MODE"))
        members["echo"] = Member(echo.origin, echo)
    echo_origin = echo.origin if isinstance(echo, Scalar) and echo.value is True else None
    unknown: list[Problem] = []
    for said in (_chat(overrides), _audio(overrides)):
        entries = lower.table(said.section)
        options = dict(said.options)
        if entries is None or said.entry_id not in entries.members:
            if options or said.defaults:
                first = next(iter((options or said.defaults).values()))
                options.setdefault("backend", _text(said.backend_if_new, first.origin))
            elif echo_origin and (alone or said.named_by):
                options["backend"] = _text("echo", echo_origin)
            elif said.named_by:
                unknown.append(said.problem())
        if options or said.defaults:
            entry = _table({**options, **({"defaults": _table(said.defaults)} if said.defaults else {})})
            members[said.section] = Member(entry.origin, _table({said.entry_id: entry}))
    if unknown:
        raise ManifestError(unknown)
    return Table(members, _origin(""))


def _chat(overrides: Overrides) -> _Said:
    named_by = "CHAT_MODEL_ID" if overrides.chat_model_id else "MODEL_ID" if overrides.model_id else None
    path = overrides.chat_model_path or overrides.model_path
    origin = _origin("CHAT_MODEL_PATH" if overrides.chat_model_path else "MODEL_PATH")
    if overrides.chat_model_path and overrides.model_path not in (None, overrides.chat_model_path):
        origin = replace(origin, note=f"MODEL_PATH={readable(overrides.model_path or '')} is not used")
    return _Said("chat", overrides.chat_id, named_by, "mlx-lm", {"path": _text(path, origin)} if path else {}, {})


def _audio(overrides: Overrides) -> _Said:
    named_by = "AUDIO_MODEL_ID" if overrides.audio_model_id else None
    options = {"backend": overrides.audio_backend, "path": overrides.audio_model_path}
    variables = {"backend": "AUDIO_BACKEND", "path": "AUDIO_MODEL_PATH"}
    defaults = {name: getattr(overrides, f"audio_{name}") for name in _AUDIO_DEFAULTS}
    return _Said(
        "speech",
        overrides.audio_id,
        named_by,
        "auto",
        {name: _text(value, _origin(variables[name])) for name, value in options.items() if value},
        {name: _text(value, _origin(f"AUDIO_{name.upper()}")) for name, value in defaults.items() if value},
    )


def _origin(variable: str) -> Origin:
    return Origin(f"environment {variable}".strip(), Path.cwd())


def _text(value: str, origin: Origin) -> Scalar:
    return Scalar(value, value, origin)


def _table(nodes: Mapping[str, Node]) -> Table:
    """A table of at least one member, which lends it its origin."""
    members = {key: Member(node.origin, node) for key, node in nodes.items()}
    return Table(members, next(iter(members.values())).origin)
