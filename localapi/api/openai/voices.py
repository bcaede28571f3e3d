"""`GET /v1/audio/voices` and `GET /v1/audio/models`: who can speak, in the shapes that Open WebUI and others read."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct, structs
from quart import Blueprint, Response, request

from localapi.api.openai.models import describe
from localapi.api.operation import JSON, Operation, Operations, Schema
from localapi.api.speech.known_voices import engine_voices, loaded_engine
from localapi.http.replies import json_reply
from localapi.kinds import SPEECH, ModelObject
from localapi.kinds.speech import SpeechModel, speech_options
from localapi.manifest import Entry
from localapi.runtime.peer_instance import PeerInstance
from localapi.runtime.pool import Pool
from localapi.runtime.registry import Registry


def routes(registry: Registry) -> Blueprint:
    """Return both endpoints."""
    blueprint = Blueprint("voices", __name__)

    @blueprint.get("/v1/audio/voices")
    async def list_voices() -> Response:
        """Return the voices of all speech models, or of the one named by `?model=`."""
        name = request.args.get("model")
        entries = _speech_entries(registry) if name is None else [registry.resolve(name, SPEECH)]
        return json_reply(VoiceList([voice for entry in entries for voice in await _voices(registry, entry)]))

    @blueprint.get("/v1/audio/models")
    async def list_speech_models() -> Response:
        models = [describe(registry, entry) for entry in _speech_entries(registry)]
        for model in models:
            assert isinstance(model, SpeechModel)  # noqa: S101  # of speech entries
            model.name = model.id
        return json_reply(SpeechModelList(models=models, data=models))

    return blueprint


class VoiceObject(Struct, kw_only=True):
    """A voice of a speech model."""

    id: str
    name: str
    language: str
    model: str
    voice: str | None
    source: Literal["manifest", "engine"]


class VoiceList(Struct):
    """Voices."""

    voices: list[VoiceObject]


class SpeechModelList(Struct, kw_only=True):
    """The speech models, under both names that clients look for."""

    object: Literal["list"] = "list"
    models: list[ModelObject]
    data: list[ModelObject]


_MODEL: Final[Schema] = {
    "name": "model",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "Only the voices of this speech model.",
}
OPERATIONS: Final[Operations] = {
    ("GET", "/v1/audio/voices"): Operation(
        summary="List the voices of speech models.",
        content={JSON: VoiceList},
        errors=frozenset({400, 404}),
        parameters=(_MODEL,),
    ),
    ("GET", "/v1/audio/models"): Operation(summary="List the speech models.", content={JSON: SpeechModelList}),
}


def _speech_entries(registry: Registry) -> list[Entry]:
    return [entry for entry in registry.offered if entry.kind is SPEECH]


async def _voices(registry: Registry, entry: Entry) -> list[VoiceObject]:
    """Return the manifest's names first, then the engine's; for a pool, those that all members have."""
    instance = registry.instance(entry.id)
    if isinstance(instance, Pool):
        first, *others = [await _voices(registry, member.entry) for member in instance.members]
        ids = [{voice.id for voice in each} for each in others]
        common = [voice for voice in first if all(voice.id in each for each in ids)]
        return [structs.replace(voice, model=entry.id) for voice in common]
    settings = speech_options(entry.options)
    if isinstance(instance, PeerInstance):
        known = (instance.loaded.voices if instance.loaded is not None else None) or []
    else:
        known = await engine_voices(entry, loaded_engine(registry, entry)) or []
    mapped = [
        VoiceObject(id=name, name=name, language="", model=entry.id, voice=voice.voice, source="manifest")
        for name, voice in settings.voices.items()
    ]
    own = [
        VoiceObject(
            id=voice.id,
            name=voice.name or voice.id,
            language=voice.language,
            model=entry.id,
            voice=voice.id,
            source="engine",
        )
        for voice in known
        if voice.id not in settings.voices
    ]
    return mapped + own
