"""Speech through mlx-audio-plus and mlx-audio: the real packages, in their own environments, in a real worker."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localapi.environments import Environment
from localapi.worker.protocol import (
    LENGTH,
    Cancel,
    Last,
    Loaded,
    Loading,
    LoadModel,
    LoadRefused,
    Sound,
    Speak,
    Spoken,
    Step,
    ToServer,
    ToWorker,
    decode_to_server,
    frame,
)
from tests.mlx_audio_models import INSTALL_SECONDS, ROOT, model
from tests.worker.llm.test_weights import Hub

pytestmark = pytest.mark.timeout(INSTALL_SECONDS)


def own_notes(loaded: Loaded) -> list[str]:
    """Return the notes that are about the model, not about this machine's BLAS."""
    return [note for note in loaded.notes if not note.startswith("MLX uses")]


class Worker:
    """The server's end of a worker in another environment."""

    def __init__(self, environment: Environment, **variables: str) -> None:
        self.package = environment.name
        self.socket, theirs = socket.socketpair()
        bootstrap = ROOT / "localapi" / "worker" / "bootstrap.py"
        with theirs:
            self.process = subprocess.Popen(
                [environment.interpreter, "-I", "-u", bootstrap, "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
                env={**os.environ, **variables},
            )
        self.reports: list[Loading] = []
        self.stream = self.socket.makefile("rb")

    def send(self, *messages: ToWorker) -> None:
        self.socket.sendall(b"".join(map(frame, messages)))

    def messages(self) -> Iterator[ToServer]:
        while head := self.stream.read(LENGTH.size):
            yield decode_to_server(self.stream.read(LENGTH.unpack(head)[0]))

    def load(self, path: object, **options: Any) -> Loaded:
        self.send(LoadModel("mlx-audio", {"package": self.package, "path": str(path), **options}))
        *self.reports, last = self._until_loaded()
        assert isinstance(last, Loaded), last
        return last

    def refusal(self, path: Path) -> str:
        self.send(LoadModel("mlx-audio", {"package": self.package, "path": str(path)}))
        *self.reports, last = self._until_loaded()
        assert isinstance(last, LoadRefused), last
        return last.message

    def _until_loaded(self) -> Iterator[Any]:
        for message in self.messages():
            yield message
            if not isinstance(message, Loading):
                return

    def events(self) -> Iterator[Any]:
        for message in self.messages():
            assert isinstance(message, Step)
            yield from message.events

    def say(self, *segments: str, **more: Any) -> list[Any]:
        """The events of one request, to the last."""
        self.send(Speak(id=1, segments=list(segments), **more))
        events = []
        for event in self.events():
            events.append(event)
            if isinstance(event, Last):
                break
        return events


@contextmanager
def running(environment: Environment, **variables: str) -> Iterator[Worker]:
    worker = Worker(environment, **variables)
    try:
        yield worker
    finally:
        worker.stream.close()
        worker.socket.close()
        assert worker.process.wait(timeout=30) in {0, 1}


@pytest.fixture(scope="module")
def tone(mlx_audio: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(mlx_audio, tmp_path_factory.mktemp("models") / "tone", "tinytone")


@pytest.fixture(scope="module")
def speaker(mlx_audio: Environment, tone: Path) -> Iterator[Worker]:
    """A worker with tinytone; it is not asked to trim, so it streams."""
    with running(mlx_audio) as worker:
        worker.load(tone)
        yield worker


@pytest.fixture(scope="module")
def copier(mlx_audio: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with tinycopy, which needs ref_audio and cannot stream."""
    with running(mlx_audio) as worker:
        loaded = worker.load(model(mlx_audio, tmp_path_factory.mktemp("models") / "copy", "tinycopy"))
        assert loaded.takes == ["ref_audio", "source_audio"]
        assert own_notes(loaded) == ["tinycopy copies the voice of a recording: ref_audio, or a voice with one"]
        yield worker


def recording(seconds: float, frequency_hz: int = 440, rate: int = 48_000) -> bytes:
    """A WAV file in stereo."""
    sound = 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate)) / rate)
    with io.BytesIO() as file:
        with wave.open(file, "wb") as out:
            out.setnchannels(2)
            out.setsampwidth(2)
            out.setframerate(rate)
            out.writeframes(np.repeat((sound * 32767).astype("<i2"), 2).tobytes())
        return file.getvalue()


def sounds(events: list[Any]) -> list[Sound]:
    return [event for event in events if isinstance(event, Sound)]


def samples(events: list[Any], segment: int | None = None) -> np.ndarray[Any, Any]:
    taken = [event.pcm for event in sounds(events) if segment in {None, event.segment}]
    return np.frombuffer(b"".join(taken), "<i2")


def pitch(sound: np.ndarray[Any, Any], rate: int = 24_000) -> float:
    spectrum = np.abs(np.fft.rfft(sound))
    return float(np.argmax(spectrum) * rate / len(sound))


def test_segments_are_said_in_order_and_each_while_it_is_made(speaker: Worker) -> None:
    events = speaker.say("ten chars!", "twenty characters..!")
    assert [event.segment for event in sounds(events)] == [0] * 3 + [1] * 5
    assert {event.sample_rate_hz for event in sounds(events)} == {24_000}
    assert (len(samples(events, 0)), len(samples(events, 1))) == (14_400, 28_800)
    assert events[-1] == Spoken(1)
    assert pitch(samples(events, 1)) == pytest.approx(200, abs=3)


def test_what_is_too_loud_is_cut_off_and_not_wrapped(speaker: Worker) -> None:
    assert np.abs(np.diff(samples(speaker.say("loud")).astype(int))).max() < 10_000


def test_a_voice_and_a_recording_reach_the_model_at_its_rate(speaker: Worker) -> None:
    assert pitch(samples(speaker.say("ten chars!", voice="b"))) == pytest.approx(300, abs=3)
    events = speaker.say("ten chars!", options={"ref_audio": recording(1.0)})
    assert pitch(samples(events)) == pytest.approx(1240, abs=3)


def test_instructions_are_called_what_the_model_calls_them(speaker: Worker) -> None:
    events = speaker.say("ten chars!", options={"instruct_text": "softly"})
    assert pitch(samples(events)) == pytest.approx(400, abs=3)


def test_what_the_model_names_and_does_not_read_is_refused(speaker: Worker) -> None:
    [failed] = speaker.say("ten chars!", options={"ref_text": "hello"})
    assert (failed.kind, failed.param) == ("invalid_request", "ref_text")
    assert "(tinytone) does not support 'ref_text'" in failed.message


def test_or_named_where_the_entry_says_to_warn(speaker: Worker) -> None:
    options = {"ref_text": "hello", "source_audio": b"", "unsupported": "warn"}
    *_, last = speaker.say("ten chars!", options=options)
    assert sorted(last.notes) == [
        "ref_text has no effect on this model (tinytone)",
        "source_audio has no effect on this model (tinytone)",
    ]


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (b"no audio", "not an audio file of a known kind"),
        (b"", "not an audio file of a known kind"),
        (recording(121), "longer than 120"),
    ],
)
def test_a_recording_that_cannot_be_used_is_refused(speaker: Worker, audio: bytes, words: str) -> None:
    [failed] = speaker.say("hi", options={"ref_audio": audio})
    assert (failed.kind, failed.param) == ("invalid_request", "ref_audio")
    assert words in failed.message


def test_an_unknown_voice_is_the_requests_fault_and_a_crash_is_the_models(speaker: Worker) -> None:
    [unknown] = speaker.say("hi", voice="nobody")
    assert (unknown.kind, unknown.param) == ("invalid_request", "voice")
    *_, crash = speaker.say("one", "explode")
    assert (crash.kind, crash.message) == ("generation_failed", "Speech synthesis failed: boom.")
    assert isinstance(speaker.say("and it goes on")[-1], Spoken)


def test_requests_take_turns_segment_by_segment(speaker: Worker) -> None:
    speaker.send(*(Speak(id=id, segments=["aaaa", "bbbb"]) for id in (1, 2)))  # noqa: A001
    said = []
    for event in speaker.events():
        said += [(event.id, event.segment)] if isinstance(event, Sound) else []
        if isinstance(event, Spoken) and event.id == 2:
            break
    assert said == [(1, 0), (2, 0), (1, 1), (2, 1)]


def test_a_cancelled_request_is_heard_no_more(speaker: Worker) -> None:
    speaker.send(Speak(id=1, segments=["long " * 200] * 50), Speak(id=2, segments=["short"] * 3))
    events = speaker.events()
    next(event for event in events if event.id == 1)
    speaker.send(Cancel(1))
    until_2_is_said = list(iter(lambda: next(events), Spoken(2)))
    assert len([event for event in until_2_is_said if event.id == 1]) < 49 * 240
    assert [event.id for event in speaker.say("next")] == [1, 1]


def test_a_model_that_copies_says_that_it_needs_a_recording(copier: Worker) -> None:
    [failed] = copier.say("hi")
    assert (failed.kind, failed.param) == ("invalid_request", "ref_audio")
    assert "Send one as 'ref_audio'" in failed.message


def test_a_stream_that_is_refused_and_two_channels_are_no_trouble(copier: Worker) -> None:
    events = copier.say("hi", options={"ref_audio": recording(0.5)})
    [sound] = sounds(events)
    assert (sound.sample_rate_hz, len(samples(events))) == (16_000, 8_000)
    assert pitch(samples(events), 16_000) == pytest.approx(440, abs=3)
    assert events[-1] == Spoken(1)


def test_a_voice_that_the_model_does_not_look_at_is_refused_or_named(copier: Worker) -> None:
    options = {"ref_audio": recording(0.5)}
    [failed] = copier.say("hi", voice="af_heart", options=options)
    assert (failed.kind, failed.param) == ("invalid_request", "voice")
    *_, last = copier.say("hi", voice="af_heart", options={**options, "unsupported": "warn"})
    assert last.notes == ["voice has no effect on this model (tinycopy)"]


def test_a_recording_is_converted_once_and_not_for_each_sentence(copier: Worker) -> None:
    options = {"ref_audio": recording(0.5), "source_audio": recording(1.0, 880)}
    events = copier.say("One.", "Two.", "Three.", options=options)
    assert pitch(samples(events), 16_000) == pytest.approx(880, abs=3)
    assert len(samples(events)) == 16_000
    assert events[-1].notes == ["source_audio is converted; the text is not spoken"]


def test_a_first_phrase_said_twice_is_cut_where_the_entry_says_so(mlx_audio: Environment, tmp_path: Path) -> None:
    twice = model(mlx_audio, tmp_path / "twice", "tinytone", twice=True)
    (twice / "voices").mkdir()
    for name in ("b.safetensors", "a.safetensors", "README.md"):
        shutil.copy(twice / "model.safetensors", twice / "voices" / name)
    with running(mlx_audio) as worker:
        loaded = worker.load(twice, trim_repeated_prefix=True, lang_code="x", temperature=0.5)
        assert [voice.id for voice in loaded.voices or ()] == ["a", "b"]
        assert loaded.takes == ["instruct_text", "ref_audio"]  # and not ref_text, which it names and does not read
        assert own_notes(loaded) == ["lang_code has no effect on tinytone", "temperature has no effect on tinytone"]
        events = worker.say("ten chars!", "ten chars!")
    assert [event.segment for event in sounds(events)].count(0) == 1
    assert (len(samples(events, 0)), len(samples(events, 1))) == (24_000 + 14_400, 2 * 24_000 + 14_400)


def empty(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10" + bytes(40))


def no_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def break_imports(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "tinybroken"}')


def rename_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "tinynothing"}')


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (empty, "has no weights (*.safetensors); found: config.json"),
        (damage, "model.safetensors is damaged"),
        (no_config, "config.json must contain a JSON object"),
        (break_imports, "No module named 'no_such_package_of_localapis_tests'"),
        (rename_kind, "has model_type 'tinynothing', which mlx-audio"),
    ],
)
def test_what_does_not_load_says_why(
    mlx_audio: Environment, tone: Path, tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "harmed"
    shutil.copytree(tone, folder)
    harm(folder)
    with running(mlx_audio) as worker:
        assert words in worker.refusal(folder)


@pytest.fixture
def endpoint(tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub on this machine that has the repository me/tiny: a model, with code and a pickle beside it."""
    folder = tmp_path / "tiny"
    shutil.copytree(tone, folder)
    for name in ("model.py", "voice.pt", "weights.pth"):
        (folder / name).write_text("raise SystemExit")
    monkeypatch.setattr(Hub, "folder", folder, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_repository_is_downloaded_without_code_and_pickles(
    mlx_audio: Environment, endpoint: str, tmp_path: Path
) -> None:
    home = tmp_path / "huggingface"
    with running(mlx_audio, HF_ENDPOINT=endpoint, HF_HOME=str(home)) as worker:
        worker.load("me/tiny")
        assert isinstance(worker.say("hi")[-1], Spoken)
    told = [report for report in worker.reports if report.phase.startswith("downloading me/tiny")]
    assert told[-1].done > 0 or told[-1].phase == "downloading me/tiny: 2 of 2 files"
    assert sorted(each.name for each in home.glob("hub/models--me--tiny/snapshots/*/*")) == [
        "config.json",
        "model.safetensors",
    ]


COSYVOICE = """
import runpy, sys, inspect; from pathlib import Path
package = Path(sys.argv[1])
runpy.run_path(str(package / "worker" / "bootstrap.py"))["show_package"](package)
from localapi.worker.tts import generate_arguments, speech_model
from localapi.worker.protocol import Speak
speech_model.leave_out_converter()
import mlx_audio.tts.models.cosyvoice2 as two, mlx_audio.tts.models.cosyvoice3 as three
for name, architecture in (("cosyvoice2", two), ("cosyvoice3", three)):
    arguments = generate_arguments.Arguments(architecture.Model.generate, name, 24000)
    asked = arguments.of(Speak(id=1, segments=["hi"], voice="alloy", options={
        "ref_audio": Path(sys.argv[2]).read_bytes(), "ref_text": "hello", "instruct_text": "softly",
        "unsupported": "warn"}))
    print(name, arguments.needs_reference, arguments.takes("stream"), sorted(asked.arguments), asked.notes)
    print(asked.arguments.get("stt_model", "absent"))
"""


def test_cosyvoice_is_asked_for_one_thing_and_downloads_nothing_to_listen_with(
    installed: Callable[[str], Environment], tmp_path: Path
) -> None:
    """Its weights are too large for a test; its own code says what it reads."""
    (tmp_path / "voice.wav").write_bytes(recording(0.5))
    environment = installed("mlx-audio-plus")
    done = subprocess.run(
        [environment.interpreter, "-I", "-c", COSYVOICE, ROOT / "localapi", tmp_path / "voice.wav"],
        check=True,
        capture_output=True,
        text=True,
    )
    notes = {
        name: [f"voice has no effect on this model ({name})", "ref_text has no effect beside instruct_text"]
        for name in ("cosyvoice2", "cosyvoice3")
    }
    assert done.stdout.splitlines() == [
        f"cosyvoice2 True False ['instruct_text', 'ref_audio', 'verbose'] {notes['cosyvoice2']}",
        "absent",
        f"cosyvoice3 True False ['instruct_text', 'ref_audio', 'stt_model', 'verbose'] {notes['cosyvoice3']}",
        "None",
    ]
