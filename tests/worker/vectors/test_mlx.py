"""Models that are built like chat models, on MLX: the included one, whose last position is the vector of a text."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from localapi.backends.model_path import DEMO_FOLDER
from localapi.worker.llm.weights import load_weights
from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Embed, Embedded, Event, Failed
from localapi.worker.vectors import mlx
from localapi.worker.vectors.batches import VectorModel

HOST = Host(lambda _: None, lambda: None)
TEXTS = ["Paris", "What is the capital of France?", "Tell me a story about a small server."]


def load(**options: Any) -> VectorModel:
    return mlx.load({"path": str(DEMO_FOLDER), **options}, HOST)


def events_of(model: VectorModel, *inputs: str | list[int]) -> list[Event]:
    model.take(Embed(id=1, inputs=list(inputs)))
    events: list[Event] = []
    while model.busy:
        events += model.step()
    return events


def test_a_vector_is_the_output_of_the_last_token_alone_and_in_a_batch() -> None:
    (done,) = events_of(load(), *TEXTS)
    assert isinstance(done, Embedded)
    demo = load_weights(str(DEMO_FOLDER), None, HOST.report)
    for text, vector in zip(TEXTS, done.vectors, strict=True):
        states = demo.model.model(mx.array([demo.tokenizer.encode(text)]))
        last = np.array(states[0, -1].astype(mx.float32))
        np.testing.assert_allclose(np.frombuffer(vector, "<f4"), last / np.linalg.norm(last), atol=1e-3)


def test_what_the_model_cannot_read_is_refused() -> None:
    model = load(max_tokens=16)
    for given, kind in (("word " * 40, "context_length_exceeded"), ([10**6], "invalid_request")):
        (failed,) = events_of(model, given)
        assert isinstance(failed, Failed)
        assert (failed.kind, failed.param) == (kind, "input[0]")
    with pytest.raises(CannotLoad, match="max_tokens"):
        load(max_tokens=10**6)
