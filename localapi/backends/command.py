"""The backend command: a model in a program that the manifest names and the server starts."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator

from localapi.backends import model_path
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.image_options import SeeingOptions
from localapi.backends.model_path import is_place, is_repository, placed, shown_place
from localapi.backends.options import Duration, FolderOf, MemorySize, PathProblem, RunsIn
from localapi.backends.parameters import MEDIA, TEXT
from localapi.backends.placeholders import checked, filled, placeholders_in
from localapi.backends.program import HOST, Launch
from localapi.backends.secret import SecretPlace
from localapi.backends.speech import ForwardedSpeech
from localapi.backends.transcription import TranscriptionOptions
from localapi.backends.upstream import Sought
from localapi.backends.variables import WithVariables, check_names, number_as_text
from localapi.backends.vector_options import EmbeddingOptions, RerankOptions
from localapi.errors import FilesUnreadable
from localapi.system.threads import aside

START_SECONDS: Final = 600.0
STOP_SECONDS: Final = 10.0
MOST_WORDS: Final = 20
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./-]+")


def _as_list(value: object) -> object:
    """Refuse a command line, in which quotes, variables and pipes would have no meaning.

    The message shows it as a list.
    """
    if not isinstance(value, str):
        return value
    try:
        words = shlex.split(value)
    except ValueError:  # an unbalanced quote
        words = value.split()
    items = [word if _PLAIN.fullmatch(word) else f'"{word}"' for word in words[:MOST_WORDS]]
    if len(words) > MOST_WORDS:
        items.append("...")
    raise ValueError(f"should be a list, because no shell is involved: [{', '.join(items)}]")


Text = Annotated[str, BeforeValidator(number_as_text), AfterValidator(checked)]


class CommandOptions(WithVariables):
    """Options of entries whose model runs in a program; they precede those of the kind in the order of base classes."""

    worker_bytes: ClassVar[int] = 64 * 1024 * 1024
    env: Annotated[
        dict[str, Text | SecretPlace],
        AfterValidator(check_names),
        Field(
            description="Environment variables for the program, with placeholders; values may name secrets: {env: "
            "NAME}, {file: path}.",
            examples=[{"GGML_METAL": "1"}],
            repr=False,
        ),
    ] = {}
    path: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Model for {path}: a file, a folder or a Hugging Face repository (owner/name).",
            examples=["./models/qwen.gguf"],
        ),
    ] = None
    command: Annotated[
        list[Text],
        BeforeValidator(_as_list),
        Field(
            min_length=1,
            description="Program and arguments, as a list; no shell is involved. Placeholders: {port} (required), "
            "{host}, {key}, {name}, {path}, {folder}, {home}.",
            examples=[
                ["llama-server", "--port", "{port}", "-m", "./models/qwen.gguf"],
                ["vllm", "serve", "Qwen/Qwen3-8B", "--port", "{port}"],
            ],
        ),
    ]
    cwd: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Working directory of the program. Default: the manifest's folder.",
            examples=["./server"],
        ),
    ] = None
    model: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Name of the model in requests to the program. Default: its only model, otherwise the path.",
            examples=["qwen"],
        ),
    ] = None
    ready: Annotated[
        str | None,
        Field(
            pattern=r"^/[!-~]*$",
            description="Path that returns status 200 once the model is loaded. Default: /health or, if missing, "
            "/v1/models.",
            examples=["/health"],
        ),
    ] = None
    start_timeout: Annotated[
        Duration, Field(description="Time limit for the program to become ready: 90s, 10m.", examples=["30m"])
    ] = START_SECONDS
    stop_timeout: Annotated[
        Duration,
        Field(description="Time limit for the program to exit after SIGTERM before it is killed.", examples=["1m"]),
    ] = STOP_SECONDS
    memory: Annotated[
        MemorySize,
        Field(
            description="Minimum memory of the program: 8GB. Default: estimated from `path`, then measured.",
            examples=["8GB"],
        ),
    ] = None
    has_voices: ClassVar[bool] = False
    """True if the program is asked for its voices."""
    _manifest_folder: str = PrivateAttr(default="")

    @field_validator("command")
    @classmethod
    def _has_values(cls, command: list[str], info: ValidationInfo) -> list[str]:
        env = info.data.get("env", {})
        texts = [*command, *(value for value in env.values() if isinstance(value, str))]
        names = {name for text in texts for name in placeholders_in(text)}
        if not command[0].strip():
            raise ValueError("should begin with the name of a program")
        if "port" not in names:
            raise ValueError('should contain the placeholder {port}, the free port to listen on, as in --port "{port}"')
        if "path" in names and info.data.get("path") is None:
            raise ValueError("should not contain {path}, because the entry has no option `path`")
        return command

    def located(self, folder_of: FolderOf) -> Self:
        """Return this entry with absolute paths. Raise PathProblem."""
        folder = folder_of("command")
        cwd = folder
        if self.cwd is not None:
            cwd = placed(self.cwd, folder_of("cwd"))
            if not cwd.is_dir():
                what = "is not a folder" if cwd.exists() else "does not exist"
                raise PathProblem("cwd", f"{shown_place(self.cwd, cwd)} {what}")
        path = self.path and _located_path(self.path, folder_of("path"))
        located = super().located(folder_of)
        assert isinstance(located, type(self))  # noqa: S101  # a kind's options return their own class
        located = located.model_copy(update={**self.located_variables(folder_of), "cwd": str(cwd), "path": path})
        located._manifest_folder = str(folder)
        return located

    def weight_files(self) -> list[Path]:
        """Return the files of a located entry that get loaded into memory. Blocks."""
        if self.path is None:
            return []
        place = Path(self.path)
        if place.is_file():
            return [place]
        return [*model_path.weights(self.path), *(sorted(place.rglob("*.gguf")) if place.is_dir() else ())]

    def executable(self, values: Mapping[str, str], path: str | None) -> str:
        """Return the path of the program; `path` is its PATH. Raise FilesUnreadable if it cannot be run. Blocks."""
        name = os.path.expanduser(filled(self.command[0], values))
        if os.sep not in name:
            path = os.environ.get("PATH", os.defpath) if path is None else path
            # A program that is installed beside this server is found even if its folder is not in PATH.
            found = shutil.which(name, path=f"{path}{os.pathsep}{os.path.dirname(sys.executable)}")
            if found is None:
                raise FilesUnreadable(f"The program {name} is not in PATH. Install it, or give its path in `command`.")
            return os.path.abspath(found)
        place = Path(self.cwd or os.curdir, name).absolute()
        if not place.exists():
            raise FilesUnreadable(f"The program {place} does not exist. Correct `command`, or install it.")
        if not (place.is_file() and os.access(place, os.X_OK)):
            raise FilesUnreadable(f"The program {place} is not executable. Name a program, or use chmod +x.")
        return str(place)

    @property
    def runs_in(self) -> RunsIn:
        return "program"

    @property
    def runs_at(self) -> str | None:
        return os.path.basename(self.command[0])

    def stated_memory(self) -> int | None:
        return self.memory

    def obstacle(self) -> str | None:
        """Return why a located entry cannot be loaded here. Blocks."""
        path = self.env.get("PATH")
        try:
            self.executable(self._values(""), path if isinstance(path, str) else None)
        except FilesUnreadable as error:
            return error.message
        return None

    def _values(self, name: str) -> dict[str, str]:
        return {
            "host": HOST,
            "name": name,
            "path": self.path or "",
            "folder": self._manifest_folder,
            "home": os.path.expanduser("~"),
        }

    async def launch(self, name: str) -> Launch:
        """Return the program to start. Raise LoadFailed if it is missing."""
        variables = await self.variables()
        values = self._values(name)
        program = await aside(lambda: self.executable(values, variables.all.get("PATH")))
        arguments = [re.sub(r"^~(?=/)", "{home}", argument) for argument in self.command[1:]]
        return Launch(
            name=name,
            command=[program.replace("{", "{{").replace("}", "}}"), *arguments],
            env=variables.plain,
            secrets=variables.secret,
            folder=Path(self.cwd or os.curdir),
            values=values,
            model=Sought(self.model, usual_model=self.path, has_default=True, voices=self.has_voices),
            ready=("/health", "/v1/models") if self.ready is None else (self.ready,),
            start_seconds=self.start_timeout,
            stop_seconds=self.stop_timeout,
            memory_bytes=self.memory or 0,
        )

    async def start(self, name: str, report: ReportLoading) -> Engine:
        """Start the program, and return its engine once it is ready. Raise LoadFailed."""
        launch = await self.launch(name)
        # The HTTP client takes long to import, and only servers with such entries need it.
        module = await aside(lambda: importlib.import_module("localapi.backends.command_engine"))
        engine: Engine = await module.start(launch, report)
        return engine


def _located_path(path: str, folder: Path) -> str:
    place = placed(path, folder)
    if place.exists():
        return str(place)
    if is_repository(path) and not is_place(path):
        return path
    raise PathProblem(
        "path", f"{shown_place(path, place)} does not exist; give a file, a folder or a repository (owner/name)"
    )


class Command(CommandOptions, SeeingOptions):
    """Options of a chat model that runs in a program.

    It runs on this machine, so it must not fetch or open what a client names; this server does, if allowed.
    """

    honours = TEXT | MEDIA
    forwards = True
    backend: Annotated[
        Literal["command"],
        Field(description="Program that the server starts, with OpenAI's API: llama-server, vllm, ..."),
    ]


class CommandSpeech(CommandOptions, ForwardedSpeech):
    """Options of a speech model that runs in a program."""

    has_voices = True
    backend: Annotated[
        Literal["command"],
        Field(description="Program that the server starts, with OpenAI's /v1/audio/speech."),
    ]


class CommandEmbedding(CommandOptions, EmbeddingOptions):
    """Options of an embedding model that runs in a program."""

    backend: Annotated[
        Literal["command"],
        Field(description="Program that the server starts, with OpenAI's /v1/embeddings."),
    ]


class CommandRerank(CommandOptions, RerankOptions):
    """Options of a rerank model that runs in a program."""

    backend: Annotated[
        Literal["command"],
        Field(description="Program that the server starts, with /v1/rerank."),
    ]


class CommandTranscription(CommandOptions, TranscriptionOptions):
    """Options of a transcription model that runs in a program."""

    forwards = True
    backend: Annotated[
        Literal["command"],
        Field(description="Program that the server starts, with OpenAI's /v1/audio/transcriptions."),
    ]
