"""A Whisper with random weights in mlx-audio's environment: what it writes is noise, and every number may be odd."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from localapi.audio.encoder import encoded
from localapi.audio.formats import FORMATS
from localapi.environments import Environment
from tests.server import Server, serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

RATE = 16_000
SECONDS = 33.3
BUILD = """
import json, sys
from pathlib import Path
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_audio.stt.models.whisper.tokenizer import LANGUAGES
from mlx_audio.stt.models.whisper.whisper import Model, ModelDimensions
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizerFast

folder = Path(sys.argv[1])
size = {f"n_{part}_{name}": value for part in ("audio", "text") for name, value in
        {"state": 32, "head": 2, "layer": 2}.items()}
dimensions = {**size, "n_mels": 80, "n_audio_ctx": 1500, "n_text_ctx": 48, "n_vocab": 51865}
(folder / "config.json").write_text(json.dumps({"model_type": "whisper", **dimensions}))
mx.random.seed(1)
weights = {}
for name, array in tree_flatten(Model(ModelDimensions(**dimensions)).parameters()):
    if not name.startswith("_"):
        scale = 1.0 if "embedding" in name else 0.5
        weights[name] = (mx.random.normal(array.shape) * scale).astype(mx.float16) if array.ndim > 1 else array
mx.save_safetensors(str(folder / "model.safetensors"), weights)
texts = sorted(pre_tokenizers.ByteLevel.alphabet())
texts += [f"\\u0120w{number}" for number in range(50257 - len(texts))]
tokens = Tokenizer(models.BPE(vocab={text: at for at, text in enumerate(texts)}, merges=[]))
tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokens.decoder = decoders.ByteLevel()
special = ["endoftext", "startoftranscript", *list(LANGUAGES)[:99], "translate", "transcribe", "startoflm"]
special += ["startofprev", "nospeech", "notimestamps"]
tokens.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in special])
tokens.add_tokens([AddedToken(f"<|{step * 0.02:.2f}|>") for step in range(1501)])
end = "<|endoftext|>"
tokenizer = WhisperTokenizerFast(tokenizer_object=tokens, unk_token=end, bos_token=end, eos_token=end)
WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(str(folder))
"""


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise") / "noise.wav"
    samples = np.random.default_rng(0).normal(0, 3000, int(RATE * SECONDS)).astype("<i2")
    path.write_bytes(encoded(samples.tobytes(), FORMATS["wav"], RATE))
    return path


@pytest.fixture(scope="module")
def server(installed: Callable[[str], Environment], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment, folder = installed("mlx-audio"), tmp_path_factory.mktemp("whisper")
    subprocess.run([environment.interpreter, "-I", "-c", BUILD, folder], check=True, capture_output=True)
    manifest = f"transcription: {{ears: {{backend: auto, path: {folder}, vad: false}}}}"
    environments = {"LOCALAPI_ENVIRONMENTS": str(environment.folder.parent)}
    with serving(tmp_path_factory.mktemp("ears"), manifest, env=environments) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client(timeout=600) as client:
        yield client


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_times_stay_inside_the_sound_and_numbers_are_json(client: openai.OpenAI, noise: Path) -> None:
    with noise.open("rb") as file:
        raw = client.audio.transcriptions.with_raw_response.create(
            model="ears", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
    reply = json.loads(raw.text, parse_constant=no_constant)
    assert reply["duration"] == pytest.approx(SECONDS, abs=0.01)
    assert reply["segments"]
    for part in (reply["segments"], reply["words"]):
        assert all(0 <= each["start"] <= each["end"] <= reply["duration"] for each in part)
        assert all(one["start"] <= other["start"] for one, other in itertools.pairwise(part))
    assert [word["word"] for word in reply["words"]]


def test_a_stream_and_subtitles_come_of_it(client: openai.OpenAI, noise: Path) -> None:
    with noise.open("rb") as file:
        *deltas, done = client.audio.transcriptions.create(model="ears", file=file, stream=True, language="en")
    assert "".join(each.delta for each in deltas) == done.text  # type: ignore[union-attr]
    with noise.open("rb") as file:
        subtitles = client.audio.transcriptions.create(model="ears", file=file, response_format="srt", prompt="w7 w8")
    assert re.match(r"1\n00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}\nw\d+", str(subtitles))


def test_a_language_that_the_model_lacks_is_refused(client: openai.OpenAI, noise: Path) -> None:
    with noise.open("rb") as file, pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(model="ears", file=file, language="tlh")
    assert refused.value.param == "language"
