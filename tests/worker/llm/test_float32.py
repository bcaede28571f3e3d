"""Weights as float32: the same answers, of every kind of layer; and when they stay as they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.tuner.utils import linear_to_lora_layers

from localapi.worker.llm import float32
from localapi.worker.llm.float32 import Gain, available_bytes, measure_gain, widen

PROMPT = mx.array([[1, 5, 9, 2, 40, 41, 7]])
FASTER, SLOWER, PROMPTS_ONLY = Gain(10, 2), Gain(1.1, 0.9), Gain(10, 0.8)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(float32, "SMALL_BYTES", 0)


def model(*, tied: bool = True, dtype: mx.Dtype = mx.bfloat16) -> Any:
    mx.random.seed(3)
    arguments = llama.ModelArgs(
        model_type="llama", hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=4,
        rms_norm_eps=1e-5, vocab_size=96, num_key_value_heads=2, attention_bias=True, tie_word_embeddings=tied,
    )  # fmt: skip
    made = llama.Model(arguments)
    made.set_dtype(dtype)
    made.eval()
    return made


def quantised(bits: int = 4, group_size: int = 32, mode: str = "affine", **options: Any) -> Any:
    made = model(**options)
    nn.quantize(made, group_size=group_size, bits=bits, mode=mode)
    return made


def adapted() -> Any:
    made = quantised()
    linear_to_lora_layers(made, 2, {"rank": 4, "scale": 2.0, "dropout": 0.0})
    made.eval()
    return made


def dtypes(made: Any) -> set[mx.Dtype]:
    return {array.dtype for _, array in tree_flatten(made.parameters())}


MODELS = {
    "4 bits": quantised,
    "8 bits": lambda: quantised(8, 64),
    "mxfp4": lambda: quantised(4, 32, "mxfp4"),
    "a head of its own": lambda: quantised(tied=False),
    "scales of float32": lambda: quantised(dtype=mx.float32),
    "bfloat16": model,
    "float16": lambda: model(dtype=mx.float16),
    "an adapter": adapted,
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_answers_the_same_in_float32(kind: str) -> None:
    made = MODELS[kind]()
    wanted = made(PROMPT).astype(mx.float32)

    done = widen(made, asked=True, blas="any").done

    assert done
    assert dtypes(made) == {mx.float32}
    assert mx.allclose(made(PROMPT), wanted, atol=0.05 * mx.max(mx.abs(wanted)).item())


@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[:, :1]], ids=["a prompt", "a single row"])
def test_a_model_that_decodes_slower_in_float32_keeps_both(prompt: mx.array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32, "measure_gain", lambda _: PROMPTS_ONLY)
    made = quantised()
    wanted = made(prompt).astype(mx.float32)

    done = widen(made, asked=False, blas="any").done

    assert done
    assert dtypes(made) == {mx.float32, mx.uint32}
    assert mx.allclose(made(prompt), wanted, atol=0.05 * mx.max(mx.abs(wanted)).item())


@pytest.mark.parametrize(("make", "gain"), [(quantised, SLOWER), (model, SLOWER), (model, PROMPTS_ONLY)])
def test_weights_stay_where_float32_is_not_faster(make: Any, gain: Gain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32, "measure_gain", lambda _: gain)
    made = make()
    before = dtypes(made)

    widened = widen(made, asked=False, blas="any")

    assert not widened.done
    assert "as stored" in widened.says
    assert dtypes(made) == before


def test_weights_stay_where_float32_leaves_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32, "measure_gain", lambda _: FASTER)
    monkeypatch.setattr(float32, "available_bytes", lambda: 100_000)
    made = quantised()

    widened = widen(made, asked=False, blas="any")

    assert not widened.done
    assert "free" in widened.says
    assert mx.uint32 in dtypes(made)


def test_there_is_nothing_to_do_for_float32_and_for_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    assert widen(model(dtype=mx.float32), asked=True, blas="any") == float32.AS_STORED
    monkeypatch.undo()
    assert widen(quantised(), asked=False, blas="any") == float32.AS_STORED


def test_the_gain_is_measured_once_for_each_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    measurements: list[int] = []
    monkeypatch.setattr(float32, "measure_gain", lambda modules: measurements.append(len(modules)) or FASTER)
    for blas in ("one", "one", "another", "one"):
        widen(quantised(), asked=False, blas=blas)
    assert len(measurements) == 2


def test_what_is_measured_are_speeds_and_other_results_are_no_gain() -> None:
    layers = [module for _, module in quantised().named_modules() if isinstance(module, nn.QuantizedLinear)]
    gain = measure_gain(layers)
    assert gain.prompt > 0
    assert gain.decode > 0
    for layer in layers:
        layer.biases = layer.biases + mx.array(float("nan"), layer.biases.dtype)
    assert measure_gain(layers) == Gain(0, 0)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, 8_000 * 1024),
        ({"memory.max": "max\n", "memory.current": "5\n"}, 8_000 * 1024),
        ({"memory.max": "3000000\n", "memory.current": "1000000\n"}, 2_000_000),
        ({"box/memory.max": "1000\n", "box/memory.current": "4000\n"}, 0),
    ],
)
def test_free_memory_is_what_the_container_leaves_too(tmp_path: Path, files: dict[str, str], wanted: int) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    for file, content in {
        proc / "meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n",
        proc / "self/cgroup": "0::/box\n",
        **{cgroup / name: content for name, content in files.items()},
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert available_bytes(proc, cgroup) == wanted


def test_a_damaged_measurement_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float32, "measure_gain", lambda _: FASTER)
    widen(quantised(), asked=False, blas="any")
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text("{")
    assert widen(quantised(), asked=False, blas="any").done
    assert json.loads(file.read_text()) == {"prompt": 10, "decode": 2}
