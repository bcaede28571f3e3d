"""A second dialect for speech, made here in one place: its bodies are `{"by": model, "text": text, "as": format}`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from quart import Response

from localapi.api.openai.speech import spoken
from localapi.api.speech.cache import SpeechCache
from localapi.api.speech.neutral_speech import NeutralSpeech
from localapi.api.speech.speaking import Speech
from localapi.backends.parameters import SpeechParameters
from localapi.errors import InvalidRequest
from localapi.http import request_context
from localapi.manifest import ManifestSource, read
from localapi.manifest.environment import NO_OVERRIDES
from localapi.observability.counters import Counters
from localapi.runtime.registry import Registry

pytestmark = pytest.mark.everyday


async def recited(registry: Registry, content: dict[str, Any]) -> Response:
    """Return the reply of the dialect."""
    request = NeutralSpeech(
        model=content["by"],
        input=content["text"],
        said=SpeechParameters(response_format=content["as"]),
        names={"input": ["text"]},
        ignored=["mood"],
    )
    with request.in_words_of_client():
        speech = Speech(registry, request, SpeechCache())
        await speech.prepare()
        return speech.named(await speech.file())


@pytest_asyncio.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    (tmp_path / "models.yaml").write_text("speech:\n  tone: {backend: echo}\n")
    registry = Registry()
    registry.commit(read(ManifestSource(tmp_path / "models.yaml", None, NO_OVERRIDES)), {})
    async with request_context.begin(Counters()).held:
        yield registry
    await registry.close()


async def test_it_gives_the_sound_that_openais_gives(registry: Registry) -> None:
    text = "Good morning! It is nine."
    ours = await recited(registry, {"by": "tone", "text": text, "as": "wav"})
    theirs = await spoken(registry, {"model": "tone", "input": text, "response_format": "wav"}, SpeechCache())
    assert ours.content_type == "audio/wav"
    assert ours.headers["x-ignored-params"] == "mood"
    assert await ours.get_data(as_text=False) == await theirs.get_data(as_text=False)


async def test_its_errors_name_its_own_fields(registry: Registry) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await recited(registry, {"by": "tone", "text": "…", "as": "wav"})
    assert caught.value.param == "text"
