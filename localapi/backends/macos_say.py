"""The backend macos-say: the voices of macOS, one child process of `say` per utterance.

The text is not trusted. It is written to the standard input of `say`, because the argument "-f/etc/passwd" would read
that file aloud. Sequences that the speech engines behind `say` interpret as commands are removed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
import wave
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from localapi.backends import say_voices
from localapi.backends.engine import Engine, InProcessEngine, ReportLoading
from localapi.backends.speech import SpeechOptions
from localapi.backends.subprocess_pool import Commands, CommandsStopped, CommandTimeout
from localapi.errors import GenerationFailed, InvalidRequest, LoadFailed, ModelUnavailable
from localapi.system.os_errors import advise
from localapi.text.writing_systems import weight
from localapi.worker.protocol import Event, Loaded, Loading, Request, Sound, Speak, Spoken, Voice

AT_ONCE = 4
SAMPLE_RATE_HZ = 22_050
CHUNKS_PER_SECOND = 2

LISTING_SECONDS = 30
FRESH_SECONDS = 10
"""Maximum age of the list of voices. Creating it takes about a second."""
GRACE_SECONDS = 20
"""Time that `say` may take in addition to the text, for example to read a voice from disk."""
CHARACTERS_PER_SECOND = 20
"""Slowest plausible rate. `say` reaches hundreds; below this rate it hangs, as on some long punctuation."""

USUAL_WPM = 175
"""Default rate of most voices."""
SLOWEST_WPM, FASTEST_WPM = 90, 400
"""Range that voices support. Some ignore lower rates (https://github.com/Marak/say.js/issues/81).

Beyond this range, a filter changes the tempo.
"""


class Listed(NamedTuple):
    """Voices, with the time at which they were listed."""

    voices: list[Voice]
    at: float
    """Time on the monotonic clock."""


_listed: dict[str, Listed] = {}
"""Voices by the path of `say`, shared by all engines. They are listed again because voices may be installed."""


@dataclass
class Listing:
    """Running listing, with the number of tasks that wait for it."""

    task: asyncio.Task[list[Voice]]
    waiting: int = 0


_listings: dict[str, Listing] = {}
"""Running listings by the path of `say`."""


class MacosSay(SpeechOptions):
    """Options of a voice of macOS."""

    backend: Annotated[Literal["macos-say"], Field(description="The voices of macOS.")]
    rate_wpm: Annotated[
        int | None,
        Field(
            ge=SLOWEST_WPM,
            le=FASTEST_WPM,
            description="Words per minute at speed 1, as the voice counts them. Default: the voice's own rate.",
            examples=[160],
        ),
    ] = None
    has_speed = True
    chooses_voices = True

    async def start(self, name: str, report: ReportLoading) -> Engine:
        report(Loading("listing the voices"))
        path, commands = _say(), Commands(AT_ONCE)
        await fresh_voices(path)
        return MacosSayEngine(path, commands, self.rate_wpm)

    def language_of(self, voice: str | None, known: Sequence[Voice]) -> str | None:
        """Return the language of a voice.

        For the system's default voice it is English, because `say` does not report its language.
        """
        return super().language_of(voice, known) if voice is not None else "en"

    def voice_for(self, language: str, like: str | None, known: Sequence[Voice]) -> str | None:
        voice = say_voices.for_language(known, language)
        return None if voice is None else voice.id

    async def known_voices(self) -> list[Voice] | None:
        try:
            return await fresh_voices(_say())
        except LoadFailed:
            return None


def _say() -> str:
    path = shutil.which("say")
    if path is None:
        raise LoadFailed(
            "The backend macos-say needs the command `say` of macOS, which is not on this machine. "
            "Use `backend: espeak-ng`, or `backend: auto` for the system's voice."
        )
    return path


async def fresh_voices(path: str) -> list[Voice]:
    """Return the voices of this `say`, listed at most FRESH_SECONDS ago. Concurrent callers share one listing.

    Raise LoadFailed if they cannot be listed.
    """
    last = _listed.get(path)
    if last is not None and time.monotonic() - last.at <= FRESH_SECONDS:
        return last.voices
    listing = _listings.get(path)
    if listing is None or listing.task.done():
        listing = _listings[path] = Listing(asyncio.create_task(_list(path), name="the voices of say"))
    listing.waiting += 1
    try:
        return await asyncio.shield(listing.task)
    finally:
        listing.waiting -= 1
        if listing.waiting == 0:
            if _listings.get(path) is listing:
                del _listings[path]
            listing.task.cancel()
            await asyncio.gather(listing.task, return_exceptions=True)


async def _list(path: str) -> list[Voice]:
    try:
        result = await Commands(1).run(path, "-v", "?", seconds=LISTING_SECONDS)
    except CommandTimeout:
        raise LoadFailed(f"{path} did not list its voices within {LISTING_SECONDS} seconds.") from None
    except OSError as error:
        raise LoadFailed(f"{path} could not be started: {error.strerror}.") from error
    voices = say_voices.parse(result.output.decode(errors="replace"))
    if result.status != 0:
        raise LoadFailed(f"{path} -v '?' {result.how}")
    if not voices:
        raise LoadFailed(f"{path} -v '?' lists no voices. It is not the command `say` of macOS.")
    _listed[path] = Listed(voices, time.monotonic())
    return voices


class Pace(NamedTuple):
    """Rate of `say` and additional tempo change that together give a speed."""

    rate_wpm: int | None
    """Rate to pass to `say`. None to pass none, because any rate makes `say` abandon a Siri voice set as the system's
    voice."""
    tempo: float
    """Factor by which to speed up the result."""


class MacosSayEngine(InProcessEngine):
    """Engine that makes one utterance per segment, and prepares the next while the previous one is sent."""

    def __init__(self, path: str, commands: Commands, rate_wpm: int | None) -> None:
        """Create the engine for a `say` whose voices were listed."""
        super().__init__()
        self._path = path
        self._commands = commands
        self._rate_wpm = rate_wpm
        self._making: set[asyncio.Task[tuple[bytes, int]]] = set()

    @property
    def loaded(self) -> Loaded:
        return Loaded(voices=_listed[self._path].voices)

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        if not isinstance(request, Speak):
            raise InvalidRequest("This is a speech model: use POST /v1/audio/speech.")
        voice = None if request.voice is None else self._voice(request.voice)
        pace = pace_of(request.speed, self._rate_wpm)
        texts = iter(request.segments)
        ahead = self._make(next(texts, None), voice, pace)
        try:
            for index in range(len(request.segments)):
                assert ahead is not None  # noqa: S101  # there is one for each segment
                pcm, sample_rate_hz = await ahead
                ahead = self._make(next(texts, None), voice, pace)
                step = 2 * (sample_rate_hz // CHUNKS_PER_SECOND)
                for start in range(0, len(pcm), step):
                    yield Sound(request.id, index, pcm[start : start + step], sample_rate_hz)
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
        yield Spoken(request.id)

    async def close(self) -> None:
        self._commands.stop()
        if self._making:
            await asyncio.wait(self._making)

    def _voice(self, name: str) -> str:
        """Return the voice's name as `say` lists it. Raise InvalidRequest for an unknown voice.

        `say` silently uses the system's voice for some unknown names.
        """
        voices = _listed[self._path].voices
        if (voice := say_voices.find(voices, name)) is not None:
            return voice.id
        near = ", ".join(say_voices.near(voices, name))
        raise InvalidRequest(
            f"There is no voice {name!r} on this Mac. {f'Near it: {near}. ' if near else ''}"
            f"It has {len(voices)}: see GET /v1/audio/voices.",
            param="voice",
        )

    def _make(self, text: str | None, voice: str | None, pace: Pace) -> asyncio.Task[tuple[bytes, int]] | None:
        """Start the next utterance, if there is one."""
        if text is None:
            return None
        task = asyncio.create_task(self._utter(harmless(text), voice, pace), name="say")
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        return task

    async def _utter(self, text: str, voice: str | None, pace: Pace) -> tuple[bytes, int]:
        """Return PCM and its rate in Hz; no PCM for a text without words. Raise GenerationFailed, ModelUnavailable."""
        if not text.strip():
            return b"", SAMPLE_RATE_HZ
        try:
            with tempfile.TemporaryDirectory(prefix="localapi-say-", ignore_cleanup_errors=True) as folder:
                return await self._say(text, voice, pace, Path(folder, "speech.wav"))
        except OSError as error:
            raise GenerationFailed(f"say cannot be run: {advise(error)}.") from error
        except CommandsStopped:
            raise ModelUnavailable(
                "The model was unloaded before the response was complete. Send the request again."
            ) from None

    async def _say(self, text: str, voice: str | None, pace: Pace, file: Path) -> tuple[bytes, int]:
        seconds = GRACE_SECONDS + weight(text) / CHARACTERS_PER_SECOND
        command = [self._path, *_arguments(voice, pace.rate_wpm, file)]
        try:
            result = await self._commands.run(*command, text=text.encode(errors="replace"), seconds=seconds)
        except CommandTimeout:
            raise GenerationFailed(
                f"say did not finish a text of {len(text)} characters in {seconds:.0f} seconds and was ended. "
                "Long runs of punctuation can make it hang."
            ) from None
        if result.status != 0:
            raise GenerationFailed(f"say {result.how}")
        return await asyncio.to_thread(_sound, file, pace.tempo)


def _arguments(voice: str | None, rate_wpm: int | None, file: Path) -> list[str]:
    """Return the arguments of `say`, which needs --data-format to write WAVE."""
    return [
        *(() if voice is None else ("-v", voice)),
        *(() if rate_wpm is None else ("-r", str(rate_wpm))),
        *("-o", str(file), "--file-format=WAVE", f"--data-format=LEI16@{SAMPLE_RATE_HZ}", "-f", "-"),
    ]


def _sound(file: Path, tempo: float) -> tuple[bytes, int]:
    """Return the PCM that `say` wrote, and its rate in Hz. Raise GenerationFailed."""
    try:
        with wave.open(str(file)) as sound:
            pcm, sample_rate_hz = sound.readframes(sound.getnframes()), sound.getframerate()
    except FileNotFoundError:
        raise GenerationFailed("say ended successfully but wrote no file.") from None
    except (wave.Error, EOFError) as error:
        raise GenerationFailed(f"The file that say wrote cannot be read: {error or 'it is cut off'}.") from error
    return _stretched(pcm, sample_rate_hz, tempo), sample_rate_hz


def _stretched(pcm: bytes, sample_rate_hz: int, tempo: float) -> bytes:
    if tempo == 1 or not pcm:
        return pcm
    from localapi.audio.tempo import Tempo  # noqa: PLC0415  # costly, and seldom needed

    filters = Tempo(sample_rate_hz, tempo)
    return filters.feed(pcm) + filters.finish()


def pace_of(speed: float, rate_wpm: int | None) -> Pace:
    """Return how to speak at a speed relative to `rate_wpm`, or to the voice's own rate if it is None.

    https://github.com/dharmab/skyeye/issues/611 shows how any rate affects the system's voice.
    """
    if rate_wpm is None and speed == 1:
        return Pace(None, 1)
    wanted = speed * (rate_wpm or USUAL_WPM)
    nearest = min(max(wanted, SLOWEST_WPM), FASTEST_WPM)
    return Pace(round(nearest), wanted / nearest)


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BRACKETS = re.compile(r"(?<=\[)(?=\[)|(?<=\])(?=\])")


def harmless(text: str) -> str:
    """Return the text with all its words, but nothing that a voice could interpret as a command.

    `[[volm 0]]` is a command of `say`: its brackets are removed. ESC starts a command of Nuance's voices, a backquote
    one of Eloquence's. Control characters are removed first, so that none can hide between two brackets.
    """
    return _BRACKETS.sub(" ", _CONTROLS.sub(" ", text).replace("`", "'"))
