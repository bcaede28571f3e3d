"""Options that every entry of the section `transcription` has, whatever its backend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from localapi.backends import model_path
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.model_options import Revision
from localapi.backends.options import Duration, EntryOptions, FolderOf, PathProblem
from localapi.backends.own_environment import OwnEnvironment
from localapi.system.threads import aside


class TranscriptionOptions(EntryOptions):
    """An entry of the section `transcription`."""

    section = "transcription"
    forwards: ClassVar[bool] = False
    """True if the backend sends a file on as the client sent it, and returns another server's reply as it comes."""
    language: Annotated[
        str | None,
        Field(
            min_length=2,
            description="Language of the sound (en, zh, ...) if the request names none. Default: the model finds out.",
            examples=["en"],
        ),
    ] = None
    max_file_mb: Annotated[
        int, Field(ge=1, le=65_536, description="Maximum size of a file; a larger one gets a 413.", examples=[2048])
    ] = 1024
    max_duration: Annotated[
        Duration, Field(description="How long the sound of a file may be: 30m, 12h.", examples=["12h"])
    ] = 4 * 3600.0


Vad = Annotated[
    bool, Field(description="Leave out what is not speech. With false, music and singing are transcribed, too.")
]


class LocalTranscription(OwnEnvironment, TranscriptionOptions):
    """Options of a model in a worker."""

    must_hold: ClassVar[str] = "config.json"
    """File that the model's folder has."""
    path: Annotated[
        str,
        Field(
            min_length=1,
            description="A folder, or a Hugging Face repository (owner/name).",
            examples=["Systran/faster-whisper-small"],
        ),
    ]
    revision: Revision = None
    vad: Vad = True

    def located(self, folder_of: FolderOf) -> Self:
        try:
            path = model_path.resolve(self.path, folder_of("path"), must_hold=self.must_hold)
        except ValueError as error:
            raise PathProblem("path", str(error)) from error
        return self.model_copy(update={**self.located_variables(folder_of), "path": path})

    def repositories(self) -> tuple[tuple[str, str | None], ...]:
        return () if Path(self.path).is_absolute() else ((self.path, self.revision),)

    async def load(self, name: str, engine: str, report: ReportLoading) -> Engine:
        """Start a worker with this engine. Raise `errors.LoadFailed`."""
        await aside(lambda: model_path.check_present([(self.path, self.must_hold)]))
        return await self.started(name, engine, self.identity().options, report)


class FasterWhisper(LocalTranscription):
    """Options of a Whisper model in CTranslate2's format."""

    backend: Annotated[
        Literal["faster-whisper"],
        Field(
            description="Whisper on the processor, in an environment installed by `localapi install faster-whisper`."
        ),
    ]
    worker_bytes = 250 * 1024 * 1024
    must_hold = "model.bin"
    beam_size: Annotated[
        int, Field(ge=1, le=20, description="Texts that are compared; 1 is the fastest.", examples=[1])
    ] = 5
    compute_type: Annotated[
        Literal["int8", "int8_float32", "int16", "float32", "bfloat16"],
        Field(description="Numbers to compute with; int8 is the fastest, and takes the least memory."),
    ] = "int8"
    threads: Annotated[
        int | None, Field(ge=1, le=256, description="Threads to compute with. Default: one per core.", examples=[4])
    ] = None

    def weight_files(self) -> list[Path]:
        folder = model_path.folder_of_model(self.path, self.revision)
        return [] if folder is None else sorted(folder.glob("model.bin"))

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.load(name, "faster-whisper", report)


class MlxAudioTranscription(LocalTranscription):
    """Options of a model of mlx-audio."""

    backend: Annotated[
        Literal["mlx-audio"],
        Field(description="Transcription on MLX, in an environment installed by `localapi install mlx-audio`."),
    ]

    def weight_files(self) -> list[Path]:
        return model_path.weights(self.path, self.revision)

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.load(name, "mlx-audio-stt", report)


def settings_of(options: TranscriptionOptions) -> dict[str, Any]:
    """Return the options that every entry of the section has."""
    return {name: getattr(options, name) for name in options.setting_names()}
