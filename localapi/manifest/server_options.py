"""Options of the server as a whole, and the top level of a manifest: these, peers, and a section for each kind."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from localapi.backends.openai import MAX_PORT, server_url
from localapi.backends.option_types import StrictModel
from localapi.backends.options import FOREVER, Duration, MemorySize, Name
from localapi.backends.peer import SEPARATOR, PeerOptions
from localapi.backends.place import ClusterOptions
from localapi.kinds import KINDS
from localapi.manifest.keys import KeyOptions

LogLevel = Literal["debug", "info", "warning", "error"]

EXTENSION: Final = "x-"
"""Prefix of top-level keys without a meaning of their own; they hold anchors."""
INCLUDE: Final = "include"
"""Top-level key that names further files."""
_MINUTES = 60.0
_DAYS = 86400.0
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:(\d{1,5}|\*))?")


def _host_name(value: object) -> object:
    if isinstance(value, str) and not _HOST.fullmatch(value.lower()):
        raise ValueError("should be a name or an address, without http:// and without a port")
    return value.lower() if isinstance(value, str) else value


def _origin(value: object) -> object:
    if isinstance(value, str) and not _ORIGIN.fullmatch(value.lower()):
        raise ValueError(
            "should be an origin such as https://chat.example or http://localhost:*, without a path; "
            "allowing all pages is not possible"
        )
    return value.lower() if isinstance(value, str) else value


def _peer_name(name: str) -> str:
    if SEPARATOR in name or "*" in name:
        raise ValueError(f"should be a name without {SEPARATOR} and *")
    return name


PeerName = Annotated[Name, AfterValidator(_peer_name)]
HostName = Annotated[str, BeforeValidator(_host_name)]
OriginPattern = Annotated[str, BeforeValidator(_origin)]


class ResponsesOptions(StrictModel):
    """Limits on the age and size of stored responses of `/v1/responses`."""

    keep: Annotated[
        Duration,
        Field(
            description="Delete responses unused for this time; 0: store none.",
            examples=["7d"],
        ),
    ] = 30 * _DAYS
    max_mb: Annotated[
        int,
        Field(
            ge=0,
            description="Disk space for all responses; the least recently used are deleted first. 0: store none.",
            examples=[1024],
        ),
    ] = 256


class CaptureOptions(StrictModel):
    """Limits of the latest requests and replies that are kept in memory."""

    requests: Annotated[
        int, Field(ge=1, le=10_000, description="Maximum requests to keep, with their replies.", examples=[20])
    ] = 100
    max_mb: Annotated[
        int, Field(ge=1, le=1024, description="Memory for their bodies; the oldest are dropped first.", examples=[64])
    ] = 16
    contents: Annotated[
        bool, Field(description="Keep contents of requests and replies; if false, only times, sizes and statuses.")
    ] = True


class TraceOptions(StrictModel):
    """Destination and content of traces."""

    endpoint: Annotated[
        str | None,
        AfterValidator(lambda url: None if url is None else server_url(url)),
        Field(
            description="Base URL of a collector, for OTLP over HTTP; null: from the OTEL_ variables.",
            examples=["http://127.0.0.1:4318"],
        ),
    ] = None
    contents: Annotated[bool, Field(description="Also send the contents of requests and replies.")] = False


class ServerOptions(StrictModel):
    """Options of the server as a whole; changes apply while it runs."""

    drain_seconds: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Maximum time that a shutdown waits for running requests, in seconds.",
            examples=[60],
        ),
    ] = 30.0
    keep_alive: Annotated[
        Duration,
        Field(
            description="keep_alive of entries that do not set it: 30s, 15m, 0 (at once), forever.",
            examples=["1h"],
        ),
    ] = 15 * _MINUTES
    max_keep_alive: Annotated[
        Duration,
        Field(
            description="max_keep_alive of entries that do not set it: longest keep_alive that a request may set.",
            examples=["1h"],
        ),
    ] = FOREVER
    memory_budget: Annotated[
        MemorySize,
        Field(
            description="Maximum memory for all models together: 8GB, 75% (of the machine's memory); null: no limit.",
            examples=["75%"],
        ),
    ] = None
    log_level: Annotated[LogLevel, Field(description="Minimum level of log messages.")] = "info"
    api_keys: Annotated[
        dict[Name, KeyOptions],
        Field(
            description="API keys by name; if there are any, every request needs one. See docs/security.md.",
            examples=[{"laptop": {"env": "LAPTOP_KEY", "admin": True}}],
        ),
    ] = {}
    cluster: Annotated[
        ClusterOptions | None,
        Field(
            description="Cluster of machines, for entries with `place`. See docs/machines.md.",
            examples=[{"ray": "auto"}],
        ),
    ] = None
    allowed_hosts: Annotated[
        list[HostName],
        Field(
            description="Additional names of this server in the Host header, besides localhost and HOST; without port.",
            examples=[["studio.local"]],
        ),
    ] = []
    allowed_origins: Annotated[
        list[OriginPattern],
        Field(
            description="Additional web origins that may use this server: https://chat.example, or "
            "http://192.168.1.5:* for any port.",
            examples=[["https://chat.example"]],
        ),
    ] = []
    console_edits: Annotated[
        bool | Literal["all"],
        Field(
            description="Allow the console to edit this file; all: even programs and secrets without an admin key. See "
            "docs/console.md.",
            examples=["all"],
        ),
    ] = True
    capture: Annotated[
        CaptureOptions | None,
        Field(
            description="Keep the latest requests and replies in memory, for the console. See docs/observing.md.",
            examples=[{"requests": 50}],
        ),
    ] = None
    history: Annotated[
        bool,
        Field(description="Record the usage of models and keys by hour and day. See docs/observing.md."),
    ] = True
    traces: Annotated[
        TraceOptions | None,
        Field(
            description="Send traces of requests to an OpenTelemetry collector. See docs/observing.md.",
            examples=[{"endpoint": "http://127.0.0.1:4318"}],
        ),
    ] = None
    responses: Annotated[
        ResponsesOptions,
        Field(
            description="Storage of responses of /v1/responses. See docs/responses.md.",
            examples=[{"keep": "7d"}],
        ),
    ] = ResponsesOptions()
    ollama_port: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_PORT,
            description="Additional port for clients that expect Ollama on its own port: 11434.",
            examples=[11434],
        ),
    ] = None


class TopLevel(StrictModel):
    """Top level of a manifest. Entries are checked one by one, with the options of their backend."""

    include: Annotated[
        str | list[str],
        Field(
            description="Further files of this manifest: paths and patterns, relative to this file. "
            "See docs/writing-manifests.md.",
            examples=[["models.d/*.yaml"]],
        ),
    ] = []
    server: Annotated[ServerOptions, Field(description="Options of the server as a whole.")] = ServerOptions()
    peers: Annotated[
        dict[PeerName, PeerOptions],
        Field(
            description="Other localapi servers by name. Their models are available here as NAME/MODEL. See "
            "docs/machines.md.",
            examples=[{"studio": {"url": "http://studio.local:8000", "key": {"env": "STUDIO_KEY"}}}],
        ),
    ] = {}
    echo: Annotated[bool, Field(description="Let every entry answer with the backend echo; no model is loaded.")] = (
        False
    )


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
