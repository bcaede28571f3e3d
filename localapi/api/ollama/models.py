"""Ollama's endpoints about models (the list, capabilities, loaded models), and its embeddings."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType, to_builtins
from pydantic import BaseModel, Field
from quart import Blueprint, Response

import localapi
from localapi.api.dialect import ApiBlueprint
from localapi.api.keep_alive import KeepAlive
from localapi.api.ollama import wire
from localapi.api.openai import models as openai
from localapi.api.openai.embeddings import MOST_INPUTS, EmbeddingRequest, vectors_of
from localapi.api.openai.generation_request import unknown_fields
from localapi.api.operation import ERRORS_OF_WORK, JSON, Operation, Operations
from localapi.backends.options import FOREVER, EntryOptions
from localapi.errors import Forbidden, InvalidRequest
from localapi.http import body
from localapi.http.body import RequestBody
from localapi.http.generation import begin
from localapi.http.replies import json_reply, json_reply_of_vectors
from localapi.kinds import CHAT, EMBEDDING
from localapi.kinds.chat import ChatModel
from localapi.manifest import Entry
from localapi.runtime.registry import Registry
from localapi.system.threads import aside
from localapi.worker.protocol import Capabilities

SPOKEN_VERSION: Final = "0.13.5"
"""Version of Ollama whose API this is. Clients compare it with the version that they need."""
FACTS_SECONDS: Final = 1.0
"""Time limit for reading facts about a model's files from a drive."""
_NEVER: Final = datetime(2300, 1, 1, tzinfo=UTC)
_NANOSECONDS: Final = 1_000_000_000


class OllamaVersion(Struct):
    version: str
    localapi: str


class OllamaDetails(Struct, kw_only=True):
    """Facts from a model's files; empty if the files do not contain them."""

    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: list[str] = []
    parameter_size: str = ""
    quantization_level: str = ""


class OllamaModel(Struct, kw_only=True):
    """Model that the manifest offers."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


class OllamaModels(Struct):
    """All models for text and embeddings."""

    models: list[OllamaModel]


class OllamaRunningModel(Struct, kw_only=True):
    """A model in memory."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: int
    context_length: int | UnsetType = UNSET


class OllamaRunningModels(Struct):
    """All models in memory."""

    models: list[OllamaRunningModel]


class OllamaThinking(Struct):
    """Values of `think` for a model."""

    values: list[bool | str]
    default: bool | str


class OllamaShown(Struct, kw_only=True):
    """One model."""

    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    thinking: OllamaThinking | UnsetType = UNSET
    modified_at: str


class OllamaVectors(Struct, kw_only=True):
    """Vectors of texts, in order."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int = 0
    prompt_eval_count: int


class OllamaVector(Struct):
    """Vector of one text."""

    embedding: list[float]


class OllamaEmbedRequest(RequestBody):
    """Texts to embed."""

    model: wire.ModelName
    input: str | Annotated[list[str], Field(max_length=MOST_INPUTS)]
    truncate: bool = True
    dimensions: Annotated[int | None, Field(ge=1)] = None
    keep_alive: KeepAlive = None


class OllamaEmbeddingsRequest(RequestBody):
    """Text to embed, in the older form."""

    model: wire.ModelName
    prompt: Annotated[str, Field(min_length=1)]
    keep_alive: KeepAlive = None


CHANGES: Final = (
    ("POST", "/api/pull"),
    ("POST", "/api/create"),
    ("POST", "/api/push"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
)
"""Ollama's requests that change models, which only the manifest does here."""


def routes(registry: Registry) -> Blueprint:
    """Return the endpoints."""
    blueprint = ApiBlueprint("ollama", wire.error_body)

    @blueprint.get("/api/version")
    async def version() -> Response:
        return json_reply(OllamaVersion(SPOKEN_VERSION, localapi.__version__))

    @blueprint.get("/api/tags")
    async def tags() -> Response:
        entries = [entry for entry in registry.offered if entry.kind in (CHAT, EMBEDDING)]
        facts = await asyncio.gather(*(facts_of(entry.options) for entry in entries))
        modified = wire.at(datetime.fromtimestamp(registry.started_at, UTC))
        return json_reply(
            OllamaModels(
                [
                    OllamaModel(
                        name=entry.id,
                        model=entry.id,
                        modified_at=modified,
                        size=found.size,
                        digest=digest_of(entry),
                        details=found.details,
                    )
                    for entry, found in zip(entries, facts, strict=True)
                ]
            )
        )

    @blueprint.post("/api/show")
    async def show() -> Response:
        asked = body.parse(wire.NamedModel, await body.read_object())
        name = asked.model or asked.name
        if name is None:
            raise InvalidRequest("Name a model.", param="model", code="missing_required_parameter")
        return json_reply(await shown(registry, registry.resolve(wire.known_name(registry, name))))

    @blueprint.get("/api/ps")
    async def running() -> Response:
        loaded = [entry for entry in registry.offered if registry.instance(entry.id).engine is not None]
        facts = await asyncio.gather(*(facts_of(entry.options) for entry in loaded))
        return json_reply(OllamaRunningModels([_running(registry, *each) for each in zip(loaded, facts, strict=True)]))

    @blueprint.post("/api/embed")
    async def embed() -> Response:
        content = await body.read_object()
        asked = body.parse(OllamaEmbedRequest, content)
        inputs = [asked.input] if isinstance(asked.input, str) else asked.input
        started = time.monotonic()
        vectors: list[list[float]] = []
        tokens = 0
        if inputs:
            vectors, tokens = await _vectors(registry, asked, inputs, asked.truncate, asked.dimensions)
        reply = OllamaVectors(
            model=asked.model,
            embeddings=vectors,
            total_duration=int((time.monotonic() - started) * _NANOSECONDS),
            prompt_eval_count=tokens,
        )
        size = 4 * sum(map(len, vectors))
        return body.name_ignored(unknown_fields(asked, content), await json_reply_of_vectors(lambda: reply, size))

    @blueprint.post("/api/embeddings")
    async def embeddings() -> Response:
        content = await body.read_object()
        asked = body.parse(OllamaEmbeddingsRequest, content)
        [vector], _ = await _vectors(registry, asked, [asked.prompt], truncate=True)
        return body.name_ignored(unknown_fields(asked, content), json_reply(OllamaVector(vector)))

    for method, path in CHANGES:
        blueprint.add_url_rule(path, path, _refusal(path), methods=[method])
    return blueprint


def _refusal(path: str) -> Callable[[], Response]:
    def refuse() -> Response:
        raise Forbidden(
            f"{path} is not available, because this server's models come from its manifest. Edit models.yaml, or use "
            f"`localapi add` and `localapi rm`; changes apply at once."
        )

    return refuse


_ABOUT: Final[dict[tuple[str, str], tuple[str, type[Struct]]]] = {
    ("GET", "/api/version"): ("Version of Ollama whose API this is.", OllamaVersion),
    ("GET", "/api/tags"): ("All models for text and embeddings, in Ollama's form.", OllamaModels),
    ("GET", "/api/ps"): ("The models in memory, in Ollama's form.", OllamaRunningModels),
}
OPERATIONS: Final[Operations] = {
    **{
        endpoint: Operation(summary=summary, content={JSON: shape}, error=wire.OllamaError)
        for endpoint, (summary, shape) in _ABOUT.items()
    },
    ("POST", "/api/show"): Operation(
        summary="One model, in Ollama's form.",
        content={JSON: OllamaShown},
        body=wire.NamedModel,
        errors=ERRORS_OF_WORK,
        error=wire.OllamaError,
    ),
    ("POST", "/api/embed"): Operation(
        summary="Embed texts, in Ollama's form.",
        content={JSON: OllamaVectors},
        body=OllamaEmbedRequest,
        example={"input": ["A cat sits on the mat."]},
        errors=ERRORS_OF_WORK,
        error=wire.OllamaError,
        tag="embedding",
    ),
    ("POST", "/api/embeddings"): Operation(
        summary="Embed a text, in Ollama's older form.",
        content={JSON: OllamaVector},
        body=OllamaEmbeddingsRequest,
        example={"prompt": "A cat sits on the mat."},
        errors=ERRORS_OF_WORK,
        error=wire.OllamaError,
        tag="embedding",
    ),
    **{
        endpoint: Operation(
            summary="Refused with 403: models come from the manifest.", content={JSON: None}, error=wire.OllamaError
        )
        for endpoint in CHANGES
    },
}


@dataclass(frozen=True)
class Facts:
    """Facts from a model's files."""

    size: int
    """Bytes; 0 if unknown."""
    details: OllamaDetails
    architecture: str = ""
    context_length: int | None = None


async def facts_of(options: EntryOptions) -> Facts:
    """Return facts from a model's files; nothing if their drive does not respond."""
    try:
        async with asyncio.timeout(FACTS_SECONDS):
            return await aside(lambda: _facts(options))
    except (TimeoutError, OSError, ValueError):
        return Facts(0, OllamaDetails())


def _facts(options: EntryOptions) -> Facts:
    files = list(options.weight_files())
    size = sum(file.stat().st_size for file in files)
    config: Any = {}
    if files and (found := files[0].parent / "config.json").is_file():
        config = json.loads(found.read_text("utf-8"))
    family = str(config.get("model_type") or "") if isinstance(config, dict) else ""
    quantization = config.get("quantization") if isinstance(config, dict) else None
    bits = quantization.get("bits") if isinstance(quantization, dict) else None
    details = OllamaDetails(
        format="safetensors" if any(file.suffix == ".safetensors" for file in files) else "",
        family=family,
        families=[family] if family else [],
        quantization_level=f"Q{bits}" if isinstance(bits, int) else "",
    )
    context = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return Facts(size, details, family, context if isinstance(context, int) else None)


def digest_of(entry: Entry) -> str:
    """Return a digest of the identity of a model."""
    said = json.dumps(
        [entry.kind.name, entry.identity.backend, dict(entry.identity.options)], default=str, sort_keys=True
    )
    return hashlib.sha256(said.encode()).hexdigest()


async def shown(registry: Registry, entry: Entry) -> OllamaShown:
    """Return a model's description for Ollama's clients."""
    facts = await facts_of(entry.options)
    model = openai.describe(registry, entry)
    architecture = facts.architecture or entry.options.backend_name
    info: dict[str, Any] = {"general.architecture": architecture}
    context = model.context_length if isinstance(model, ChatModel) else None
    context = context or facts.context_length
    if context is not None:
        info[f"{architecture}.context_length"] = context
    defaults = to_builtins(getattr(entry.options, "defaults", None), enc_hook=_plain) or {}
    return OllamaShown(
        modelfile=f"# {entry.id} is an entry of this server's manifest.",
        parameters="\n".join(f"{name} {json.dumps(value)}" for name, value in defaults.items()),
        template=getattr(entry.options, "template", None) or "",
        details=facts.details,
        model_info=info,
        capabilities=capabilities_of(entry, model),
        thinking=thinking_of(model.capabilities, defaults) if isinstance(model, ChatModel) else UNSET,
        modified_at=wire.at(datetime.fromtimestamp(registry.started_at, UTC)),
    )


def _plain(value: Any) -> Any:
    """Return the parameters that a manifest sets."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_none=True)
    raise NotImplementedError


def capabilities_of(entry: Entry, model: Any) -> list[str]:
    """Return what a model can do, in Ollama's terms."""
    if entry.kind is EMBEDDING:
        return ["embedding"]
    if not isinstance(model, ChatModel):
        return []
    can = model.capabilities
    asked = (("tools", can.tools), ("thinking", can.thinking), ("vision", can.vision))
    return ["completion", *(name for name, supported in asked if supported)]


def thinking_of(can: Capabilities, defaults: Mapping[str, Any]) -> OllamaThinking | UnsetType:
    """Return the possible values of `think`, and the default."""
    if not can.thinking:
        return UNSET
    switch: list[bool | str] = [False] if can.thinking_switch else []
    levels: list[bool | str] = ["low", "medium", "high"] if can.thinking_levels else [True]
    effort = defaults.get("reasoning_effort")
    if effort == "none":
        default: bool | str = False
    else:
        default = effort if effort in levels else levels[len(levels) // 2]
    return OllamaThinking([*switch, *levels], default)


def _running(registry: Registry, entry: Entry, facts: Facts) -> OllamaRunningModel:
    instance = registry.instance(entry.id)
    vitals = instance.vitals
    seconds = instance.expires_in
    expires = _NEVER if seconds == FOREVER else datetime.now(UTC) + timedelta(seconds=seconds)
    context = instance.loaded.context_length if instance.loaded else None
    return OllamaRunningModel(
        name=entry.id,
        model=entry.id,
        size=(vitals.total_bytes if vitals else None) or facts.size,
        digest=digest_of(entry),
        details=facts.details,
        expires_at=wire.at(expires),
        size_vram=vitals.device_bytes if vitals else 0,
        context_length=UNSET if context is None else context,
    )


async def _vectors(
    registry: Registry,
    asked: OllamaEmbedRequest | OllamaEmbeddingsRequest,
    inputs: list[str],
    truncate: bool,
    dimensions: int | None = None,
) -> tuple[list[list[float]], int]:
    """Return the vectors of texts, and their tokens. Raise ApiError."""
    name = wire.known_name(registry, asked.model)
    request = body.parse(
        EmbeddingRequest,
        {"model": name, "input": inputs, "truncate": truncate} | ({"dimensions": dimensions} if dimensions else {}),
    )
    got = await vectors_of(begin(registry, name, EMBEDDING), request)
    return [array("f", vector).tolist() for vector in got.vectors], got.tokens
