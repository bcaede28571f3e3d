"""Options of all entries of the section speech."""

from __future__ import annotations

import pytest

from localapi.backends.echo import EchoSpeech
from localapi.backends.mlx_audio import MlxAudio, MlxAudioPlus
from localapi.backends.piper import Piper
from localapi.backends.speech import SpeechOptions

pytestmark = pytest.mark.everyday


@pytest.mark.parametrize(
    ("options", "apart"),
    [
        (EchoSpeech(backend="echo"), True),
        (Piper(backend="piper", path="voice.onnx"), True),
        (MlxAudio(backend="mlx-audio", path="model"), False),
        (MlxAudio(backend="mlx-audio", path="model", sentence_silence_ms=1), True),
        (MlxAudioPlus(backend="mlx-audio-plus", path="model"), False),
        (MlxAudioPlus(backend="mlx-audio-plus", path="model", sentence_silence_ms=200), True),
    ],
)
def test_sentences_are_said_apart_unless_each_call_has_its_price(options: SpeechOptions, apart: bool) -> None:
    assert options.says_sentences_apart is apart
