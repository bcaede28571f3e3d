"""Speech by a model on another server: its reply is forwarded as it arrives, in that server's own format."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from quart import Response

from localapi.api.forwarded_reply import forwarded_reply
from localapi.api.openai.generation_request import MAX_NAME, BodyObject
from localapi.api.speech.preparing import check_length
from localapi.backends.speech import SpeechOptions, named
from localapi.errors import ModelUnavailable
from localapi.http import body, request_context
from localapi.http.generation import begin, event_bytes, request_ids
from localapi.http.read_ahead import Ahead
from localapi.kinds import SPEECH
from localapi.kinds.speech import CHARACTERS, TIME_TO_FIRST_SOUND, speech_options
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Event, Forward

log = logging.getLogger(__name__)


class ForwardedSpeechRequest(BodyObject):
    """Fields of the body that this server needs. The other server checks the rest."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    input: str


async def forwarded_speech(registry: Registry, content: dict[str, Any]) -> Response:
    """Return the other server's reply. Raise ApiError before anything is sent."""
    request = body.parse(ForwardedSpeechRequest, content)
    generation = begin(registry, request.model, SPEECH)
    started = time.monotonic()

    def forwards(lease: Lease) -> list[Forward]:
        options = speech_options(lease.entry.options)
        if not options.forwards:
            raise ModelUnavailable(f"{lease.entry.id} has just been changed. Send the request again.")
        check_length(request.input, options)
        return [Forward(id=next(request_ids), path="/audio/speech", body=forwarded_body(content, options))]

    items: Ahead[Event] = Ahead(generation.events(forwards), size=event_bytes)
    reply = await forwarded_reply(items, generation.entry.id)
    counters = request_context.current().counters
    counters.count(generation.entry.id, CHARACTERS, len(request.input))
    counters.observe(generation.entry.id, TIME_TO_FIRST_SOUND, time.monotonic() - started)
    return reply


def forwarded_body(content: dict[str, Any], options: SpeechOptions) -> dict[str, Any]:
    """Return the body to send: the client's values, over its voice in the manifest and the entry's defaults."""
    found = dict(content)
    defaults = options.defaults.model_dump(exclude_none=True)
    voice = found.get("voice") or defaults.get("voice")
    mapped = named(options.voices, voice) if isinstance(voice, str) else None
    if mapped is not None:
        defaults |= mapped.model_dump(exclude_none=True)
        found["voice"] = mapped.voice or voice
    if "instruct_text" in defaults:
        defaults["instructions"] = defaults.pop("instruct_text")
    return {**defaults, **found}
