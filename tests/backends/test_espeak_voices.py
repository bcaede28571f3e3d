"""Options of the backend espeak-ng, and the voices that are read from its data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localapi.backends import espeak_voices
from localapi.backends.espeak_ng import EspeakNg
from localapi.backends.options import PathProblem
from localapi.backends.speech import MappedVoice
from localapi.worker.protocol import Voice


def located(**options: Any) -> EspeakNg:
    return EspeakNg(backend="espeak-ng", **options).located(lambda _: Path.cwd())


@pytest.fixture
def _not_installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(espeak_voices, "PACKAGE", "no_such_package")
    espeak_voices.found.cache_clear()
    yield
    espeak_voices.found.cache_clear()


async def test_voices_have_an_id_a_name_and_a_language_tag() -> None:
    known = {voice.id: voice for voice in await located().known_voices() or ()}
    assert known["en-gb"] == Voice("en-gb", "English (Great Britain)", "en-GB")
    assert known["de"] == Voice("de", "German", "de")
    assert known["es-419"].language == "es-419"
    assert known["cmn-latn-pinyin"].language == "cmn-Latn-pinyin"
    assert known["en-gb-x-rp"].language == "en-GB-x-rp"
    assert known["en-us+f3"] == Voice("en-us+f3", "English (America) + f3", "en-US")


async def test_the_default_voice_comes_first() -> None:
    assert [voice.id for voice in await located(voice="fr-fr+f3").known_voices() or ()][:2] == ["fr-fr", "af"]


async def test_two_voices_of_one_language_have_their_own_ids() -> None:
    known = [voice.id for voice in await located().known_voices() or ()]
    assert len(known) == len(set(known))
    assert {"yue", "yue-latn-jyutping"} <= set(known)


async def test_a_voice_that_the_data_has_no_words_for_is_not_offered() -> None:
    assert not {"fo", "kaa", "xex"} & {voice.id for voice in await located().known_voices() or ()}


async def test_variants_are_offered_of_the_default_voice_and_where_the_entry_maps_to_them() -> None:
    voices = {"nova": MappedVoice(voice="de+f2"), "onyx": MappedVoice(voice="de+nobody")}
    known = {voice.id for voice in await located(voice="fr-fr", voices=voices).known_voices() or ()}
    assert {"fr-fr+f1", "fr-fr+whisper", "de+f2"} <= known
    assert not {"en-us+f1", "de+f1", "de+nobody"} & known


def test_the_package_is_not_imported_for_that() -> None:
    code = "import sys; from localapi.backends import espeak_voices; assert espeak_voices.found(); "
    code += "assert not [name for name in sys.modules if name.startswith('espeakng')]"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "voice"),
    [
        ({}, "en-us"),
        ({"language": "en"}, "en-us"),
        ({"language": "en-GB"}, "en-gb"),
        ({"language": "de"}, "de"),
        ({"language": "de_AT"}, "de"),
        ({"language": "zh"}, "cmn"),
        ({"language": "pt-BR"}, "pt-br"),
        ({"language": "tlh-x-nobody"}, "en-us"),
        ({"voice": "fr-fr", "language": "de"}, "fr-fr"),
        ({"voice": "de+m3"}, "de+m3"),
    ],
)
def test_who_speaks_is_what_the_entry_says_or_its_languages_voice(options: dict[str, str], voice: str) -> None:
    entry = located(**options)
    assert entry.voice == voice
    assert entry.identity().options["voice"] == voice


@pytest.mark.parametrize("voice", ["en-uk", "klingon", "de+nobody", "en-us+../../x", "+f3"])
def test_an_unknown_voice_is_refused(voice: str) -> None:
    with pytest.raises(PathProblem, match="espeak-ng has no voice") as raised:
        located(voice=voice)
    assert raised.value.field == "voice"


@pytest.mark.usefixtures("_not_installed")
async def test_without_the_package_the_entry_stands_and_the_voices_are_not_known() -> None:
    assert located(voice="whoever").voice == "whoever"
    assert await located().known_voices() is None
