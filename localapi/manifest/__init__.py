"""The manifest: YAML, profile and environment in, one frozen value out, or errors that name the line."""

from localapi.manifest.description import Row, describe
from localapi.manifest.entries import (
    Entry,
    LogLevel,
    Manifest,
    ManifestFile,
    ResponsesOptions,
    ServerOptions,
    fingerprint,
)
from localapi.manifest.environment import NO_OVERRIDES, Overrides
from localapi.manifest.keys import Key, holder
from localapi.manifest.profiles import profile_names
from localapi.manifest.reading import ManifestSource, read
from localapi.manifest.reference import markdown
from localapi.manifest.saving import Edit, adding, names_in, removing, value_of
from localapi.manifest.schema import json_schema

__all__ = [
    "NO_OVERRIDES",
    "Edit",
    "Entry",
    "Key",
    "LogLevel",
    "Manifest",
    "ManifestFile",
    "ManifestSource",
    "Overrides",
    "ResponsesOptions",
    "Row",
    "ServerOptions",
    "adding",
    "describe",
    "fingerprint",
    "holder",
    "json_schema",
    "markdown",
    "names_in",
    "profile_names",
    "read",
    "removing",
    "value_of",
]
