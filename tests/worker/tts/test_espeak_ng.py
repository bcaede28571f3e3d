"""eSpeak NG itself, in this process."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localapi.backends import espeak_voices
from localapi.backends.espeak_ng import EspeakNg
from localapi.worker.model import CannotLoad
from localapi.worker.protocol import Last, Sound, Speak, Spoken, WordTimes
from localapi.worker.tts import espeak_ng
from tests.conftest import Draws
from tests.speaking import Loop, assert_in_order, failure, odd_texts, samples, seconds, words

FOX = "The quick brown fox jumps over the lazy dog."
TWO_SENTENCES = "Hello there, numbers like 42 work. Don't stop at the end of the café!"


def load(**options: Any) -> Loop:
    found = espeak_voices.found()
    assert found is not None
    files = {each.id: each.file for each in found.by_id.values()}
    return Loop(espeak_ng.load, {"voice": "en-us", "files": files, "variants": found.variants, **options})


@pytest.fixture(scope="module")
def engine() -> Loop:
    return load()


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(engine: Loop) -> Any:
    yield
    assert not engine.engine.busy


def test_segments_come_in_order(engine: Loop) -> None:
    events = engine.say(FOX, "Two.", TWO_SENTENCES)
    assert_in_order(events, 3)
    assert {event.sample_rate_hz for event in events if isinstance(event, Sound)} == {22_050}
    assert 2 < len(samples(events, 0)) / 22_050 < 4


def test_nothing_is_cut_off(engine: Loop) -> None:
    assert 5_000 < np.abs(samples(engine.say(TWO_SENTENCES)).astype(int)).max() < 32_767


def test_requests_take_turns_by_their_segments(engine: Loop) -> None:
    requests = [Speak(id=1, segments=[FOX] * 5), Speak(id=2, segments=["Yes.", "No."])]
    for request in requests:
        engine.engine.take(request)
    events = engine.until(lambda events: sum(isinstance(event, Last) for event in events) == 2)
    assert [event.id for event in events if isinstance(event, Sound)] == [1, 2, 1, 2, 1, 1, 1]
    assert [event.id for event in events if isinstance(event, Spoken)] == [2, 1]


def test_a_cancelled_request_is_silent(engine: Loop) -> None:
    for number in range(3):
        engine.engine.take(Speak(id=number, segments=[FOX] * 3))
    engine.step()
    engine.engine.cancel(0)
    engine.engine.cancel(2)
    engine.engine.cancel(99)
    events = engine.until(lambda events: any(isinstance(event, Last) for event in events))
    assert {event.id for event in events} == {1}


def test_a_voice_is_heard_whatever_was_said_before(engine: Loop) -> None:
    lengths = {
        voice: [len(samples(engine.say(FOX, voice=each))) for each in (voice, "de", voice)][::2]
        for voice in ("en-us", "en-gb", "EN-US+f3", "fr-fr", "cmn", "yue-latn-jyutping")
    }
    for before, after in lengths.values():
        assert before == pytest.approx(after, rel=0.01)
    assert len({before // 300 for before, _ in lengths.values()}) >= 5


def test_every_voice_and_every_variant_speaks(engine: Loop) -> None:
    found = espeak_voices.found()
    assert found is not None
    assert len(found.by_id) > 100
    assert len(found.variants) > 90
    for voice in [*found.by_id, *(f"en-us+{variant}" for variant in found.variants)]:
        assert seconds(engine.say(f"1 {FOX} \u13a0", voice=voice)) > 0.1, voice


@pytest.mark.parametrize(
    "voice", ["nobody", "en-us+", "en-us+nobody", "en-us+../../../../../../etc/passwd", "../gmw/en", "gmw/en", "fo"]
)
def test_an_unknown_voice_is_refused_with_the_known(engine: Loop, voice: str) -> None:
    failed = failure(engine.say(FOX, voice=voice))
    assert (failed.kind, failed.param) == ("invalid_request", "voice")
    assert "en-gb, " in failed.message
    assert "en-us+f3" in failed.message


def test_the_entry_says_who_speaks_how_fast_and_how_high(engine: Loop) -> None:
    usual = engine.say(FOX)
    assert samples(load(voice="de").say(FOX)).size != samples(usual).size
    assert seconds(load(rate_wpm=300).say(FOX)) < 0.65 * seconds(usual)
    high = samples(load(pitch=99).say(FOX))
    assert np.mean(np.diff(np.sign(high)) != 0) != pytest.approx(
        np.mean(np.diff(np.sign(samples(usual))) != 0), rel=0.01
    )
    assert len(high) == pytest.approx(len(samples(usual)), rel=0.03)


def test_words_are_those_of_the_text_in_the_order_of_the_sound(engine: Loop) -> None:
    events = engine.say(TWO_SENTENCES, times=True)
    told = words(events)
    assert " ".join(word.text for word in told) == TWO_SENTENCES
    edges = [edge for word in told for edge in (word.start_seconds, word.end_seconds)]
    assert edges == sorted(edges)
    assert edges[-1] < seconds(events)
    assert all(word.end_seconds > word.start_seconds for word in told)
    assert [type(event) for event in events] == [Sound, WordTimes, Spoken]


def test_a_word_ends_before_the_pause_that_follows(engine: Loop) -> None:
    events = engine.say("One. Two.", times=True)
    heard = np.abs(samples(events).astype(int))
    one, two = words(events)
    assert one.end_seconds < two.start_seconds - 0.1
    assert heard[int(22_050 * one.end_seconds) + 10 : int(22_050 * two.start_seconds) - 10].max() <= 30


def test_chinese_is_told_sign_by_sign(engine: Loop) -> None:
    assert [word.text for word in words(engine.say("你好世界", voice="cmn", times=True))] == list("你好世界")


@pytest.mark.parametrize("text", ["", " ", "...", "\0", "\u202e", "\n\n"])
def test_a_text_with_nothing_to_say_gives_no_sound(engine: Loop, text: str) -> None:
    assert engine.say(text, times=True) == [Spoken(1)]


def test_no_segments_are_spoken_at_once(engine: Loop) -> None:
    assert engine.say() == [Spoken(1)]


def test_markup_is_read_as_text(engine: Loop) -> None:
    """As SSML the pause would be nine seconds, and as phonemes the brackets would be one word."""
    assert 2 < seconds(engine.say("<speak>Hi <break time='9s'/></speak>")) < 8
    assert len(words(engine.say("[[h@l'oU w3:ld]]", times=True))) == 2
    assert seconds(engine.say("[[h@l'oU]]")) > 1.3


def test_a_zero_character_does_not_end_the_text(engine: Loop) -> None:
    assert [word.text for word in words(engine.say("One\0two", times=True))] == ["One\0two"]
    assert seconds(engine.say("One\0two")) > 1.2 * seconds(engine.say("One"))


def test_nothing_that_a_client_sends_stops_the_engine(
    engine: Loop, capfd: pytest.CaptureFixture[str], draws: Draws
) -> None:
    chance = random.Random(3)  # a repeatable test
    requests = [Speak(id=i, segments=[text], times=True) for i, text in enumerate(odd_texts(chance, draws(100)))]
    answers = engine.run(*requests)
    assert all(isinstance(events[-1], Spoken) for events in answers.values())
    assert capfd.readouterr().err == ""


def test_odd_texts_are_said_in_every_language(engine: Loop, draws: Draws) -> None:
    found = espeak_voices.found()
    assert found is not None
    chance = random.Random(4)
    requests = [
        Speak(id=i, segments=[text], voice=chance.choice(list(found.by_id)))
        for i, text in enumerate([*odd_texts(chance, draws(80))][10:])
    ]
    assert all(isinstance(events[-1], Spoken) for events in engine.run(*requests).values())


def test_what_fails_for_one_request_fails_that_request_alone(engine: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    library = engine.engine._library
    speak = library.speak

    def fail(text: str, *args: Any, **more: Any) -> Any:
        return 1 / 0 if text == "Mama." else speak(text, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(library, "speak", fail)
        events = engine.run(Speak(id=1, segments=["Ah.", "Mama."]), Speak(id=2, segments=["Ah."] * 3))
    assert failure(events[1]).kind == "generation_failed"
    assert_in_order(events[2], 3)


def test_a_default_voice_that_is_not_there_does_not_load() -> None:
    with pytest.raises(CannotLoad, match="klingon"):
        load(voice="klingon")


async def test_a_worker_gets_what_it_needs_from_the_entry() -> None:
    entry = EspeakNg(backend="espeak-ng").located(lambda _: Path.cwd())
    engine = await entry.start("espeak", lambda *_: None)
    try:
        async with asyncio.timeout(60):
            events = [event async for event in engine.answer(Speak(id=1, segments=[FOX], times=True))]
    finally:
        await engine.close()
    assert [type(event) for event in events] == [Sound, WordTimes, Spoken]
