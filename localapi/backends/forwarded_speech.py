"""Speech that another server makes and this one passes on, wherever that server runs."""

from __future__ import annotations

from typing import Final, Self

from localapi.backends.options import FolderOf, PathProblem
from localapi.backends.speech import SpeechOptions

_OF_OUR_SOUND: Final = (
    *("speakable", "lexicon", "lexicon_file", "sentence_silence_ms", "speech_cache_mb", "language", "audio_folders"),
    "unsupported",
)
"""Options about how this server prepares texts and sound, which it does not do for another server."""


class ForwardedSpeech(SpeechOptions):
    """Options of every such speech model."""

    forwards = True
    takes = frozenset({"instruct_text"})
    has_speed = True

    def located(self, folder_of: FolderOf) -> Self:
        for name in _OF_OUR_SOUND:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise PathProblem(
                    name, f"the backend {self.backend_name} does not support it: another server makes the sound"
                )
        settings = self.located_settings(folder_of)
        del settings["audio_folders"]
        return self.model_copy(update=settings)
