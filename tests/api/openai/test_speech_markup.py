"""SSML and other markup through a server, with every engine that runs anywhere: heard, timed, and told in headers."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.piper_voice import make_voice
from tests.server import Reply, Server, serving
from tests.sound import decoded, seconds

FAKEBIN = Path(__file__).parents[2] / "fakebin"
MANIFEST = """
speech:
  tone: {backend: echo}
  espeak: {backend: espeak-ng, voices: {Nova: en-gb}, speech_cache_mb: 4}
  piper: {backend: piper, path: voice.onnx}
  mac: {backend: macos-say}
  reader: {backend: espeak-ng, speakable: true, lexicon: {GIF: jif, W3C: wrong}, sentence_silence_ms: 400}
"""
ENGINES = ["tone", "espeak", "piper", "mac"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("markup")
    make_voice(folder / "voice.onnx", speakers=2, aligned=True, config={"speaker_id_map": {"anna": 0, "bob": 1}})
    env = {"PATH": f"{FAKEBIN}{os.pathsep}{os.environ['PATH']}", "FAKE_SAY_LOG": str(folder / "said")}
    with serving(folder, MANIFEST, env=env) as server:
        yield server


def speak(server: Server, model: str, text: str, **more: Any) -> Reply:
    body = {"model": model, "input": text, "response_format": "wav", "stream": False, **more}
    reply = server.request("POST", "/v1/audio/speech", body)
    assert reply.status == 200, reply.body
    return reply


def lasts(server: Server, model: str, text: str, **more: Any) -> float:
    return seconds(speak(server, model, text, **more).body, "wav")


def silences(reply: Reply, *, longer_than: float) -> list[float]:
    """The seconds of each silence, in order; the whole file is looked at."""
    samples, rate = decoded(reply.body, "wav")
    loud = np.flatnonzero(np.abs(samples) > 0.002)
    edges = np.concatenate([[0], loud, [len(samples)]])
    gaps = np.diff(edges) / rate
    return [round(float(gap), 2) for gap in gaps if gap > longer_than]


@pytest.mark.parametrize("model", ENGINES)
def test_a_pause_lasts_as_long_as_it_says_in_every_engine(server: Server, model: str) -> None:
    usual = lasts(server, model, "One two three. Four five six.")
    for text in (
        "<speak>One two three. <break time='2s'/> Four five six.</speak>",
        "One two three. [pause:2s] Four five six.",
    ):
        assert lasts(server, model, text) == pytest.approx(usual + 2, abs=0.1)
        assert any(gap >= 1.99 for gap in silences(speak(server, model, text), longer_than=1))


@pytest.mark.parametrize("speed", [0.5, 1, 2])
@pytest.mark.parametrize("model", ENGINES)
def test_pauses_do_not_change_with_the_speed_and_stand_at_both_ends_too(
    server: Server, model: str, speed: float
) -> None:
    reply = speak(server, model, "[pause:1s] One two three. [pause:3s]", speed=speed)
    found = silences(reply, longer_than=0.9)
    assert found[0] == pytest.approx(1, abs=0.35)
    assert found[-1] == pytest.approx(3, abs=0.7)
    assert len(found) == 2


@pytest.mark.parametrize("model", ENGINES)
def test_a_rate_stretches_its_part_only(server: Server, model: str) -> None:
    words = "seven eight nine ten eleven twelve."
    usual = lasts(server, model, words)
    assert lasts(server, model, f"<speak><prosody rate='50%'>{words}</prosody></speak>") == pytest.approx(
        2 * usual, rel=0.15
    )
    both = lasts(server, model, f"<speak>{words} <prosody rate='50%'>{words}</prosody></speak>")
    assert both == pytest.approx(3 * usual, rel=0.15)


@pytest.mark.parametrize("model", ENGINES)
def test_a_stream_and_a_file_and_times_hold_the_same(server: Server, model: str) -> None:
    slow = "<prosody rate='slow'>Three four.</prosody>"
    text = f"<speak>One two. <break time='1s'/> {slow} <emphasis>Five.</emphasis></speak>"
    whole = speak(server, model, text, response_format="pcm")
    streamed = server.request(
        "POST", "/v1/audio/speech", {"model": model, "input": text, "response_format": "pcm", "stream_format": "sse"}
    )
    events = [json.loads(line[6:]) for line in streamed.body.decode().splitlines() if line.startswith("data: {")]
    sound = b"".join(base64.b64decode(event["audio"]) for event in events if event["type"].endswith("delta"))
    assert len(sound) == pytest.approx(len(whole.body), rel=0.01)
    timed = speak(server, model, text, timestamps="sentence").json()
    said = timed["timestamps"]
    assert [each["text"] for each in said] == ["One two.", "Three four.", "Five."]
    assert said[1]["start"] - said[0]["end"] == pytest.approx(1, abs=0.05)
    assert timed["duration_seconds"] == pytest.approx(seconds(base64.b64decode(timed["audio"]), "wav"), abs=0.05)
    for reply in (whole, streamed):
        assert reply.headers["x-ignored-markup"] == "emphasis"
    assert any("emphasis" in note for note in timed["notes"])
    assert any("emphasis" in note for note in events[-1]["notes"])


def test_a_voice_in_the_text_speaks_its_part_and_an_unknown_one_is_told(server: Server) -> None:
    text = "<speak>One two three. <voice name='BOB'>Four five six.</voice></speak>"
    assert "x-ignored-markup" not in speak(server, "piper", text).headers
    assert "x-ignored-markup" not in speak(server, "espeak", "Hi. [voice:nova] Hi. [voice:DE+F3] Hallo.").headers
    reply = speak(server, "piper", text.replace("BOB", "Zoe"))
    assert reply.headers["x-ignored-markup"] == "voice[Zoe]"
    one, other = (
        speak(server, "mac", f"<speak><voice name='{name}'>One two.</voice></speak>") for name in ("daniel", "Fiona")
    )
    assert one.body != other.body


def test_the_lexicon_leaves_aliases_and_spelled_words_alone_and_reads_the_rest(server: Server) -> None:
    spelled = "<say-as interpret-as='characters'>GIF</say-as>"
    text = f"<speak>A GIF. <sub alias='Web Consortium GIF'>W3C</sub>. {spelled}.</speak>"
    said = speak(server, "reader", text, timestamps="sentence").json()["timestamps"]
    assert [each["text"] for each in said] == ["A jif.", "Web Consortium GIF.", "G, I, F."]


def test_a_break_within_a_sentence_gets_no_silence_of_sentences_beside_it(server: Server) -> None:
    said = speak(
        server, "reader", "One <break time='1s'/> two. Three **four** five.\n\nSix.", timestamps="sentence"
    ).json()
    gaps = [
        after["start"] - before["end"]
        for before, after in zip(said["timestamps"], said["timestamps"][1:], strict=False)
    ]
    assert gaps[0] == pytest.approx(1, abs=0.01)
    assert gaps[-1] == pytest.approx(0.4, abs=0.01)


def test_scripts_that_a_voice_does_not_read_are_told_and_others_are_read(server: Server) -> None:
    assert speak(server, "espeak", "Привет, мир!", voice="de").headers["x-unread-scripts"] == "Cyrillic"
    for text in ("Привет, мир!", "The word привет means hello."):
        assert "x-unread-scripts" not in speak(server, "espeak", text, voice="alloy").headers
    own = lasts(server, "espeak", "Привет, мир!")
    spelled = lasts(server, "espeak", "Привет, мир!", voice="en-us")
    assert own < 0.7 * spelled


@pytest.mark.parametrize("model", ENGINES)
@pytest.mark.parametrize(
    "text",
    [
        "<speak>unclosed <break time='1s",
        "<speak><prosody rate='fast'>no end",
        "</speak> hello </prosody>",
        "<speak>" * 60 + "hello",
        "<!DOCTYPE s [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><speak>&a; hello</speak>",
        "if a < b && c > d then hello",
    ],
)
def test_broken_markup_is_spoken_as_far_as_it_goes(server: Server, model: str, text: str) -> None:
    assert 0.2 < lasts(server, model, text) < 20


def test_markup_without_a_word_is_refused(server: Server) -> None:
    reply = server.request("POST", "/v1/audio/speech", {"model": "tone", "input": "<speak><break time='1s'/></speak>"})
    assert (reply.status, reply.json()["error"]["param"]) == (400, "input")


TOMATO = "<speak><phoneme alphabet='ipa' ph='ba\u02d0\u02c8na\u02d0na\u02d0na\u02d0'>a</phoneme></speak>"


def test_phonemes_are_heard_instead_of_the_text_where_the_engine_can(server: Server) -> None:
    reply = speak(server, "piper", TOMATO)
    assert "x-ignored-markup" not in reply.headers
    assert seconds(reply.body, "wav") > 2 * lasts(server, "piper", "a")


@pytest.mark.parametrize("model", ["tone", "espeak", "mac"])
def test_phonemes_are_named_where_the_engine_cannot(server: Server, model: str) -> None:
    assert "phoneme" in speak(server, model, TOMATO).headers["x-ignored-markup"]


def test_what_marks_phonemes_is_no_text_of_a_client(server: Server) -> None:
    assert lasts(server, "piper", "\ue000Hello\ue001 you") == lasts(server, "piper", "Hello you")
