"""Entries of the section `speech` whose engines this version knows by name and does not run yet.

They are read, checked and listed; a request to one of them gets a 503 that says so.
"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from pydantic import Field

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.options import SpeechOptions
from localapi.errors import LoadFailed


class _NotServedYet(SpeechOptions):
    async def start(self, name: str, report: ReportLoading) -> Engine:
        raise LoadFailed(
            f"The speech backend {self.identity().backend!r} is not served by this version of localapi yet. "
            "Use `backend: echo` to try the API."
        )


class MacosSay(_NotServedYet):
    """The voices of macOS."""

    backend: Literal["macos-say"]


class EspeakNg(_NotServedYet):
    """The voices of eSpeak NG."""

    backend: Literal["espeak-ng"]


class Piper(_NotServedYet):
    """A Piper voice."""

    backend: Literal["piper"]
    path: Annotated[str, Field(min_length=1, description="A voice (.onnx), or a folder with one.")]


class MlxAudio(_NotServedYet):
    """A speech model of mlx-audio."""

    backend: Literal["mlx-audio"]
    path: Annotated[str, Field(min_length=1, description="A folder or a Hugging Face repository (owner/name).")]


class MlxAudioPlus(_NotServedYet):
    """A speech model of mlx-audio-plus."""

    backend: Literal["mlx-audio-plus"]
    path: Annotated[str, Field(min_length=1, description="A folder or a Hugging Face repository (owner/name).")]


class Auto(_NotServedYet):
    """The system's voice where there is no path; otherwise what the path holds."""

    backend: Literal["auto"]
    path: Annotated[str | None, Field(description="A Piper voice, a folder or a Hugging Face repository.")] = None

    @property
    def backend_name(self) -> str:
        if self.path is not None:
            return "piper" if self.path.endswith(".onnx") else "mlx-audio-plus"
        return "macos-say" if sys.platform == "darwin" else "espeak-ng"
