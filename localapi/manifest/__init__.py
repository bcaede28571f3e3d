"""The manifest: from YAML, profile and environment to one frozen value, or errors with line numbers."""

from localapi.manifest.changing import Patch
from localapi.manifest.description import Row, describe
from localapi.manifest.entries import Entry, Manifest, fingerprint
from localapi.manifest.environment import NO_OVERRIDES, Overrides
from localapi.manifest.excerpts import shown_lines
from localapi.manifest.keys import Key, holder
from localapi.manifest.profiles import profile_names
from localapi.manifest.reading import ManifestSource, read
from localapi.manifest.reference import markdown
from localapi.manifest.saving import (
    Draft,
    Edit,
    adding,
    changing,
    content_of,
    digest_of,
    names_in,
    removing,
    unified,
    value_of,
)
from localapi.manifest.schema import json_schema
from localapi.manifest.server_options import LogLevel, ResponsesOptions, ServerOptions
from localapi.manifest.text import text_of
from localapi.manifest.written import Written, written_in

__all__ = [
    "NO_OVERRIDES",
    "Draft",
    "Edit",
    "Entry",
    "Key",
    "LogLevel",
    "Manifest",
    "ManifestSource",
    "Overrides",
    "Patch",
    "ResponsesOptions",
    "Row",
    "ServerOptions",
    "Written",
    "adding",
    "changing",
    "content_of",
    "describe",
    "digest_of",
    "fingerprint",
    "holder",
    "json_schema",
    "markdown",
    "names_in",
    "profile_names",
    "read",
    "removing",
    "shown_lines",
    "text_of",
    "unified",
    "value_of",
    "written_in",
]
