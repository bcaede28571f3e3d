"""Says back the recording that it must be given, with another rate and two channels; has a stream that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import mlx.core as mx
from mlx import nn
from mlx_audio.tts.models.base import BaseModelArgs


@dataclass
class ModelConfig(BaseModelArgs):  # type: ignore[misc]
    model_type: str = "tinycopy"
    sample_rate: int = 16000
    hidden: int = 4


class Model(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.proj = nn.Linear(config.hidden, 1)

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        return weights

    def generate(
        self,
        text: str,
        ref_audio: mx.array,
        source_audio: mx.array | None = None,
        voice: str | None = None,
        stream: bool = False,
    ) -> Iterator[SimpleNamespace]:
        _ = voice
        if stream:
            raise NotImplementedError("streaming is not implemented")
        sound = ref_audio if source_audio is None else source_audio
        yield SimpleNamespace(audio=None, sample_rate=None)
        yield SimpleNamespace(audio=mx.stack([sound, sound]), sample_rate=16000)
