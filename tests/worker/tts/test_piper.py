"""Piper on real voices, which were made here: many requests on some threads, each in its own order."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from piper import PiperVoice, SynthesisConfig

from localapi.backends.piper import Piper
from localapi.worker.model import CannotLoad
from localapi.worker.protocol import Failed, Sound, Speak, Spoken, WordTimes
from localapi.worker.tts import piper, piper_model
from tests.conftest import Draws
from tests.piper_voice import BASE_HZ, SPEAKER_HZ, STEP_HZ, make_voice
from tests.speaking import Loop, assert_in_order, failure, odd_texts, samples, seconds, words

FOX = "The quick brown fox jumps over the lazy dog."
TWO_SENTENCES = "Hello there, numbers like 42 work. Don't stop at the end of the café!"


def load(path: Path, **options: Any) -> Loop:
    return Loop(piper.load, {"path": str(path), **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="module")
def voice(folder: Path) -> Path:
    return make_voice(folder / "tiny.onnx")


@pytest.fixture(scope="module")
def tiny(voice: Path) -> Loop:
    return load(voice)


@pytest.fixture(scope="module")
def three(folder: Path) -> Loop:
    return load(make_voice(folder / "three.onnx", speakers=3, sample_rate_hz=22_050))


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(tiny: Loop, three: Loop) -> Any:
    yield
    for loop in (tiny, three):
        assert not loop.engine.busy
        assert not loop.engine._turns._requests


def lowest_hz(events: list[Any], rate_hz: int) -> float:
    """The lowest pitch of what is heard. The voice's tones are never below its base."""
    spectrum = np.abs(np.fft.rfft(samples(events)))
    loud = np.flatnonzero(spectrum > spectrum.max() / 4)
    return float(loud[0] * rate_hz / len(samples(events)))


def test_what_is_heard_is_what_piper_itself_makes_of_the_text(tiny: Loop, voice: Path) -> None:
    settings = SynthesisConfig(normalize_audio=False)
    chunks = PiperVoice.load(voice).synthesize(TWO_SENTENCES, settings)
    expected = np.concatenate([chunk.audio_int16_array for chunk in chunks])
    heard = samples(tiny.say(TWO_SENTENCES))
    assert heard.shape == expected.shape
    assert np.abs(heard.astype(int) - expected).max() <= 1


def test_segments_come_in_order_with_the_voices_sample_rate(tiny: Loop, three: Loop) -> None:
    events = tiny.say(FOX, "Two.", TWO_SENTENCES, "Four.")
    assert_in_order(events, 4)
    assert {event.sample_rate_hz for event in events if isinstance(event, Sound)} == {16_000}
    assert {event.sample_rate_hz for event in three.say(FOX) if isinstance(event, Sound)} == {22_050}


def test_a_sentence_is_sent_when_it_is_made(tiny: Loop) -> None:
    tiny.engine.take(Speak(id=1, segments=[FOX] * 50))
    events = tiny.until(bool)
    assert isinstance(events[0], Sound)
    assert not any(isinstance(event, Spoken) for event in events)
    tiny.engine.cancel(1)


def test_requests_at_the_same_time_get_what_they_would_get_alone(tiny: Loop) -> None:
    texts = [[f"Number {i}. {FOX}", TWO_SENTENCES][: 1 + i % 2] for i in range(12)]
    alone = [samples(tiny.say(*text)) for text in texts]
    together = tiny.run(*(Speak(id=i, segments=text) for i, text in enumerate(texts)))
    assert [samples(events).tobytes() for events in together.values()] == [each.tobytes() for each in alone]


def test_a_short_request_does_not_wait_for_a_long_one(tiny: Loop) -> None:
    tiny.engine.take(Speak(id=1, segments=[" ".join([FOX] * 10)] * 20))
    tiny.engine.take(Speak(id=2, segments=["Yes."]))
    events = tiny.until(lambda events: any(isinstance(event, Spoken) for event in events))
    assert next(event.id for event in events if isinstance(event, Spoken)) == 2
    assert sum(event.id == 1 for event in events) < 50
    tiny.engine.cancel(1)


def test_a_cancelled_request_is_silent_and_the_others_go_on(tiny: Loop) -> None:
    for i in range(4):
        tiny.engine.take(Speak(id=i, segments=[FOX] * 20))
    tiny.until(bool)
    for gone in (0, 2, 3, 99):
        tiny.engine.cancel(gone)
    events = tiny.until(lambda events: any(isinstance(event, Spoken) for event in events))
    assert {event.id for event in events} == {1}


@pytest.mark.parametrize("speed", [0.25, 0.4, 0.5, 0.8, 1.1, 1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("text", [FOX, "Ah.", TWO_SENTENCES])
def test_speech_lasts_as_long_as_the_speed_says(tiny: Loop, text: str, speed: float) -> None:
    usual = seconds(tiny.say(text))
    assert seconds(tiny.say(text, speed=speed)) == pytest.approx(usual / speed, rel=0.001)


@pytest.mark.parametrize("speed", [0.25, 0.5, 2.0, 4.0])
def test_words_are_told_where_they_are_at_every_speed(tiny: Loop, speed: float) -> None:
    usual = words(tiny.say(TWO_SENTENCES, times=True))
    told = words(tiny.say(TWO_SENTENCES, times=True, speed=speed))
    for word, same in zip(told, usual, strict=True):
        assert word.text == same.text
        # Whole frames let a word take a little more or less of its sentence than at the voice's own pace
        assert word.start_seconds * speed == pytest.approx(same.start_seconds, abs=0.1)
        assert word.end_seconds * speed == pytest.approx(same.end_seconds, abs=0.1)


def test_a_voice_that_cannot_tell_lengths_keeps_the_speed_too(folder: Path) -> None:
    engine = load(untold(folder))
    usual = seconds(engine.say(FOX))
    for speed in (0.25, 2.0, 4.0):
        assert seconds(engine.say(FOX, speed=speed)) == pytest.approx(usual / speed, rel=0.001)


def test_speakers_speak_by_name_and_by_number(three: Loop) -> None:
    pitches = [lowest_hz(three.say("Ah.", voice=name), 22_050) for name in ("speaker0", "speaker1", "speaker2")]
    assert np.diff(pitches) == pytest.approx([SPEAKER_HZ] * 2, abs=10)
    assert pitches[0] > BASE_HZ + 3 * STEP_HZ
    assert samples(three.say("Ah.", voice="2")).tobytes() == samples(three.say("Ah.", voice="speaker2")).tobytes()


@pytest.mark.parametrize("speaker", ["speaker1", 1, "1"])
def test_the_entry_says_who_speaks_where_a_request_does_not(folder: Path, three: Loop, speaker: Any) -> None:
    engine = load(folder / "three.onnx", speaker=speaker)
    assert samples(engine.say(FOX)).tobytes() == samples(three.say(FOX, voice="speaker1")).tobytes()


@pytest.mark.parametrize("name", ["nobody", "3", "-1", ""])
def test_an_unknown_voice_is_refused_with_the_known(three: Loop, name: str) -> None:
    failed = failure(three.say(FOX, voice=name))
    assert (failed.kind, failed.param) == ("invalid_request", "voice")
    assert "speaker0, speaker1, speaker2" in failed.message


def test_a_voice_with_one_speaker_has_its_own_name(tiny: Loop) -> None:
    assert samples(tiny.say(FOX, voice="tiny")).tobytes() == samples(tiny.say(FOX)).tobytes()
    assert failure(tiny.say(FOX, voice="alloy")).param == "voice"


def test_words_are_told_also_by_voices_without_that_output(tiny: Loop, folder: Path) -> None:
    told = words(tiny.say(TWO_SENTENCES, times=True))
    assert " ".join(word.text for word in told) == TWO_SENTENCES
    aligned = load(make_voice(folder / "aligned.onnx", aligned=True))
    assert words(aligned.say(TWO_SENTENCES, times=True)) == told


def test_words_follow_each_other_within_the_sound(tiny: Loop) -> None:
    events = tiny.say(TWO_SENTENCES, times=True)
    told = words(events)
    edges = [edge for word in told for edge in (word.start_seconds, word.end_seconds)]
    assert edges == sorted(edges)
    assert 0 < edges[0] < edges[-1] < seconds(events)
    assert all(word.end_seconds > word.start_seconds for word in told)


def test_a_word_is_heard_where_it_is_told_to_be(tiny: Loop) -> None:
    events = tiny.say("One two three.", times=True)
    heard = np.abs(samples(events).astype(int))
    for word in words(events):
        middle = int(16_000 * (word.start_seconds + word.end_seconds) / 2)
        assert heard[middle - 256 : middle + 256].max() > 10_000


def test_times_come_once_for_a_segment_after_its_sound(tiny: Loop) -> None:
    events = tiny.say(TWO_SENTENCES, FOX, times=True)
    kinds = [(type(event), getattr(event, "segment", None)) for event in events]
    assert kinds == [(Sound, 0), (Sound, 0), (WordTimes, 0), (Sound, 1), (WordTimes, 1), (Spoken, None)]


def untold(folder: Path) -> Path:
    """A voice that does not tell how long its phonemes take."""
    path = make_voice(folder / "untold.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Ceil":
            node.op_type = "Round"
    onnx.save(model, path)
    return path


def test_a_voice_that_cannot_tell_words_says_so(folder: Path) -> None:
    events = load(untold(folder)).say(FOX, times=True)
    assert [type(event) for event in events] == [Sound, Spoken]
    assert isinstance(events[-1], Spoken)
    assert events[-1].notes == [piper.NO_TIMES]


@pytest.mark.parametrize(("amplitude", "volume"), [(0.5, 1.0), (0.5, 0.2), (3.0, 1.0), (0.5, 8.0)])
def test_the_volume_is_the_voices_own_and_nothing_is_cut_off(folder: Path, amplitude: float, volume: float) -> None:
    engine = load(make_voice(folder / f"loud{amplitude}.onnx", amplitude=amplitude), volume=volume)
    heard = samples(engine.say(FOX)).astype(int)
    assert np.abs(heard).max() == pytest.approx(32_767 * min(1.0, amplitude * volume), rel=0.01)
    flat = (np.abs(heard[1:]) > 32_000) & (np.diff(heard) == 0)
    assert flat.mean() < 0.01


def test_sentences_are_as_loud_as_each_other(folder: Path) -> None:
    quiet = load(make_voice(folder / "quiet.onnx", amplitude=0.1))
    for text in ("Ah.", FOX, "Psst!"):
        assert np.abs(samples(quiet.say(text)).astype(int)).max() == pytest.approx(3_277, rel=0.01)


def test_phonemes_in_brackets_are_text(tiny: Loop) -> None:
    assert samples(tiny.say("Say [[h@l]] now.")).tobytes() == samples(tiny.say("Say  [h@l]] now.")).tobytes()


@pytest.mark.parametrize("text", ["", " ", "...", "?!", "—", "\0", "\u202e"])
def test_a_text_with_nothing_to_say_gives_no_sound(tiny: Loop, text: str) -> None:
    assert tiny.say(text, times=True) == [Spoken(1)]
    assert {event.segment for event in tiny.say(text, FOX) if isinstance(event, Sound)} == {1}


def test_no_segments_are_spoken_at_once(tiny: Loop) -> None:
    assert tiny.say() == [Spoken(1)]


def test_a_sentence_without_an_end_is_cut_between_words(tiny: Loop) -> None:
    text = "word " * 800
    whole = tiny.say(text, times=True)
    pieces = [event for event in whole if isinstance(event, Sound)]
    assert len(pieces) > 3
    assert max(len(piece.pcm) for piece in pieces) / 2 / 16_000 < 60
    assert len(words(whole)) == 800


def test_what_fails_for_one_request_fails_that_request_alone(tiny: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    say = piper_model.PiperModel.say

    def fail(self: Any, phonemes: list[str], *args: Any, **more: Any) -> Any:
        return 1 / 0 if "m" in phonemes else say(self, phonemes, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(piper_model.PiperModel, "say", fail)
        events = tiny.run(Speak(id=1, segments=["Ah.", "Mama.", "Ah."] * 9), Speak(id=2, segments=["Ah."] * 9))
    assert failure(events[1]).kind == "generation_failed"
    assert "ZeroDivisionError" in failure(events[1]).message
    assert_in_order(events[2], 9)
    assert_in_order(tiny.say("Mama."), 1)


def test_nothing_that_a_client_sends_stops_the_engine(
    tiny: Loop, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], draws: Draws
) -> None:
    chance = random.Random(2)  # a repeatable test
    texts = list(odd_texts(chance, draws(50)))
    requests = [
        Speak(id=i, segments=[text], times=chance.random() < 0.5, speed=chance.choice([0.25, 1.0, 4.0]))
        for i, text in enumerate(texts)
    ]
    with caplog.at_level(logging.WARNING):
        answers = tiny.run(*requests)
    assert all(isinstance(events[-1], Spoken) for events in answers.values())
    assert not any(isinstance(event, Failed) for events in answers.values() for event in events)
    assert caplog.records == []
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"espeak": {"voice": "klingon-x"}}, "klingon-x"),
        ({"phoneme_type": "telepathy"}, "telepathy"),
        ({"num_speakers": 2}, "cannot speak"),
        ({"audio": None}, "not the configuration of a Piper voice"),
    ],
)
def test_a_voice_that_cannot_speak_does_not_load(tmp_path: Path, config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CannotLoad, match=complaint):
        load(make_voice(tmp_path / "broken.onnx", config=config))


def test_files_that_are_no_voice_do_not_load(tmp_path: Path) -> None:
    path = make_voice(tmp_path / "voice.onnx")
    path.write_bytes(b"no model")
    with pytest.raises(CannotLoad, match="ONNX Runtime"):
        load(path)
    path.with_name("voice.onnx.json").write_text("{")
    with pytest.raises(CannotLoad, match="not the configuration"):
        load(path)
    path.with_name("voice.onnx.json").write_text(json.dumps([]))
    with pytest.raises(CannotLoad, match="not the configuration"):
        load(path)


async def test_a_worker_answers_several_at_once(voice: Path, tiny: Loop) -> None:
    entry = Piper(backend="piper", path=str(voice)).located(lambda _: voice.parent)
    engine = await entry.start("tiny", lambda *_: None)

    async def ask(number: int) -> list[Any]:
        return [event async for event in engine.answer(Speak(id=number, segments=[FOX, TWO_SENTENCES], times=True))]

    try:
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(ask(number) for number in range(8)))
    finally:
        await engine.close()
    expected = samples(tiny.say(FOX, TWO_SENTENCES)).tobytes()
    assert [samples(events).tobytes() for events in answers] == [expected] * 8


def test_loading_says_what_it_does(voice: Path) -> None:
    assert load(voice).phases == ["reading the voice", "speaking for the first time"]
