"""The shape of a manifest: its top level, and a section for each kind."""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from localapi.kinds import KINDS
from localapi.manifest.entries import ServerOptions


class TopLevel(BaseModel):
    """Options of the server as a whole. Entries are checked one by one, with the options of their backend."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    server: Annotated[ServerOptions, Field(description="Options of the server as a whole.")] = ServerOptions()
    echo: Annotated[bool, Field(description="Every entry answers with echo; no model is loaded.")] = False


def document() -> type[TopLevel]:
    """Return the class of a whole manifest: the top level with the sections of all kinds."""
    return _document(tuple(KINDS))


@functools.cache
def _document(sections: tuple[str, ...]) -> type[TopLevel]:
    fields: dict[str, Any] = {
        name: (Annotated[dict[str, dict[str, object]], Field(description=KINDS[name].description)], {})
        for name in sections
    }
    return create_model("Document", __base__=TopLevel, **fields)


def known_options(section: str, backend: object) -> frozenset[str]:
    """Return the keys that an entry with this backend may have; none if there is no such backend."""
    options = KINDS[section].backends.get(backend) if isinstance(backend, str) else None
    return frozenset(options.model_fields) if options else frozenset()
