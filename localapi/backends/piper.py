"""The backend piper: small, fast voices; each is one .onnx file with its description beside it."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.model_path import placed, shown_place
from localapi.backends.options import FolderOf, Identity, PathProblem
from localapi.backends.speech import SpeechOptions, named
from localapi.backends.variables import WithVariables
from localapi.backends.worker_engine import WorkerSetup, start_worker
from localapi.errors import FilesUnreadable, listed, shown
from localapi.system.os_errors import advise
from localapi.system.threads import aside
from localapi.worker.protocol import PHONEMES, Voice

MOST_SHOWN = 24
"""Maximum speakers that an error lists; a voice may have hundreds."""


class _Audio(BaseModel):
    sample_rate: Annotated[int, Field(ge=1_000, le=384_000)]


class _Espeak(BaseModel):
    voice: str


class _Language(BaseModel):
    code: str = ""


class _Description(BaseModel):
    """Required fields of a voice's .onnx.json."""

    audio: _Audio
    espeak: _Espeak
    num_symbols: int
    num_speakers: int
    phoneme_id_map: dict[str, list[int]]
    phoneme_type: Literal["espeak", "text", "pinyin", "hebrew", "japanese", "thai"] = "espeak"
    speaker_id_map: dict[str, int] = {}
    language: _Language = _Language()


@dataclass(frozen=True)
class _Found:
    """Files of a voice when the manifest was read."""

    speakers: dict[str, int]
    """Speaker ids by name, or by number if they have no names; one entry for a voice with a single speaker."""
    count: int
    language: str
    reads_phonemes: bool
    """True if the voice was trained on IPA phonemes."""
    stamp: tuple[int, ...]
    """Sizes and times of both files; if they differ, the voice has changed."""

    def has(self, speaker: str | int) -> bool:
        """Return whether a speaker with this name or number exists."""
        if named(self.speakers, str(speaker)) is not None:
            return True
        return str(speaker) in map(str, range(max(self.count, 1)))


class Piper(WithVariables, SpeechOptions):
    """Options of a Piper voice."""

    backend: Annotated[Literal["piper"], Field(description="Small, fast voices, one .onnx file each.")]
    worker_bytes = 90 * 1024 * 1024
    path: Annotated[
        str, Field(min_length=1, description="A voice (.onnx), or a folder with one.", examples=["./voices/amy.onnx"])
    ]
    speaker: Annotated[
        str | int | None,
        Field(
            description="Default speaker of a voice with several speakers: name or number.",
            examples=["anna"],
        ),
    ] = None
    noise_scale: Annotated[
        float | None,
        Field(ge=0, le=2, description="Variation of the sound. Default: the voice's own value.", examples=[0.5]),
    ] = None
    noise_w_scale: Annotated[
        float | None,
        Field(ge=0, le=2, description="Variation of the rhythm. Default: the voice's own value.", examples=[0.6]),
    ] = None
    volume: Annotated[
        float,
        Field(
            gt=0,
            le=10,
            description="Volume relative to the voice's own; loud sentences are limited, not clipped.",
            examples=[0.8],
        ),
    ] = 1.0
    has_speed = True
    gives_times = True
    _found: _Found | None = PrivateAttr(default=None)

    def located(self, folder_of: FolderOf) -> Self:
        path = _model(self.path, folder_of("path"))
        found = _read(path)
        if self.speaker is not None and not found.has(self.speaker):
            near = difflib.get_close_matches(str(self.speaker), found.speakers, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            names = f"speakers: {listed([*found.speakers], MOST_SHOWN)}; or a number below {found.count}"
            raise PathProblem("speaker", f"{path.name} has no speaker {shown(self.speaker)}{hint} ({names})")
        located = self.model_copy(
            update={**self.located_settings(folder_of), **self.located_variables(folder_of), "path": str(path)}
        )
        located._found = found
        return located

    def identity(self) -> Identity:
        identity = super().identity()
        stamp = {} if self._found is None else {"stamp": self._found.stamp}
        return Identity(identity.backend, {**identity.options, **stamp})

    def files(self) -> tuple[Path, ...]:
        return (*super().files(), Path(self.path), _description(Path(self.path)))

    def weight_files(self) -> tuple[Path, ...]:
        return (Path(self.path),)

    @property
    def phoneme_marks(self) -> tuple[str, str] | None:
        return PHONEMES if self._found is not None and self._found.reads_phonemes else None

    async def known_voices(self) -> list[Voice] | None:
        """Return the speakers by name, and those by number to which the entry maps."""
        if self._found is None:
            return None
        mapped = [voice.voice for voice in self.voices.values() if voice.voice and self._found.has(voice.voice)]
        return [Voice(name, language=self._found.language) for name in dict.fromkeys([*self._found.speakers, *mapped])]

    def has_voice(self, voice: str) -> bool:
        """Return whether a speaker with this name or number exists."""
        return self._found is not None and self._found.has(voice)

    async def start(self, name: str, report: ReportLoading) -> Engine:
        try:
            await aside(lambda: _read(_model(self.path, Path("/"))))
        except PathProblem as error:
            raise FilesUnreadable(f"The voice cannot be loaded: {error}.") from error
        setup = WorkerSetup(needs="piper", variables=await self.variables())
        return await start_worker(name, "piper", self.identity().options, setup, report)


def _model(path: str, folder: Path) -> Path:
    """Return the .onnx file of an entry. Raise PathProblem if there is none."""
    place = placed(path, folder)
    try:
        return _file(place, shown_place(path, place))
    except OSError as error:
        raise PathProblem("path", f"{shown_place(path, place)} cannot be read: {advise(error)}") from error


def _file(place: Path, name: str) -> Path:
    if place.is_dir():
        models = sorted(place.glob("*.onnx"))
        if len(models) != 1:
            found = ", ".join(each.name for each in models or sorted(place.iterdir())[:8]) or "an empty folder"
            count = f"{len(models)} voices" if models else "no voice"
            raise PathProblem("path", f"{name} should contain one voice (.onnx), but contains {count}; found: {found}")
        return models[0]
    if not place.is_file():
        beside = sorted(each.name for each in place.parent.glob("*.onnx")) if place.parent.is_dir() else []
        there = f"; found: {', '.join(beside[:8])}" if beside else ""
        raise PathProblem("path", f"{name} does not exist{there}")
    if place.suffix != ".onnx":
        raise PathProblem("path", f"{name} is not a Piper voice: the name should end with .onnx")
    return place


def _description(model: Path) -> Path:
    return model.with_name(f"{model.name}.json")


def _read(model: Path) -> _Found:
    """Return the description beside a model. Raise PathProblem if it is missing or invalid."""
    description = _description(model)
    try:
        said = _Description.model_validate(json.loads(description.read_bytes()))
        stats = model.stat(), description.stat()
    except FileNotFoundError as error:
        raise PathProblem("path", f"{description} is missing; every Piper voice needs that file") from error
    except OSError as error:
        raise PathProblem("path", f"{description} cannot be read: {advise(error)}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise PathProblem("path", f"{description} does not describe a Piper voice: {where}: {first['msg']}") from error
    except ValueError as error:
        raise PathProblem("path", f"{description} is not valid JSON: {error}") from error
    is_espeak = said.phoneme_type == "espeak"
    stamp = tuple(number for stat in stats for number in (stat.st_size, stat.st_mtime_ns))
    return _Found(_speakers(model, said), said.num_speakers, said.language.code.replace("_", "-"), is_espeak, stamp)


def _speakers(model: Path, said: _Description) -> dict[str, int]:
    if said.num_speakers <= 1:
        return {model.stem: 0}
    names = {number: name for name, number in said.speaker_id_map.items()}
    return {names.get(number, str(number)): number for number in range(said.num_speakers)}
