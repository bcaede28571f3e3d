"""A LoRA that is part of the model: made here, with mlx-lm's own tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm import load as load_mlx_lm
from mlx_lm.tuner.utils import linear_to_lora_layers

from localapi.worker.llm import mlx_lm
from localapi.worker.llm.prefix_cache.disk_store import fingerprint
from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Chat, Delta, Finished, Message, Sampling
from tests.worker.llm.running import run

if TYPE_CHECKING:
    from pathlib import Path

QUESTION = "What is the capital of France?"
LORA = {"rank": 2, "scale": 20.0, "dropout": 0.5}


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    """An adapter of random numbers, so large that no answer is what it was."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    model = load_mlx_lm(str(tiny_model))[0]
    model.freeze()
    linear_to_lora_layers(model, 2, LORA)
    mx.random.seed(1)
    weights = {name: mx.random.normal(array.shape) for name, array in tree_flatten(model.trainable_parameters())}
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    (folder / "adapter_config.json").write_text(
        json.dumps({"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": LORA})
    )
    return folder


def load(path: Path, **options: Any) -> mlx_lm.MlxLm:
    return mlx_lm.load({"path": str(path), **options}, Host(lambda _: None, lambda: None))


def answers(engine: mlx_lm.MlxLm, requests: int) -> list[str]:
    """Return the answers to so many equal requests at the same time."""
    greedy = Sampling(temperature=0)
    asked = [Chat(id=i, messages=[Message("user", QUESTION)], sampling=greedy, max_tokens=12) for i in range(requests)]
    events = run(engine, *asked)
    assert all(isinstance(each[-1], Finished) for each in events.values())
    return ["".join(event.text for event in each if isinstance(event, Delta)) for each in events.values()]


def test_an_adapter_changes_the_answers_which_are_still_given_together(tiny_model: Path, adapter: Path) -> None:
    [plain] = answers(load(tiny_model), 1)
    engine = load(tiny_model, adapter=str(adapter))
    adapted = answers(engine, 3)
    assert engine.loaded.batched
    assert set(adapted) == {adapted[0]}  # and nothing is dropped at random, as it is in training
    assert adapted[0] != plain


def test_prefixes_on_disk_are_kept_apart_by_adapter(
    tiny_model: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlx_lm, "cache_folder", lambda name: tmp_path / name)
    for options in ({}, {"adapter": str(adapter)}):
        engine = load(tiny_model, prefix_cache_disk_mb=10, **options)
        answers(engine, 1)
        while engine.save_some():
            pass
        assert engine._batch.prefixes.hits == 0
    folders = {file.name for file in (tmp_path / "prefixes").iterdir() if file.is_dir()}
    assert folders == {fingerprint(tiny_model), fingerprint(tiny_model, fingerprint(adapter))}


def test_a_model_loads_where_prefixes_have_no_place_on_disk(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mlx_lm, "cache_folder", lambda _: None)
    assert answers(load(tiny_model, prefix_cache_disk_mb=10), 1)
    assert "prompt caches are not stored: this user has no home" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "adapters.safetensors").unlink(), "has no adapters.safetensors"),
        (lambda f: (f / "adapters.safetensors").write_bytes(b"<html>" * 9), "does not fit the model in"),
        (lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}'), "is not mlx-lm's"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (
            lambda f: mx.save_safetensors(
                str(f / "adapters.safetensors"), {"model.layers.3.self_attn.q_proj.lora_a": mx.zeros((5, 2))}
            ),
            "does not match model parameter shape",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_one_line(
    tiny_model: Path, adapter: Path, damage: Any, says: str
) -> None:
    damage(adapter)
    with pytest.raises(CannotLoad) as refused:
        load(tiny_model, adapter=str(adapter))
    assert says in str(refused.value)
    assert str(adapter) in str(refused.value)
    assert "\n" not in str(refused.value)
