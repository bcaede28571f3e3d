"""Speech end to end with the engines that need no model or a tiny one: eSpeak NG, Piper, and an imitation of `say`."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.piper_voice import make_voice
from tests.server import Reply, Server, save, serving, until
from tests.sound import decoded, pitch_hz, seconds

FAKEBIN = Path(__file__).parents[2] / "fakebin"
MANIFEST = """
speech:
  system:
    backend: espeak-ng
    voices: {alloy: en-gb, deep: {voice: en-us+m3, speed: 0.8}}
  amy: {backend: auto, path: ./amy.onnx}
  slow: {backend: piper, path: ./slow.onnx}
  mac: {backend: macos-say, voices: {nova: Samantha}}
"""
MODELS = ("system", "amy", "mac")
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
TEXT = "Good morning to all of you! It is nine o'clock, and this is a sentence that takes a while. So is this one."
LONG = " ".join(f"This is sentence number {i} of a text that takes its time." for i in range(30))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    make_voice(folder / "amy.onnx", speakers=3, aligned=True)
    make_voice(folder / "slow.onnx", laborious=True, sample_rate_hz=22_050)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, MANIFEST, env={"PATH": f"{FAKEBIN}:{os.environ['PATH']}"}) as server:
        yield server


def speak(server: Server, model: str, text: str = TEXT, **more: Any) -> Reply:
    return server.request("POST", "/v1/audio/speech", {"model": model, "input": text, **more})


def begun(server: Server, model: str, **more: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A long text that is being said: the first bytes have come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    body = json.dumps({"model": model, "input": LONG, "response_format": "pcm", **more})
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.read1(100)
    return connection, reply


@pytest.mark.parametrize("model", MODELS)
def test_each_engine_gives_each_format_and_all_last_as_long(server: Server, model: str) -> None:
    client = server.client()
    lengths = {}
    for name in FORMATS:
        whole = {"stream": False}  # libsndfile does not read a flac that has no length
        reply = client.audio.speech.create(
            model=model, voice="alloy", input=TEXT, response_format=name, extra_body=whole if name == "flac" else {}
        )
        samples, rate = decoded(reply.content, name)
        lengths[name] = len(samples) / rate
        assert 0.05 < np.abs(samples).max() <= 1
        assert (np.abs(samples) >= 0.999).mean() < 0.001  # not clipped
    assert lengths["pcm"] > 2
    # AAC adds up to two frames of 1024 samples
    assert {name: length - lengths["pcm"] < 0.13 for name, length in lengths.items()} == dict.fromkeys(FORMATS, True)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_speed_halves_and_doubles_the_length(server: Server, model: str, speed: float) -> None:
    usual = seconds(speak(server, model, response_format="pcm").body, "pcm")
    changed = seconds(speak(server, model, response_format="pcm", speed=speed).body, "pcm")
    assert changed * speed == pytest.approx(usual, rel=0.03)


def test_auto_says_what_it_chose(server: Server) -> None:
    backends = {model["id"]: model["backend"] for model in server.get("/v1/models")["data"]}
    assert backends == {"system": "espeak-ng", "amy": "piper", "slow": "piper", "mac": "macos-say"}


@pytest.mark.parametrize(("model", "known"), [("system", "deep"), ("amy", "speaker1"), ("mac", "Samantha")])
def test_an_unknown_voice_is_a_400_that_lists_the_known(server: Server, model: str, known: str) -> None:
    with pytest.raises(openai.BadRequestError, match=known) as refused:
        server.client().audio.speech.create(model=model, voice="nobody", input=TEXT)
    assert refused.value.param == "voice"
    listed = [voice["id"] for voice in server.get(f"/v1/audio/voices?model={model}")["voices"]]
    assert known in listed


def test_speakers_of_a_piper_voice_sound_different(server: Server) -> None:
    pitches = {
        pitch_hz(*decoded(speak(server, "amy", "aaaa", voice=f"speaker{i}", response_format="wav").body, "wav"))
        for i in range(3)
    }
    assert len(pitches) == 3


@pytest.mark.parametrize("model", ["system", "amy"])
def test_the_times_of_words_lie_in_order_within_the_file(server: Server, model: str) -> None:
    said = speak(server, model, "Hello there. And good bye!", timestamps="word", response_format="wav").json()
    words = [word for segment in said["timestamps"] for word in segment["words"]]
    assert [word["word"].strip(".!") for word in words] == ["Hello", "there", "And", "good", "bye"]
    edges = [edge for word in words for edge in (word["start"], word["end"])]
    assert edges == sorted(edges)
    assert 0 <= edges[0] < edges[-1] <= said["duration_seconds"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("times", ["sentence", "word"])
def test_asking_for_times_changes_nothing_that_is_heard(server: Server, model: str, times: str) -> None:
    if model == "mac" and times == "word":
        pytest.skip("say does not tell when words are said")
    text = "Hi. Yes! " + "many words and no mark between any of them " * 6 + "end. No, never."
    heard = speak(server, model, text, response_format="pcm").body
    timed = speak(server, model, text, response_format="pcm", timestamps=times).json()
    sound = base64.b64decode(timed["audio"])
    # eSpeak NG itself differs by some samples from one time to the next
    assert len(sound) == pytest.approx(len(heard), rel=0.005 if model == "system" else 0)
    assert [segment["text"] for segment in timed["timestamps"]][:2] == ["Hi.", "Yes!"]
    assert len(timed["timestamps"]) == 4


def test_a_file_that_cannot_be_completed_does_not_look_complete(server: Server) -> None:
    connection, reply = begun(server, "slow")
    os.kill(server.model("slow")["place"]["pid"], signal.SIGKILL)
    with contextlib.closing(connection), pytest.raises(http.client.IncompleteRead):
        reply.read()
    assert seconds(speak(server, "slow", "Again.", response_format="wav").body, "wav") > 0


def test_events_end_with_an_error_when_the_engine_dies(server: Server) -> None:
    connection, reply = begun(server, "slow", stream_format="sse")
    os.kill(server.model("slow")["place"]["pid"], signal.SIGKILL)
    with contextlib.closing(connection):
        events = [line for line in reply.read().decode().splitlines() if line.startswith("data: ")]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "model_unavailable"


def test_a_client_that_leaves_ends_the_work(server: Server) -> None:
    connection, _ = begun(server, "slow")
    connection.sock.shutdown(2)
    connection.close()
    assert seconds(speak(server, "slow", "Next.", response_format="wav").body, "wav") > 0
    assert server.model("slow")["leases"] == 0


def test_a_voice_file_that_is_replaced_swaps_warm_and_what_is_being_said_ends(tmp_path: Path) -> None:
    make_voice(tmp_path / "voice.onnx", laborious=True, sample_rate_hz=16_000)
    make_voice(tmp_path / "other.onnx", sample_rate_hz=22_050)
    with serving(tmp_path, "speech: {voice: {backend: piper, path: ./voice.onnx}}") as server:
        before = decoded(speak(server, "voice", LONG, response_format="wav", stream=False).body, "wav")
        files: list[bytes] = []
        connection, reply = begun(server, "voice", response_format="wav")
        rest = threading.Thread(target=lambda: files.append(reply.read()))
        rest.start()
        seen = len(server.lines)
        for suffix in (".onnx.json", ".onnx"):
            shutil.move(tmp_path / f"other{suffix}", tmp_path / f"voice{suffix}")
        server.wait_for(r"revision \d+", after=seen)
        _, rate = decoded(speak(server, "voice", "Hello.", response_format="wav").body, "wav")
        rest.join()
        connection.close()
    assert (before[1], rate) == (16_000, 22_050)
    assert len(files[0]) // 2 == pytest.approx(len(before[0]), abs=200)  # said to its end by the old voice


def test_an_entry_that_cannot_be_is_refused_with_its_line(tmp_path: Path) -> None:
    make_voice(tmp_path / "a.onnx")
    make_voice(tmp_path / "b.onnx")
    with serving(tmp_path, "speech:\n  tone: {backend: echo}\n") as server:
        for broken, reason in (
            ("path: .", "2 voices"),
            ("path: ./none.onnx", "found: a.onnx, b.onnx"),
            ("path: ./a.onnx, defaults: {ref_audio: ./a.onnx}", "piper does not support"),
            ("path: ./a.onnx, speaker: bob", "no speaker 'bob'"),
        ):
            seen = len(server.lines)
            save(tmp_path / "models.yaml", f"speech:\n  tone: {{backend: echo}}\n  v: {{backend: piper, {broken}}}\n")
            server.wait_for(rf"models.yaml:3:\d+: speech.v.*{reason}", after=seen)
        assert speak(server, "tone").status == 200


def test_speech_is_kept_although_the_manifest_was_read_anew_while_it_waited(tmp_path: Path) -> None:
    manifest = "speech: {system: {backend: espeak-ng, max_concurrent: 1, speech_cache_mb: 4}}\n"
    with serving(tmp_path, f"server: {{log_level: debug}}\n{manifest}") as server, ThreadPoolExecutor() as threads:
        speak(server, "system", "Hello.")
        worker = server.model("system")["place"]["pid"]
        os.kill(worker, signal.SIGSTOP)
        threads.submit(speak, server, "system", "This one holds the place.")
        until(lambda: server.model("system")["leases"])
        waits = threads.submit(speak, server, "system")
        until(lambda: server.model("system")["waiting"])
        seen = len(server.lines)
        save(tmp_path / "models.yaml", f"# A remark.\nserver: {{log_level: debug}}\n{manifest}")
        server.wait_for("the manifest was read", after=seen)
        os.kill(worker, signal.SIGCONT)
        first = waits.result()
        assert speak(server, "system").body == first.body
        server.wait_for("of speech, cached", after=seen)
