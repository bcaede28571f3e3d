"""The voice that a request means among the names of manifest, engine and OpenAI; and its other fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localapi.api.openai.speech_request import parse_speech
from localapi.api.speech.known_voices import found_voice
from localapi.backends.echo import EchoSpeech
from localapi.backends.espeak_ng import EspeakNg
from localapi.backends.piper import Piper
from localapi.backends.speech import MappedVoice, SpeechOptions
from localapi.errors import InvalidRequest
from localapi.kinds.speech import speech_options
from localapi.manifest import Entry
from localapi.manifest.server_options import ServerOptions
from tests.piper_voice import make_voice

pytestmark = pytest.mark.everyday


def entry_of(options: SpeechOptions, folder: Path) -> Entry:
    return Entry.of("it", options.located(lambda _: folder), server=ServerOptions())


async def meant(entry: Entry, voice: str) -> str | None:
    """The engine's voice for what a request says."""
    assert isinstance(entry.options, SpeechOptions)
    known = await entry.options.known_voices()
    request = parse_speech({"model": "it", "input": "hi", "voice": voice}).neutral()
    said, _ = request.settled(speech_options(entry.options), known)
    return found_voice(entry, known, request.said.voice, said.voice)


@pytest.fixture
def piper(tmp_path: Path) -> Entry:
    names = {"nova": 0, "bob": 1, "carl": 2}
    make_voice(tmp_path / "voice.onnx", speakers=3, config={"speaker_id_map": names})
    return entry_of(Piper(backend="piper", path="voice.onnx", speaker="bob"), tmp_path)


@pytest.mark.parametrize(
    ("voice", "speaker"), [("bob", "bob"), ("Carl", "carl"), ("2", "2"), ("nova", "nova"), ("alloy", None)]
)
async def test_a_speaker_is_meant_by_name_or_number_and_openais_names_stand_back(
    piper: Entry, voice: str, speaker: str | None
) -> None:
    assert await meant(piper, voice) == speaker


@pytest.mark.parametrize("voice", ["3", "-1", "dave", "²"])
async def test_another_speaker_is_refused(piper: Entry, voice: str) -> None:
    with pytest.raises(InvalidRequest, match="nova, bob, carl"):
        await meant(piper, voice)


async def test_any_language_of_espeak_speaks_with_a_variant(tmp_path: Path) -> None:
    entry = entry_of(EspeakNg(backend="espeak-ng"), tmp_path)
    assert await meant(entry, "de+f3") == "de+f3"
    assert await meant(entry, "EN-US") == "en-us"
    for voice in ("de+../../lang/gmw/de", "de+f99", "xx+f3"):
        with pytest.raises(InvalidRequest, match="There is no voice"):
            await meant(entry, voice)


@pytest.mark.parametrize(
    "voice", ["../x", "/etc/passwd", "~", "a,/b", ".hidden", "a.safetensors", "b.NPZ,c", "voice.json", "v2\\en"]
)
async def test_a_request_names_no_file_as_a_voice_of_an_engine_that_lists_none(tmp_path: Path, voice: str) -> None:
    entry = entry_of(EchoSpeech(backend="echo", voices={"me": MappedVoice(voice=voice)}), tmp_path)
    with pytest.raises(InvalidRequest, match="is not a voice name"):
        await meant(entry, voice)
    assert await meant(entry, "me") == voice
    assert await meant(entry, "af_heart") == "af_heart"


@pytest.mark.parametrize("field", ["instructions", "instruct_text", "ref_text", "ref_audio", "source_audio", "voice"])
def test_an_empty_text_is_as_if_the_field_were_left_out(piper: Entry, field: str) -> None:
    body: dict[str, Any] = {"model": "it", "input": "hi", field: ""}
    request = parse_speech(body).neutral()
    said, by_request = request.settled(speech_options(piper.options))
    assert not by_request
    assert said.voice is None
    assert request.ignored == []
