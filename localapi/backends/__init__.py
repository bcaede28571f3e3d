"""The kinds of engine that an entry can name: one file each, joined here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from localapi.backends.echo import Echo, EchoSpeech
from localapi.backends.mlx_lm import MlxLm
from localapi.backends.speech import Auto, EspeakNg, MacosSay, MlxAudio, MlxAudioPlus, Piper

ChatEntry = Annotated[Echo | MlxLm, Field(discriminator="backend")]
SpeechEntry = Annotated[
    EchoSpeech | Auto | MacosSay | EspeakNg | Piper | MlxAudio | MlxAudioPlus, Field(discriminator="backend")
]
