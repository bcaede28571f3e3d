"""The shape of a manifest: its top level, its sections, and which backends each section knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast, get_args

from pydantic import BaseModel, ConfigDict, Field

from localapi.backends import ChatEntry, SpeechEntry
from localapi.backends.options import Kind
from localapi.manifest.entries import Options, ServerOptions


class Document(BaseModel):
    """The top level. Entries are checked one by one, with the options of the backend that each names."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    server: Annotated[ServerOptions, Field(description="What is not about one model.")] = ServerOptions()
    echo: Annotated[bool, Field(description="Every entry answers with echo; no model is loaded.")] = False
    chat: Annotated[dict[str, dict[str, object]], Field(description="Chat models, by their ids.")] = {}
    speech: Annotated[dict[str, dict[str, object]], Field(description="Speech models, by their ids.")] = {}


def _backends(union: object) -> Mapping[str, type[Options]]:
    classes = cast("tuple[type[Options], ...]", get_args(get_args(union)[0]))
    return {get_args(options.model_fields["backend"].annotation)[0]: options for options in classes}


SECTIONS: Mapping[Kind, Mapping[str, type[Options]]] = {"chat": _backends(ChatEntry), "speech": _backends(SpeechEntry)}
"""The options of each backend, by section and name."""


def known_options(section: Kind, backend: object) -> frozenset[str]:
    """The keys that an entry of this backend may have; none where there is no such backend."""
    options = SECTIONS[section].get(backend) if isinstance(backend, str) else None
    return frozenset(options.model_fields) if options else frozenset()
