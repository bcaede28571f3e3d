"""Voices of a speech entry: those that its engine lists, and the one that a request means."""

from __future__ import annotations

import difflib
import re
from typing import Final

from localapi.backends.engine import Engine
from localapi.backends.speech import folded, named
from localapi.errors import InvalidRequest
from localapi.kinds.speech import speech_options
from localapi.manifest import Entry
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Voice

MOST_SHOWN: Final = 24
"""Voices that an error names; an engine may have hundreds."""
_FILE: Final = re.compile(r"[/\\~]|^\.|\.(?:json|np[yz]|pth?|safetensors|wav)(?!\w)", re.IGNORECASE)
"""Names of voices that models of mlx-audio would open as files (OuteTTS, Kokoro, Bark, VibeVoice)."""


def loaded_engine(registry: Registry, entry: Entry) -> Engine | None:
    """Return the loaded engine; None if nothing is loaded or the entry is no longer in the manifest."""
    return registry.instance(entry.id).engine if entry.id in registry.entries else None


async def engine_voices(entry: Entry, engine: Engine | None) -> list[Voice] | None:
    """Return the voices that the loaded engine lists, otherwise those known without loading it; None if unknown."""
    if engine is not None and engine.loaded.voices is not None:
        return engine.loaded.voices
    return await speech_options(entry.options).known_voices()


def found_voice(entry: Entry, known: list[Voice] | None, asked: str | None, voice: str | None) -> str | None:
    """Return the engine's own spelling of a voice. Raise InvalidRequest if it has no such voice.

    `asked` is the request's name for it. If the engine's voices are unknown, every name is passed on, but a request may
    not name a file.
    """
    if voice is None:
        return None
    if known is None:
        if voice == asked and named(speech_options(entry.options).voices, voice) is None and _FILE.search(voice):
            raise InvalidRequest(
                f"{voice!r} is not a voice name. If the engine has this voice, name it in the manifest: "
                "`voices: {NAME: VOICE}`.",
                param="voice",
            )
        return voice
    exact = next((each.id for each in known if each.id == voice), None)
    alike = (each.id for each in known if folded(each.id) == folded(voice))
    if (found := exact or next(alike, None)) is not None:
        return found
    if speech_options(entry.options).has_voice(voice):
        return voice
    raise _unknown(asked, voice, entry, known)


def _unknown(asked: str | None, voice: str, entry: Entry, known: list[Voice]) -> InvalidRequest:
    mapped = speech_options(entry.options).voices
    ids = [each.id for each in known]
    near = difflib.get_close_matches(voice, ids, n=MOST_SHOWN // 2)
    shown = [*mapped, *near, *(name for name in ids if name not in near)][:MOST_SHOWN]
    more = len(ids) + len(mapped) - len(shown)
    rest = f" and {more} more: GET /v1/audio/voices lists them" if more > 0 else ""
    why = (
        f" (the manifest maps {asked!r} to it)"
        if asked is not None and asked != voice and named(mapped, asked) is not None
        else ""
    )
    return InvalidRequest(f"There is no voice {voice!r}{why}. This model has: {', '.join(shown)}{rest}.", param="voice")
