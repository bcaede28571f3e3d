"""Choice of voices by script, language and name, with the real voices of eSpeak NG and those of a Mac."""
# ruff: noqa: RUF001  # letters of other scripts are the matter here

from __future__ import annotations

from pathlib import Path

import pytest

from localapi.api.openai.speech_request import parse_speech
from localapi.api.speech.preparing import prepared_speech
from localapi.backends.espeak_ng import EspeakNg
from localapi.backends.macos_say import MacosSay
from localapi.backends.piper import Piper
from localapi.backends.say_voices import for_language, parse
from localapi.backends.speech import SpeechOptions
from localapi.manifest import Entry
from localapi.manifest.server_options import ServerOptions
from localapi.worker.protocol import Voice
from tests.piper_voice import make_voice

pytestmark = pytest.mark.everyday


async def cast(
    options: SpeechOptions, text: str, folder: Path, **body: object
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Return the lines with their voices, and the scripts that no voice reads."""
    entry = Entry.of("it", options.located(lambda _: folder), server=ServerOptions())
    request = parse_speech({"model": "it", "input": text, **body}).neutral()
    prepared = await prepared_speech(request, entry, None)
    return [(line.text, line.voice) for line in prepared.cast.lines], prepared.cast.unread


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good morning.", [("Good morning.", None)]),
        ("Привет, мир!", [("Привет, мир!", "ru")]),
        ("Привіт, їжаче!", [("Привіт, їжаче!", "uk")]),
        ("你好，世界。", [("你好，世界。", "cmn")]),
        ("مرحبا بالعالم", [("مرحبا بالعالم", "ar")]),
        ("안녕하세요", [("안녕하세요", "ko")]),
        ("Γειά σου Κόσμε", [("Γειά σου Κόσμε", "el")]),
        ("我喜欢 Python 编程。", [("我喜欢 Python 编程。", "cmn")]),
        (
            "The word привет means hello.",
            [("The word", None), ("привет", "ru"), ("means hello.", None)],
        ),
        (
            "Good morning to you all.\n\nДоброе утро всем вам.",
            [("Good morning to you all.", None), ("Доброе утро всем вам.", "ru")],
        ),
        ("An angle of \u03b1 is 5 \u03a9.", [("An angle of \u03b1 is 5 \u03a9.", None)]),
    ],
)
@pytest.mark.parametrize("voice", [None, "alloy"])
async def test_espeak_reads_each_part_with_a_voice_that_can(
    tmp_path: Path, text: str, expected: list[tuple[str, str | None]], voice: str | None
) -> None:
    body = {} if voice is None else {"voice": voice}

    assert await cast(EspeakNg(backend="espeak-ng"), text, tmp_path, **body) == (expected, [])


async def test_a_variant_goes_with_the_voice(tmp_path: Path) -> None:
    lines, _ = await cast(EspeakNg(backend="espeak-ng", voice="en-us+f3"), "Привет, мир!", tmp_path)
    assert lines == [("Привет, мир!", "ru+f3")]


@pytest.mark.parametrize(
    ("language", "text", "voice"),
    [("de", "Guten Tag", "de"), ("fr-CA", "Bonjour", "fr-fr"), ("en-GB", "Hello", None), ("uk", "Привет", "uk")],
)
async def test_the_requests_language_chooses_where_no_voice_is_named(
    tmp_path: Path, language: str, text: str, voice: str | None
) -> None:
    lines, _ = await cast(EspeakNg(backend="espeak-ng"), text, tmp_path, language=language)
    assert lines[0][1] is None if voice is None else (lines[0][1] or "").startswith(voice[:2])


async def test_a_voice_that_the_client_named_is_kept_and_its_limits_are_told(tmp_path: Path) -> None:
    options = EspeakNg(backend="espeak-ng", voices={"nova": "en-gb"})
    for voice, own in [("de", "de"), ("nova", "en-gb"), ("NOVA", "en-gb")]:
        assert await cast(options, "Привет, мир!", tmp_path, voice=voice) == ([("Привет, мир!", own)], ["Cyrillic"])
    assert await cast(options, "Привет, мир!", tmp_path, voice="RU") == ([("Привет, мир!", "ru")], [])


async def test_what_no_voice_reads_is_told(tmp_path: Path) -> None:
    lines, unread = await cast(EspeakNg(backend="espeak-ng"), "日本語のテスト", tmp_path)
    assert (lines, unread) == ([("日本語のテスト", "ja")], ["Han"])


@pytest.mark.parametrize(("code", "unread"), [("en_US", ["Cyrillic"]), ("ru_RU", []), ("", [])])
async def test_a_voice_of_one_language_says_what_it_does_not_read(tmp_path: Path, code: str, unread: list[str]) -> None:
    make_voice(tmp_path / "voice.onnx", config={"language": {"code": code}})
    _, told = await cast(Piper(backend="piper", path="voice.onnx"), "Привет, мир!", tmp_path)
    assert told == unread


async def test_the_voices_of_a_mac_are_chosen_by_script_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(__file__).parents[2] / 'fakebin'}:/usr/bin:/bin")
    lines, unread = await cast(MacosSay(backend="macos-say"), "Hello to you.\n\n你好，世界。\n\nمرحبا", tmp_path)
    assert [voice for _, voice in lines] == [None, "Dongmei (Enhanced)", "Majed"]
    assert unread == []


def test_of_apples_voices_the_better_recordings_and_no_jokes_are_chosen() -> None:
    names = ["Albert en_US", "Eddy (German (Germany)) de_DE", "Anna de_DE", "Petra (Premium) de_DE", "Luca de_CH"]
    voices = parse("\n".join(f"{name.rpartition(' ')[0]}    {name.rpartition(' ')[2]}    # x" for name in names))
    found = for_language(voices, "de")
    assert isinstance(found, Voice)
    assert found.id == "Petra (Premium)"
    assert for_language(voices, "de-CH") == Voice("Luca", language="de-CH")
    assert for_language(voices, "ja") is None
