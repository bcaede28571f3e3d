"""The backend echo for speech: a tone as long as the text would take, for trying the API and for tests of clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from pydantic import Field

from localapi.audio.tone import tone
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.in_process import InProcessEngine
from localapi.backends.speech import SpeechOptions
from localapi.errors import InvalidRequest
from localapi.text.weight import weight
from localapi.worker.protocol import Event, Request, Sound, Speak, Spoken

CHARACTERS_PER_SECOND = 15
"""Rate of unhurried English speech."""
SAMPLE_RATE_HZ = 24_000
SHORTEST_SECONDS = 0.1


class EchoSpeech(SpeechOptions):
    """Options of a voice that plays a tone. It accepts every parameter; only the speed has an effect."""

    backend: Annotated[
        Literal["echo"], Field(description="No model: plays a tone as long as the text would take, to try clients.")
    ]
    has_speed = True
    takes = frozenset({"ref_audio", "ref_text", "instruct_text", "source_audio"})

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoSpeechEngine()


class EchoSpeechEngine(InProcessEngine):
    """Engine that plays one tone for each segment."""

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        if not isinstance(request, Speak):
            raise InvalidRequest("This is a speech model: use POST /v1/audio/speech.")
        for index, segment in enumerate(request.segments):
            seconds = max(SHORTEST_SECONDS, weight(segment) / CHARACTERS_PER_SECOND) / request.speed
            for pcm in tone(seconds, SAMPLE_RATE_HZ):
                yield Sound(request.id, index, pcm, SAMPLE_RATE_HZ)
                await asyncio.sleep(0)
        yield Spoken(request.id)
