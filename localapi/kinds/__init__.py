"""Kinds of model: everything that lists kinds iterates over KINDS, and nothing else names one.

A new kind is one file here, a backend, the endpoints that it names, and a console page if it has one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localapi.kinds.chat import CHAT
from localapi.kinds.embedding import EMBEDDING
from localapi.kinds.kind import Kind, ModelObject, Variables, by_name
from localapi.kinds.rerank import RERANK
from localapi.kinds.speech import SPEECH
from localapi.kinds.transcription import TRANSCRIPTION

__all__ = [
    "CHAT",
    "EMBEDDING",
    "KINDS",
    "RERANK",
    "SPEECH",
    "TRANSCRIPTION",
    "Kind",
    "ModelObject",
    "Variables",
    "by_name",
    "recognize",
    "recognize_place",
    "register",
]

KINDS: dict[str, Kind] = {}
"""Every kind by name, in the order of the manifest's sections."""


def register(kind: Kind) -> None:
    """Add a kind, before the manifest is read. Raise ValueError if its name is taken."""
    if kind.name in KINDS:
        raise ValueError(f"there is a kind {kind.name!r} already")
    KINDS[kind.name] = kind


register(CHAT)
register(SPEECH)
register(TRANSCRIPTION)
register(EMBEDDING)
register(RERANK)


def recognize(config: Mapping[str, Any], name: str) -> tuple[Kind, str] | None:
    """Return the kind and the backend of a model by its config.json and its name, or None if these do not show them."""
    for kind in KINDS.values():
        if (backend := kind.recognize(config, name)) is not None:
            return kind, backend
    return None


def recognize_place(place: Path) -> tuple[Kind, str] | None:
    """Return the kind and the backend of a folder or file. Raise ValueError for an invalid config.json."""
    config = place / "config.json"
    if config.is_file():
        content = json.loads(config.read_text("utf-8"))
        return recognize(content, place.name) if isinstance(content, dict) else None
    for kind in KINDS.values():
        if (backend := kind.recognize_place(place)) is not None:
            return kind, backend
    return None
