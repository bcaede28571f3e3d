"""`/v1/audio/*` end to end with the echo voice: a tone as long as the text would take, so lengths can be checked."""

from __future__ import annotations

import base64
import http.client
import io
import itertools
import json
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server import Reply, Server, save, serving
from tests.sound import decoded, pitch_hz, seconds

MANIFEST = """
chat:
  parrot: {backend: echo}
speech:
  tone:
    backend: echo
    aliases: [tts-1]
    max_input_characters: 2000
    voices:
      alloy: low
      slow: {voice: low, speed: 0.5}
  reader:
    backend: echo
    speakable: true
    lexicon: {GIF: a very long way of saying jif}
    sentence_silence_ms: 500
    audio_folders: [recordings]
"""
TEXT = "This sentence takes about three seconds to be said."
TEXT_SECONDS = len(TEXT) / 15
LONG = " ".join([TEXT] * 30)
FORMATS = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("speech")
    (folder / "recordings").mkdir()
    (folder / "recordings" / "me.wav").write_bytes(b"sound")
    (folder / "secret.wav").write_bytes(b"secret")
    with serving(folder, MANIFEST) as server:
        yield server


def speak(server: Server, text: str = TEXT, model: str = "tone", **more: Any) -> Reply:
    return server.request("POST", "/v1/audio/speech", {"model": model, "input": text, **more})


def said(server: Server, text: str = TEXT, **more: Any) -> float:
    """Seconds of speech."""
    reply = speak(server, text, response_format="pcm", **more)
    assert reply.status == 200, reply.body
    return seconds(reply.body, "pcm")


def refused(server: Server, text: str = TEXT, **more: Any) -> dict[str, Any]:
    reply = speak(server, text, **more)
    assert reply.status == 400, reply.status
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# The file


@pytest.mark.parametrize("format", FORMATS)
def test_the_openai_client_gets_every_format(server: Server, format: str) -> None:  # noqa: A002
    reply = server.client().audio.speech.create(model="tts-1", voice="alloy", input=TEXT, response_format=format)
    assert reply.response.headers["content-type"] == FORMATS[format]
    samples, rate = decoded(reply.content, format)
    assert rate == 24_000
    assert len(samples) / rate == pytest.approx(TEXT_SECONDS, abs=0.1)
    assert pitch_hz(samples, rate) == pytest.approx(440, abs=2)
    assert 0.25 < max(abs(samples)) < 0.35


def test_mp3_is_what_comes_when_nobody_says(server: Server) -> None:
    reply = speak(server, voice="alloy")
    assert reply.headers["content-type"] == "audio/mpeg"
    assert seconds(reply.body, "mp3") == pytest.approx(TEXT_SECONDS, abs=0.1)


def test_the_older_name_of_the_format_is_known(server: Server) -> None:
    assert speak(server, format="flac").body[:4] == b"fLaC"
    assert refused(server, format="flac", response_format="wav")["param"] == "format"


def test_a_short_wav_has_a_length_and_an_exact_header(server: Server) -> None:
    reply = speak(server, "Hello.", response_format="wav")
    assert int(reply.headers["content-length"]) == len(reply.body)
    with wave.open(io.BytesIO(reply.body)) as file:
        assert file.getnframes() == (len(reply.body) - 44) // 2


def test_a_long_wav_is_streamed_unless_the_request_wants_its_length(server: Server) -> None:
    streamed = speak(server, LONG, response_format="wav")
    whole = speak(server, LONG, response_format="wav", stream=False)
    assert streamed.headers["transfer-encoding"] == "chunked"
    assert streamed.body[4:8] == b"\xff\xff\xff\xff"
    assert int(whole.headers["content-length"]) == len(whole.body)
    with wave.open(io.BytesIO(whole.body)) as file:
        assert file.readframes(file.getnframes()) == streamed.body[44:]


def test_sound_leaves_before_all_is_said(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "POST", "/v1/audio/speech", json.dumps({"model": "tone", "input": LONG}), {"Content-Type": "application/json"}
    )
    reply = connection.getresponse()
    assert len(reply.read1(1000)) > 0
    connection.close()
    assert said(server, "Hello.") > 0


@pytest.mark.parametrize(("speed", "factor"), [(0.25, 4), (0.5, 2), (2, 0.5), (4, 0.25)])
def test_speed_changes_how_long_it_takes(server: Server, speed: float, factor: float) -> None:
    assert said(server, speed=speed) == pytest.approx(TEXT_SECONDS * factor, rel=0.03)


# Voices


def test_a_mapped_voice_carries_its_speed_and_the_request_is_stronger(server: Server) -> None:
    assert said(server, voice="slow") == pytest.approx(TEXT_SECONDS * 2, rel=0.03)
    assert said(server, voice={"id": "slow"}) == pytest.approx(TEXT_SECONDS * 2, rel=0.03)
    assert said(server, voice="slow", speed=1) == pytest.approx(TEXT_SECONDS, rel=0.03)


def test_voices_are_listed_for_all_models_and_for_one(server: Server) -> None:
    assert [voice["id"] for voice in server.get("/v1/audio/voices")["voices"]] == ["alloy", "slow"]
    assert server.get("/v1/audio/voices?model=reader")["voices"] == []
    wrong = server.request("GET", "/v1/audio/voices?model=parrot")
    assert (wrong.status, wrong.json()["error"]["code"]) == (400, "wrong_endpoint")


def test_speech_models_are_listed_as_open_webui_reads_them(server: Server) -> None:
    assert [model["id"] for model in server.get("/v1/audio/models")["models"]] == ["tone", "reader"]


# Text


def test_markdown_emoji_and_the_lexicon_are_spoken_where_the_entry_says_so(server: Server) -> None:
    plain = said(server, "A word and more words.", model="reader")
    assert said(
        server, "A **word** \U0001f600 and [more](https://example.com/a/long/address) words.", model="reader"
    ) == (pytest.approx(plain, rel=0.03))
    assert said(server, "GIF", model="reader") == pytest.approx(len("a very long way of saying jif") / 15, rel=0.03)


def test_silence_lies_between_sentences(server: Server) -> None:
    times = speak(server, f"{LONG}", model="reader", timestamps="sentence").json()["timestamps"]
    assert len(times) > 5
    assert [round(b["start"] - a["end"], 2) for a, b in itertools.pairwise(times)] == [0.5] * (len(times) - 1)


@pytest.mark.parametrize("text", ["Hi. Yes. No.", "One. Two! Three?", "你好。再见。谢谢。", "1. a\n2. b\n3. c"])
def test_silence_lies_between_short_sentences_too(server: Server, text: str) -> None:
    without = said(server, text)
    sentences = len(speak(server, text, model="reader", timestamps="sentence").json()["timestamps"])
    assert sentences >= 3
    assert said(server, text, model="reader") == pytest.approx(without + 0.5 * (sentences - 1), abs=0.02)


def test_no_silence_lies_inside_a_sentence_that_is_cut_for_its_length(server: Server) -> None:
    text = "many words and no mark between any of them " * 12 + "end. And another sentence."
    [first, second] = speak(server, text, model="reader", timestamps="sentence").json()["timestamps"]
    assert first["text"] + " " + second["text"] == text
    assert first["end"] == pytest.approx(len(first["text"]) / 15, rel=0.05)
    assert second["start"] - first["end"] == pytest.approx(0.5)


@pytest.mark.parametrize("model", ["tone", "reader"])
@pytest.mark.parametrize("speed", [1, 2])
def test_asking_for_times_changes_nothing_that_is_heard(server: Server, model: str, speed: float) -> None:
    text = "Hi. Yes. " + "many words and no mark between any of them " * 12 + "end. No, never; " + "or maybe " * 20
    heard = speak(server, text, model=model, speed=speed, response_format="pcm").body
    timed = speak(server, text, model=model, speed=speed, response_format="pcm", timestamps="sentence").json()
    assert base64.b64decode(timed["audio"]) == heard


@pytest.mark.parametrize("text", ["", "   \n ", "...", "\u200b", "\x00", "?!"])
def test_text_with_nothing_to_say_is_refused(server: Server, text: str) -> None:
    assert refused(server, text)["param"] == "input"


def test_a_text_beyond_the_limit_is_refused_with_both_numbers(server: Server) -> None:
    error = refused(server, "a" * 2001)
    assert (error["param"], error["code"]) == ("input", "string_above_max_length")
    assert "2001" in error["message"]
    assert "2000" in error["message"]
    assert said(server, "a" * 2000) == pytest.approx(2000 / 15, rel=0.03)


# Events and times


def events(reply: Reply) -> list[dict[str, Any]]:
    lines = reply.body.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_events_carry_the_same_file_and_end_with_usage(server: Server) -> None:
    reply = speak(server, LONG, stream_format="sse", response_format="mp3")
    assert reply.headers["content-type"].startswith("text/event-stream")
    *deltas, last = events(reply)
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    assert len(deltas) > 10
    assert b"".join(base64.b64decode(delta["audio"]) for delta in deltas) == speak(server, LONG).body
    assert last["type"] == "speech.audio.done"
    assert last["usage"] == {
        "input_tokens": len(LONG),
        "output_tokens": last["usage"]["output_tokens"],
        "total_tokens": len(LONG) + last["usage"]["output_tokens"],
    }
    assert last["usage"]["output_tokens"] == pytest.approx(50 * seconds(speak(server, LONG).body, "mp3"), rel=0.01)


def test_times_come_with_the_file_or_as_events(server: Server) -> None:
    whole = speak(server, LONG, timestamps="sentence", response_format="wav", speed=2).json()
    assert whole["duration_seconds"] == pytest.approx(seconds(base64.b64decode(whole["audio"]), "wav"), abs=0.01)
    assert whole["timestamps"][0]["start"] == 0
    assert whole["timestamps"][-1]["end"] == whole["duration_seconds"]
    assert " ".join(segment["text"] for segment in whole["timestamps"]) == LONG
    streamed = events(speak(server, LONG, timestamps="sentence", stream_format="sse", speed=2))
    told = [
        segment for event in streamed if event["type"] == "speech.audio.timestamps" for segment in event["timestamps"]
    ]
    assert told == whole["timestamps"]


# What is refused


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"speed": 0.2}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"response_format": "ogg"}, "response_format"),
        ({"voice": 5}, "voice"),
        ({"voice": {"name": "x"}}, "voice"),
        ({"stream_format": "ndjson"}, "stream_format"),
        ({"timestamps": "word"}, "timestamps"),
        ({"instructions": "calm", "instruct_text": "wild"}, "instructions"),
        ({"ref_audio": "https://example.com/a.wav"}, "ref_audio"),
        ({"ref_audio": "data:audio/wav,abc"}, "ref_audio"),
        ({"ref_audio": "not base64!"}, "ref_audio"),
        ({"model": "parrot"}, "model"),
    ],
)
def test_a_bad_field_is_named(server: Server, body: dict[str, Any], param: str) -> None:
    assert refused(server, **body)["param"] == param


def test_a_missing_text_and_an_unknown_model_are_told(server: Server) -> None:
    assert server.request("POST", "/v1/audio/speech", {"model": "tone"}).json()["error"]["param"] == "input"
    with pytest.raises(openai.NotFoundError, match="tone, reader"):
        server.client().audio.speech.create(model="none", voice="alloy", input="hi")


def test_unknown_fields_are_named_in_the_reply(server: Server) -> None:
    assert speak(server, lang_code="a").headers["x-ignored-params"] == "lang_code"


def test_files_are_read_only_from_the_folders_of_the_manifest(server: Server) -> None:
    assert said(server, model="reader", ref_audio="me.wav") > 0
    for outside in ("../secret.wav", str(Path("/etc/hostname")), "me.wav/../../secret.wav"):
        assert refused(server, model="reader", ref_audio=outside + "!")["param"] == "ref_audio"


# Reload


def test_voices_lexicon_and_defaults_change_in_place(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    save(words, "GIF: a picture that moves\n")
    manifest = (
        "speech:\n  tone: {{backend: echo, lexicon_file: words.txt, "
        "defaults: {{speed: {speed}}}, voices: {{{voice}: x}}}}\n"
    )
    with serving(tmp_path, manifest.format(speed=1, voice="a")) as server:
        assert said(server, "GIF") == pytest.approx(len("a picture that moves") / 15, rel=0.03)
        seen = len(server.lines)
        save(words, "GIF: a picture that moves quite a lot, and more\n")
        server.wait_for("revision 2", after=seen)
        assert said(server, "GIF") == pytest.approx(len("a picture that moves quite a lot, and more") / 15, rel=0.03)
        save(tmp_path / "models.yaml", manifest.format(speed=2, voice="b"))
        server.wait_for("revision 3", after=seen)
        assert said(server, TEXT) == pytest.approx(TEXT_SECONDS / 2, rel=0.03)
        assert [voice["id"] for voice in server.get("/v1/audio/voices")["voices"]] == ["b"]
        assert server.model("tone")["loads"] == 1
        save(words, "GIF\n")
        server.wait_for("words.txt:1: should be a word", after=seen)
        assert said(server, TEXT) == pytest.approx(TEXT_SECONDS / 2, rel=0.03)


def test_finished_speech_is_kept_up_to_its_bytes_and_said_again_when_it_would_differ(tmp_path: Path) -> None:
    manifest = "speech:\n  tone: {{backend: echo, speech_cache_mb: {cap}, keep_alive: 0, lexicon: {{GIF: {gif}}}}}\n"
    with serving(tmp_path, manifest.format(cap=4, gif="jif")) as server:
        first = speak(server, LONG)
        again = speak(server, LONG)
        assert again.body == first.body
        assert server.model("tone")["loads"] == 1  # the second needed no model
        assert events(speak(server, LONG, stream_format="sse"))[-1]["usage"]["output_tokens"] > 1000
        assert server.model("tone")["loads"] == 1
        for change in ({"speed": 2}, {"response_format": "flac"}, {"voice": "x"}):
            assert speak(server, LONG, **change).body != first.body or "voice" in change
        assert server.model("tone")["loads"] == 4
        loads = server.model("tone")["loads"]
        for _ in range(2):  # five megabytes do not fit in four
            speak(server, LONG, response_format="wav")
        assert server.model("tone")["loads"] == loads + 2
        said(server, "GIF")
        save(tmp_path / "models.yaml", manifest.format(cap=4, gif="a moving picture"))
        server.wait_for("revision 2")
        assert said(server, "GIF") == pytest.approx(len("a moving picture") / 15, rel=0.03)


def test_files_of_the_manifests_folder_can_be_named_and_others_cannot(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    wav = speak_wav(tmp_path / "models" / "me.wav")
    (tmp_path / "outside.wav").write_bytes(wav)
    save(
        tmp_path / "models" / "models.yaml",
        "speech:\n  tone: {backend: echo}\n  none: {backend: echo, audio_folders: []}\n",
    )
    with serving(tmp_path, None, "--manifest", "models/models.yaml") as server:
        assert speak(server, ref_audio="me.wav").status == 200
        assert speak(server, ref_audio=base64.b64encode(wav).decode()).status == 200
        for value in ("../outside.wav", str(tmp_path / "outside.wav"), "/etc/passwd"):
            assert refused(server, ref_audio=value)["param"] == "ref_audio"
        assert refused(server, model="none", ref_audio="me.wav")["param"] == "ref_audio"


def speak_wav(path: Path) -> bytes:
    """A recording."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\1\0" * 16_000)
    return path.read_bytes()


def test_a_recording_may_be_as_large_as_its_field_allows(server: Server) -> None:
    def written(megabytes: int) -> str:
        return base64.b64encode(b"RIFF\0\0\0\0WAVE" + bytes(megabytes * 2**20)).decode()

    assert speak(server, "Hi.", ref_audio=written(24), source_audio=written(1)).status == 200
    assert refused(server, "Hi.", ref_audio=written(33))["param"] == "ref_audio"
    assert speak(server, "Hi.", ref_audio=written(70)).status == 413
