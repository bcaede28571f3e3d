"""The kinds of engine that an entry can name: one file each, joined here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from localapi.backends.auto import Auto
from localapi.backends.echo import Echo
from localapi.backends.echo_speech import EchoSpeech
from localapi.backends.espeak_ng import EspeakNg
from localapi.backends.macos_say import MacosSay
from localapi.backends.mlx_audio import MlxAudio, MlxAudioPlus
from localapi.backends.mlx_lm import MlxLm
from localapi.backends.piper import Piper

ChatEntry = Annotated[Echo | MlxLm, Field(discriminator="backend")]
SpeechEntry = Annotated[
    EchoSpeech | Auto | MacosSay | EspeakNg | Piper | MlxAudio | MlxAudioPlus, Field(discriminator="backend")
]
