"""macos-say with a faithful fake of `say`, run as the real child process that it is on a Mac."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import stat
import tempfile
import unicodedata
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localapi.backends import macos_say
from localapi.backends.engine import Engine
from localapi.backends.macos_say import MacosSay, harmless
from localapi.errors import GenerationFailed, InvalidRequest, LoadFailed, ModelUnavailable
from localapi.worker.protocol import Chat, Event, Sound, Speak, Spoken
from tests.conftest import Children, Draws

FAKEBIN = Path(__file__).parent.parent / "fakebin"
PATIENCE_SECONDS = 60
"""For a machine that is busy with other things; nothing is measured against it."""
WORD_SECONDS = 60 / 175


@dataclass
class Fake:
    """The fake `say`, as a test sees it."""

    monkeypatch: pytest.MonkeyPatch
    folder: Path
    temporary: Path

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.monkeypatch.setenv(f"FAKE_SAY_{name}", value)

    def close_gate(self) -> None:
        self.set(GATE=str(self.folder / "gate"))

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def lines(self, event: str) -> list[dict[str, Any]]:
        log = self.folder / "log"
        text = log.read_text().rpartition("\n")[0] if log.exists() else ""
        return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]

    def texts(self) -> list[str]:
        return [line["text"] for line in self.lines("begin")]


@pytest.fixture
def fake(children: Children, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    """The fake first in PATH. No child and no file may be left of a test."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("PATH", f"{FAKEBIN}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(macos_say, "_listed", {})
    fake = Fake(monkeypatch, tmp_path, temporary)
    fake.set(LOG=str(tmp_path / "log"))
    yield fake
    assert children() == set()
    assert not temporary.exists() or list(temporary.iterdir()) == []


async def started(**options: Any) -> Engine:
    return await MacosSay(backend="macos-say", **options).start("mac", lambda _: None)


@pytest.fixture
async def engine(fake: Fake) -> AsyncIterator[Engine]:
    engine = await started()
    yield engine
    await engine.close()


def speak(*segments: str, **fields: Any) -> Speak:
    return Speak(id=7, segments=list(segments), **fields)


async def events(engine: Engine, request: Speak) -> list[Event]:
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(engine.answer(request)) as answer:
        return [event async for event in answer]


async def said_seconds(engine: Engine, *segments: str, **fields: Any) -> float:
    sounds = [event for event in await events(engine, speak(*segments, **fields)) if isinstance(event, Sound)]
    assert {sound.sample_rate_hz for sound in sounds} <= {22_050}
    return sum(len(sound.pcm) for sound in sounds) / 2 / 22_050


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a child process does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.005)


async def first_sound(answer: AsyncGenerator[Event, None]) -> Sound:
    event = await anext(answer)
    assert isinstance(event, Sound)
    return event


# Voices


async def test_the_voices_are_those_that_say_can_be_asked_for(engine: Engine) -> None:
    assert engine.loaded.voices is not None
    voices = {voice.id: voice.language for voice in engine.loaded.voices}
    assert voices == {
        "Albert": "en-US",
        "Alva (Premium)": "sv-SE",
        "Amélie": "fr-CA",
        "Bad News": "en-US",
        "Daniel": "en-GB",
        "Eddy (English (UK))": "en-GB",
        "Eddy (Chinese (China mainland))": "zh-CN",
        "Aman (English (India))": "en-IN",
        "Dongmei (Enhanced)": "zh-CN",
        "Fiona": "en-scotland",
        "Majed": "ar-001",
        "Samantha": "en-US",
    }
    assert len(engine.loaded.voices) == len(voices)


async def test_voices_are_known_without_loading_and_asked_for_again_when_the_list_is_old(fake: Fake) -> None:
    options = MacosSay(backend="macos-say")
    assert len(await options.known_voices() or []) == 12
    (fake.folder / "voices").write_text("Zoe (Premium) en_US # Hello! My name is Zoe.\n")
    fake.set(VOICES=str(fake.folder / "voices"))
    assert len(await options.known_voices() or []) == 12
    fake.monkeypatch.setattr(macos_say, "FRESH_SECONDS", -1)
    engine = await started()
    fake.monkeypatch.setattr(macos_say, "FRESH_SECONDS", 600)
    assert [voice.id for voice in await options.known_voices() or []] == ["Zoe (Premium)"]
    await engine.close()


async def test_where_there_is_no_say_the_error_tells_what_to_use(fake: Fake) -> None:
    fake.monkeypatch.setenv("PATH", str(fake.folder))
    with pytest.raises(LoadFailed, match=r"not on this machine.*espeak-ng.*auto"):
        await started()
    assert await MacosSay(backend="macos-say").known_voices() is None


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("#!/bin/sh\necho hello\n", "is not the command `say` of macOS"),
        ("#!/bin/sh\necho no daemon >&2; exit 3\n", "ended with exit status 3: no daemon"),
        ("#!/nowhere/interpreter\n", "could not be started"),
        ("#!/bin/sh\nexec sleep 1000\n", "did not list its voices within 0.2 seconds"),
    ],
)
async def test_a_say_that_lists_no_voices_is_not_loaded(fake: Fake, script: str, why: str) -> None:
    other = fake.folder / "bin" / "say"
    other.parent.mkdir()
    other.write_text(script)
    other.chmod(0o755)
    fake.monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    fake.monkeypatch.setattr(macos_say, "LISTING_SECONDS", 0.2 if "sleep" in script else 30)
    with pytest.raises(LoadFailed, match=why):
        await started()


@pytest.mark.parametrize("name", ["Amélie", "amélie", unicodedata.normalize("NFD", "AMÉLIE")])
async def test_a_voice_is_found_as_say_finds_it(engine: Engine, fake: Fake, name: str) -> None:
    await events(engine, speak("Bonjour.", voice=name))
    (line,) = fake.lines("begin")
    assert line["argv"][:2] == ["-v", "Amélie"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Samanta", "Near it: Samantha."),
        ("eddy", r"Near it: Eddy \(English \(UK\)\), Eddy \(Chinese \(China mainland\)\)\."),
        ("com.apple.voice.compact.en-US.Samantha", "It has 12"),
        ("-f/etc/passwd", "It has 12"),
        ("?", "It has 12"),
        ("", "It has 12"),
    ],
)
async def test_an_unknown_voice_is_refused_before_say_could_speak_in_another(
    engine: Engine, fake: Fake, name: str, near: str
) -> None:
    fake.set(UNKNOWN="default")
    with pytest.raises(InvalidRequest, match=near) as raised:
        await events(engine, speak("Hello.", voice=name))
    assert raised.value.param == "voice"
    assert fake.texts() == []


async def test_a_voice_that_was_installed_meanwhile_is_found_once_voices_are_listed(engine: Engine, fake: Fake) -> None:
    (fake.folder / "voices").write_text("Zoe (Premium) en_US # Hello! My name is Zoe.\n")
    fake.set(VOICES=str(fake.folder / "voices"))
    with pytest.raises(InvalidRequest):
        await events(engine, speak("Hello.", voice="Zoe (Premium)"))
    fake.monkeypatch.setattr(macos_say, "FRESH_SECONDS", -1)
    await MacosSay(backend="macos-say").known_voices()
    assert isinstance((await events(engine, speak("Hello.", voice="Zoe (Premium)")))[-1], Spoken)
    assert [voice.id for voice in engine.loaded.voices or []] == ["Zoe (Premium)"]


async def test_voices_are_listed_once_for_all_who_wait_for_them(fake: Fake) -> None:
    fake.set(LIST_GATE=str(fake.folder / "gate"))
    cold = [asyncio.create_task(MacosSay(backend="macos-say").known_voices()) for _ in range(20)]
    starting = asyncio.create_task(started())
    await until(lambda: len(fake.lines("list")) == 1)
    cold[0].cancel()  # who leaves takes the list from nobody
    fake.open_gate()
    lists = await asyncio.gather(*cold[1:])
    await (await starting).close()
    assert [len(voices or ()) for voices in lists] == [12] * 19
    assert len(fake.lines("list")) == 1


async def test_nothing_is_left_of_a_list_for_which_nobody_waits_any_more(fake: Fake, children: Children) -> None:
    fake.set(LIST_GATE=str(fake.folder / "gate"))
    waiting = [asyncio.create_task(MacosSay(backend="macos-say").known_voices()) for _ in range(3)]
    await until(lambda: len(fake.lines("list")) == 1)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert children() == set()
    fake.open_gate()
    assert len(await MacosSay(backend="macos-say").known_voices() or ()) == 12


# What is said


async def test_each_segment_is_said_by_a_say_of_its_own(engine: Engine, fake: Fake) -> None:
    said = await events(engine, speak("One two three.", "Four five.", voice="Daniel"))
    assert isinstance(said[-1], Spoken)
    sounds = [event for event in said if isinstance(event, Sound)]
    assert {sound.id for sound in sounds} == {7}
    for index, words in enumerate((3, 2)):
        pcm = b"".join(sound.pcm for sound in sounds if sound.segment == index)
        assert len(pcm) / 2 / 22_050 == pytest.approx(words * WORD_SECONDS, rel=0.001)
        assert max(array("h", pcm)) > 10_000
    assert [sound.segment for sound in sounds] == sorted(sound.segment for sound in sounds)
    assert fake.texts() == ["One two three.", "Four five."]
    voice, out, *rest = (fake.lines("begin")[0]["argv"][i : i + 2] for i in (0, 2, 4, 6))
    assert (voice, out[0]) == (["-v", "Daniel"], "-o")
    assert rest == [["--file-format=WAVE", "--data-format=LEI16@22050"], ["-f", "-"]]


async def test_neither_voice_nor_rate_is_named_unless_the_request_does(engine: Engine, fake: Fake) -> None:
    await events(engine, speak("Hello."))
    assert not {"-v", "-r"} & set(fake.lines("begin")[0]["argv"])


@pytest.mark.parametrize(
    ("speed", "rate"), [(0.25, 90), (0.5, 90), (0.75, 131), (1.5, 262), (2.0, 350), (3.0, 400), (4.0, 400)]
)
async def test_speed_is_a_rate_and_beyond_what_voices_do_a_filter(
    engine: Engine, fake: Fake, speed: float, rate: int
) -> None:
    seconds = await said_seconds(engine, "one two three four five six", speed=speed)
    assert fake.lines("begin")[0]["argv"][:2] == ["-r", str(rate)]
    assert seconds == pytest.approx(6 * WORD_SECONDS / speed, rel=0.01)


async def test_an_entry_can_have_its_own_rate(fake: Fake) -> None:
    engine = await started(rate_wpm=240)
    assert await said_seconds(engine, "one two three four") == pytest.approx(1.0, rel=0.001)
    assert await said_seconds(engine, "one two three four", speed=0.5) == pytest.approx(2.0, rel=0.001)
    assert [line["argv"][:2] for line in fake.lines("begin")] == [["-r", "240"], ["-r", "120"]]
    await engine.close()


async def test_segments_without_a_word_give_no_sound(engine: Engine, fake: Fake) -> None:
    said = await events(engine, speak(" \n\x00\t", "Hello.", "[[slnc 9]]", ""))
    assert {event.segment for event in said if isinstance(event, Sound)} == {1, 2}
    assert fake.texts() == ["Hello.", "[ [slnc 9] ]"]
    assert [type(event) for event in await events(engine, speak())] == [Spoken]


async def test_a_conversation_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="POST /v1/audio/speech"):
        await anext(engine.answer(Chat(id=1, messages=[])))


# What a text cannot do

DANGEROUS = {
    "-f/etc/passwd": "-f/etc/passwd",
    "--voice=Daniel": "--voice=Daniel",
    "-o /tmp/stolen.wav": "-o /tmp/stolen.wav",
    "$(touch stolen); `touch stolen`": "$(touch stolen); 'touch stolen'",
    "[[volm 0]] quiet": "[ [volm 0] ] quiet",
    "[[[rate 9]]] slow": "[ [ [rate 9] ] ] slow",
    "[\x00[slnc 99999999]\x00]": "[ [slnc 99999999] ]",
    "[\x1b[dlim << >>]]": "[ [dlim << >>] ]",
    "\x1b\\vol=0\\ quiet": " \\vol=0\\ quiet",
    "`vv0 quiet": "'vv0 quiet",
    "<speak><audio src='/etc/passwd'/></speak>": "<speak><audio src='/etc/passwd'/></speak>",
    "half \ud83d a pair": "half ? a pair",
}


@pytest.mark.parametrize("text", DANGEROUS)
async def test_no_text_is_an_option_or_a_command(engine: Engine, fake: Fake, text: str) -> None:
    assert await said_seconds(engine, text) > 0
    (line,) = fake.lines("begin")
    assert (line["text"], line["commands"]) == (DANGEROUS[text], [])
    assert line["argv"][0] == "-o"
    assert len(line["argv"]) == 6
    assert Path(line["argv"][1]).is_relative_to(fake.temporary)


@settings(deadline=None)
@given(st.text(st.sampled_from("[]\x00\x1b`a b\n")) | st.text())
def test_brackets_never_stand_together_and_no_word_is_lost(text: str) -> None:
    spoken = harmless(text)
    assert not any(mark in spoken for mark in ("[[", "]]", "\x1b", "\x00", "`"))
    kept = [character for character in text if character.isalnum() or character in "[]"]
    assert [character for character in spoken if character.isalnum() or character in "[]"] == kept


async def test_random_texts_are_said_or_say_nothing(engine: Engine, fake: Fake, draws: Draws) -> None:
    dice = random.Random(20)
    pieces = ["[[", "]]", "volm 0", "-f", "/etc/passwd", "--", "\x00", "\x1b", "`", "<break/>", " ", "\n", "\u202e"]
    pieces += ["word", "你好", "مرحبا", "👋🏽", "...", "!?" * 40, "\ud800", "\u2028", "%s", "$HOME", "'", '"', "\\"]
    texts = ["".join(dice.choices(pieces, k=dice.randint(0, 30))) for _ in range(draws(20))]
    said = await asyncio.gather(*(events(engine, speak(text)) for text in texts))
    assert all(isinstance(each[-1], Spoken) for each in said)
    assert [len(each) > 1 for each in said] == [bool(harmless(text).strip()) for text in texts]
    assert all(line["commands"] == [] and len(line["argv"]) == 6 for line in fake.lines("begin"))


# Several at once


async def test_one_segment_is_made_ahead_and_no_more(engine: Engine, fake: Fake) -> None:
    async with aclosing(engine.answer(speak("One.", "Two.", "Three.", "Four."))) as answer:
        assert (await first_sound(answer)).segment == 0
        await until(lambda: len(fake.lines("end")) == 2)
        assert fake.texts() == ["One.", "Two."]
        assert (await first_sound(answer)).segment == 1
        await until(lambda: len(fake.lines("end")) == 3)
        assert fake.texts() == ["One.", "Two.", "Three."]


async def test_four_say_at_once_and_the_others_wait(engine: Engine, fake: Fake, children: Children) -> None:
    fake.close_gate()
    async with asyncio.TaskGroup() as tasks:
        all_said = [tasks.create_task(events(engine, speak("One.", "Two."))) for _ in range(9)]
        await until(lambda: len(fake.lines("begin")) == 4)
        assert len(children()) == 4
        fake.open_gate()
    assert all(isinstance(task.result()[-1], Spoken) for task in all_said)
    lines = (json.loads(line)["event"] for line in (fake.folder / "log").read_text().splitlines())
    running = most = 0
    for event in lines:
        running += {"begin": 1, "end": -1}.get(event, 0)
        most = max(most, running)
    assert (running, most) == (0, 4)


async def test_a_short_request_does_not_wait_for_all_of_a_long_one(fake: Fake) -> None:
    fake.monkeypatch.setattr(macos_say, "AT_ONCE", 1)
    engine = await started()
    fake.close_gate()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(events(engine, speak(*(f"Long {i}." for i in range(5)))))
        await until(lambda: fake.texts() == ["Long 0."])
        tasks.create_task(events(engine, speak("Short.")))
        await asyncio.sleep(0)
        fake.open_gate()
    assert fake.texts().index("Short.") == 1
    await engine.close()


# Ends before the end


async def test_a_client_that_leaves_ends_say_at_once(engine: Engine, fake: Fake) -> None:
    answer = engine.answer(speak("One.", "Two.", "Three."))
    await first_sound(answer)
    await until(lambda: len(fake.lines("end")) == 2)
    fake.close_gate()
    await first_sound(answer)
    await until(lambda: len(fake.lines("begin")) == 3)
    pid = fake.lines("begin")[-1]["pid"]
    await answer.aclose()
    assert not psutil.pid_exists(pid)
    assert len(fake.lines("end")) == 2


async def test_a_cancelled_request_ends_say_at_once(engine: Engine, fake: Fake, children: Children) -> None:
    fake.close_gate()
    tasks = [asyncio.create_task(events(engine, speak("One.", "Two."))) for _ in range(6)]
    await until(lambda: len(fake.lines("begin")) == 4)
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))
    assert children() == set()
    assert list(fake.temporary.iterdir()) == []
    fake.open_gate()
    assert await said_seconds(engine, "Next.") > 0


async def test_what_say_has_started_ends_with_it(fake: Fake) -> None:
    script = fake.folder / "bin" / "say"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n{FAKEBIN / "say"} "$@"\nexit $?\n')
    script.chmod(0o755)
    fake.monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    engine = await started()
    fake.close_gate()
    task = asyncio.create_task(events(engine, speak("One.")))
    await until(lambda: len(fake.lines("begin")) == 1)
    inner = psutil.Process(fake.lines("begin")[0]["pid"])
    task.cancel()
    await asyncio.wait([task])
    psutil.wait_procs([inner], timeout=PATIENCE_SECONDS)
    assert not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE
    await engine.close()


async def test_say_is_in_its_own_group_and_writes_where_nobody_else_reads(engine: Engine, fake: Fake) -> None:
    fake.close_gate()
    task = asyncio.create_task(events(engine, speak("One.")))
    await until(lambda: len(fake.lines("begin")) == 1)
    pid = fake.lines("begin")[0]["pid"]
    assert os.getpgid(pid) == pid
    (folder,) = fake.temporary.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    fake.open_gate()
    await task


async def test_unloading_ends_what_runs_and_what_waits(engine: Engine, fake: Fake, children: Children) -> None:
    heard = engine.answer(speak("One.", "Two.", "Three."))
    await first_sound(heard)
    await until(lambda: len(fake.lines("end")) == 2)
    fake.close_gate()
    tasks = [asyncio.create_task(events(engine, speak("One."))) for _ in range(6)]
    await until(lambda: len(fake.lines("begin")) == 6)
    await engine.close()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, ModelUnavailable) for end in ends), ends
    assert children() == set()
    await first_sound(heard)
    with pytest.raises(ModelUnavailable, match="unloaded"):
        await first_sound(heard)
    with pytest.raises(ModelUnavailable, match="unloaded"):
        await events(engine, speak("One."))


# What goes wrong


async def test_a_say_that_hangs_is_ended(engine: Engine, fake: Fake) -> None:
    fake.set(HANG_ON="!!!!")
    fake.monkeypatch.setattr(macos_say, "GRACE_SECONDS", 0.3)
    with pytest.raises(GenerationFailed, match="50 characters in 3 seconds"):
        await events(engine, speak("!" * 50))
    assert fake.lines("end") == []


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ({"FAIL": "1"}, "ended with exit status 1: say: synthesis failed"),
        ({"FAIL": "1", "STDERR": "warning\nNo space left on device\n"}, "ended with exit status 1: No space left on d"),
        ({"FAIL": "9", "STDERR": ""}, "ended with exit status 9$"),
        ({"FAIL": "1", "STDERR": "x" * 100_000}, "ended with exit status 1: x{300}$"),
        ({"WRITES": "garbage"}, "cannot be read"),
        ({"WRITES": "empty"}, "cannot be read"),
        ({"WRITES": "nothing"}, "wrote no file"),
    ],
)
async def test_a_say_that_fails_is_told_and_the_next_request_is_answered(
    engine: Engine, fake: Fake, trouble: dict[str, str], why: str
) -> None:
    fake.set(**trouble)
    with pytest.raises(GenerationFailed, match=why):
        await events(engine, speak("One.", "Two."))
    for name in trouble:
        fake.monkeypatch.delenv(f"FAKE_SAY_{name}")
    assert await said_seconds(engine, "Three.") > 0


async def test_a_say_that_is_killed_is_told(engine: Engine, fake: Fake) -> None:
    fake.close_gate()
    task = asyncio.create_task(events(engine, speak("One.")))
    await until(lambda: len(fake.lines("begin")) == 1)
    os.kill(fake.lines("begin")[0]["pid"], signal.SIGKILL)
    with pytest.raises(GenerationFailed, match="was killed by SIGKILL"):
        await task


async def test_a_voice_that_is_gone_is_told(engine: Engine, fake: Fake) -> None:
    (fake.folder / "voices").write_text("Zoe en_US # Hello!\n")
    fake.set(VOICES=str(fake.folder / "voices"))
    with pytest.raises(GenerationFailed, match="Voice `Daniel' not found"):
        await events(engine, speak("One.", voice="Daniel"))


async def test_no_place_for_a_file_is_told(engine: Engine, fake: Fake) -> None:
    fake.temporary.rmdir()
    with pytest.raises(GenerationFailed, match="No such file or directory"):
        await events(engine, speak("One."))


async def test_a_say_that_vanished_is_told(engine: Engine, fake: Fake) -> None:
    fake.monkeypatch.setattr(engine, "_path", str(fake.folder / "say"))
    with pytest.raises(GenerationFailed, match="say cannot be run: No such file or directory"):
        await events(engine, speak("One."))
