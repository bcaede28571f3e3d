"""A tone of 60 ms for each character; its pitch tells voice, ref_audio and style. Loads in 0.1 s, speaks in 10 ms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_audio.tts.models.base import BaseModelArgs


@dataclass
class ModelConfig(BaseModelArgs):  # type: ignore[misc]
    model_type: str = "tinytone"
    sample_rate: int = 24000
    hidden: int = 4
    twice: bool = False
    """Noise in place of the tone, and said twice."""


class Model(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.proj = nn.Linear(config.hidden, 1)

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        return weights

    def generate(  # noqa: PLR0917  # as the package's own have it
        self,
        text: str,
        voice: str | None = None,
        speed: float = 1.0,
        ref_audio: mx.array | None = None,
        ref_text: str | None = None,
        instruct: str | None = None,
        temperature: float = 0.7,
        stream: bool = False,
        **kwargs: Any,
    ) -> Iterator[SimpleNamespace]:
        del ref_text, temperature  # named, and not used: as architectures do
        if speed != 1:
            raise RuntimeError("a speed was given")
        if voice == "nobody":
            raise ValueError("Voice 'nobody' not found")
        if "explode" in text:
            raise RuntimeError("boom")
        rate = self.config.sample_rate
        length = int(len(text) * 0.06 * rate)
        pitch = 200 + 100 * (voice == "b") + 200 * (instruct is not None)
        if ref_audio is not None:
            pitch = 1000 + ref_audio.shape[0] // 100
        lazy = 1.5 if "loud" in text else 0.3 * mx.sigmoid(self.proj(mx.ones((1, self.config.hidden))))[0, 0]
        sound = lazy * mx.sin(2 * 3.14159265 * pitch * mx.arange(length) / rate)
        if self.config.twice:
            noise = mx.random.normal((rate,), key=mx.random.key(7)) * 0.1
            sound = mx.concatenate([noise, noise, sound])
        step = rate // 4 if stream else max(sound.shape[0], 1)
        for at in range(0, sound.shape[0], step):
            yield SimpleNamespace(audio=sound[at : at + step].astype(mx.bfloat16), sample_rate=rate)
