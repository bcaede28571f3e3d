"""The backends mlx-audio and mlx-audio-plus: speech models on MLX, each package in its own environment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.local_model import OwnEnvironment
from localapi.backends.option_types import model_field
from localapi.backends.options import FolderOf
from localapi.backends.speech import SpeechOptions


class _MlxAudio(OwnEnvironment, SpeechOptions):
    """Options of both backends.

    `has_speed` is False although some architectures take a speed: most ignore it, and the server's tempo change is
    exact. No speed is passed to the models.
    """

    joins_sentences = True
    path: Annotated[str, model_field("mlx-community/CosyVoice2-0.5B-4bit")]
    trim_repeated_prefix: Annotated[
        bool,
        Field(
            description="Remove the first phrase if the model says it twice. The first sentence is then sent only when "
            "it is complete."
        ),
    ] = True
    lang_code: Annotated[
        str | None,
        Field(min_length=1, description="Language code of the model, if it takes one.", examples=["en"]),
    ] = None
    temperature: Annotated[
        float | None,
        Field(
            ge=0,
            le=2,
            description="Randomness, if the model supports it; 0 always gives the same result.",
            examples=[0.6],
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            description="Maximum tokens per sentence, if the model supports a limit.",
            examples=[1200],
        ),
    ] = None
    takes = frozenset({"ref_audio", "ref_text", "instruct_text", "source_audio"})

    def located_settings(self, folder_of: FolderOf) -> dict[str, Any]:
        return {**super().located_settings(folder_of), **self.located_model(folder_of)}

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.started(name, "mlx-audio", report, package=self.backend_name)


class MlxAudio(_MlxAudio):
    """Options of a speech model of mlx-audio."""

    backend: Annotated[
        Literal["mlx-audio"],
        Field(description="Speech models on MLX, in an environment installed by `localapi install mlx-audio`."),
    ]


class MlxAudioPlus(_MlxAudio):
    """Options of a speech model of mlx-audio-plus."""

    backend: Annotated[
        Literal["mlx-audio-plus"],
        Field(description="Speech models on MLX, in an environment installed by `localapi install mlx-audio-plus`."),
    ]
