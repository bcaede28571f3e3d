"""Speech by `PiperVoice` itself, as somebody calls it who needs no server."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Any

from tests.bench.speech_client import Heard


def say(path: str, text: str, *, one_core: bool = False) -> Heard:
    """A text to raw PCM. `one_core` holds the voice to one; else it is as Piper loads it."""
    voice = _loaded(path, one_core)
    started = time.perf_counter()
    blocks, moments = [], []
    for chunk in voice.synthesize(text):
        blocks.append(chunk.audio_int16_bytes)
        moments.append(time.perf_counter())
    return Heard(moments[0] - started, moments[-1] - started, b"".join(blocks))


def first(path: str, text: str) -> float:
    """Seconds until the first sentence of a text is PCM."""
    voice = _loaded(path, False)
    started = time.perf_counter()
    assert next(iter(voice.synthesize(text))).audio_int16_bytes
    return time.perf_counter() - started


@functools.cache
def _loaded(path: str, one_core: bool) -> Any:
    # The parent process of a benchmark needs neither.
    import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415
    from piper import PiperVoice  # noqa: PLC0415
    from piper.config import PiperConfig  # noqa: PLC0415

    if not one_core:
        return PiperVoice.load(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return PiperVoice(session=session, config=PiperConfig.from_dict(json.loads(Path(f"{path}.json").read_text())))
