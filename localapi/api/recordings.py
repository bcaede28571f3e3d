"""Recordings in messages: checked before anything decodes them.

Their length is known only when a worker decodes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import msgspec

from localapi.api.neutral_request import NeutralRequest
from localapi.audio.decoder import container_of
from localapi.backends.image_options import RecordingLimits
from localapi.errors import InvalidRequest
from localapi.worker.protocol import AudioPart, Chat, Complete, Message, Part

_MEGABYTE: Final = 2**20
_TOO_LARGE: Final = "audio_too_large"
_BAD_AUDIO: Final = "invalid_audio"


def with_recordings(request: NeutralRequest, limits: RecordingLimits) -> NeutralRequest:
    """Return the request with the formats of its recordings. Raise InvalidRequest."""
    said = iter(request.names.get("audio", ()))
    count = 0

    def checked(parts: list[Part], place: str) -> Iterator[Part]:
        nonlocal count
        for at, part in enumerate(parts):
            if not isinstance(part, AudioPart):
                yield part
                continue
            param = next(said, f"{place}[{at}].input_audio.data").removesuffix(".type")
            count += 1
            if count > limits.count:
                raise InvalidRequest(
                    f"This model accepts at most {limits.count} recordings in a request (max_recordings).",
                    param=param,
                    code=_TOO_LARGE,
                )
            yield _checked(part, param, limits)

    def seen(ask: Chat | Complete) -> Chat | Complete:
        if not isinstance(ask, Chat):
            return ask
        messages: list[Message] = []
        for at, message in enumerate(ask.messages):
            content = message.content
            if not isinstance(content, str):
                content = list(checked(content, f"messages[{at}].content"))
            messages.append(msgspec.structs.replace(message, content=content))
        return msgspec.structs.replace(ask, messages=messages)

    asks = [seen(ask) for ask in request.asks]
    return replace(request, asks=asks) if count else request


def _checked(part: AudioPart, param: str, limits: RecordingLimits) -> AudioPart:
    if len(part.data) > limits.megabytes * _MEGABYTE:
        raise InvalidRequest(
            f"The recording is larger than {limits.megabytes} MiB, the maximum for this model (max_recording_mb).",
            param=param,
            code=_TOO_LARGE,
        )
    container = container_of(part.data)
    if container is None:
        raise InvalidRequest(
            "The recording is not an audio file of a known format. Send WAV or MP3.",
            param=param,
            code=_BAD_AUDIO,
        )
    return AudioPart(part.data, container, limits.seconds)
