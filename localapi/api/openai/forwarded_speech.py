"""Speech by a model on another server: its reply is sent on as it comes, in that server's own format."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from quart import Response

from localapi.api.openai.generation_request import MAX_NAME, Part
from localapi.backends.speech import SpeechOptions
from localapi.backends.voice_names import named
from localapi.errors import ApiError, InvalidRequest, ModelUnavailable
from localapi.http import body, request_context
from localapi.http.generation import begin, event_bytes, request_ids
from localapi.http.read_ahead import Ahead
from localapi.http.replies import streamed_reply
from localapi.kinds import SPEECH
from localapi.kinds.speech import CHARACTERS, TIME_TO_FIRST_SOUND, speech_options
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Event, Forward, ForwardedData, ForwardedHead

log = logging.getLogger(__name__)


class ForwardedSpeechRequest(Part):
    """Fields of the body that this server needs. The other server judges the rest."""

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
        _check_length(request.input, options)
        return [Forward(id=next(request_ids), path="/audio/speech", body=forwarded_body(content, options))]

    items: Ahead[Event] = Ahead(generation.events(forwards), size=event_bytes)
    request_context.current().held.push_async_callback(items.close)
    head = await items.get()
    if not isinstance(head, ForwardedHead):
        raise ModelUnavailable("The upstream sent no reply. Send the request again.")
    await items.begun(None)
    counters = request_context.current().counters
    counters.count(generation.entry.id, CHARACTERS, len(request.input))
    counters.observe(generation.entry.id, TIME_TO_FIRST_SOUND, time.monotonic() - started)
    return streamed_reply(_data(items, generation.entry.id), head.content_type)


def forwarded_body(content: dict[str, Any], options: SpeechOptions) -> dict[str, Any]:
    """Return the body to send: what the client wrote, over its voice in the manifest and the entry's defaults."""
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


def _check_length(text: str, options: SpeechOptions) -> None:
    if len(text) > options.max_input_characters:
        too_long = (
            f"The text has {len(text)} characters; this model takes {options.max_input_characters} at once "
            "(max_input_characters in the manifest). Send it in parts."
        )
        raise InvalidRequest(too_long, param="input", code="string_above_max_length", loggable=too_long)


async def _data(items: Ahead[Event], entry_id: str) -> AsyncGenerator[bytes, None]:
    """Yield the bytes. Raise BrokenOff if they end in the middle: the status is already sent."""
    try:
        while (item := await items.get()) is not None:
            if isinstance(item, ForwardedData):
                yield item.data
    except ApiError as error:
        log.warning("%s: %s: broken off: %s", request_context.current().id, entry_id, error.logged)
        raise request_context.BrokenOff from error
    except Exception as error:
        log.exception("%s: %s: broken off", request_context.current().id, entry_id)
        raise request_context.BrokenOff from error
