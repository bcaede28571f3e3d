"""Vectors by ONNX Runtime itself, as somebody computes them who needs no server: each request is a batch.

The graph is the backend's, because the folder has none; the session is one with ONNX Runtime's defaults.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def embed(folder: str, requests: Sequence[Sequence[str]]) -> tuple[float, float, list[list[float]]]:
    """Return the seconds and the processor time for requests one after the other, and the vectors of the first."""
    tokenizer, session, output, numpy = _loaded(folder)
    started, cpu = time.perf_counter(), time.process_time()
    first = None
    for texts in requests:
        read = tokenizer.encode_batch(list(texts))
        names = {each.name for each in session.get_inputs()}
        given = {
            "input_ids": numpy.array([each.ids for each in read], numpy.int64),
            "attention_mask": numpy.array([each.attention_mask for each in read], numpy.int64),
            "token_type_ids": numpy.array([each.type_ids for each in read], numpy.int64),
        }
        (hidden,) = session.run([output], {name: value for name, value in given.items() if name in names})
        mask = given["attention_mask"][:, :, None].astype(numpy.float32)
        pooled = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        vectors = pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True)
        first = vectors if first is None else first
    assert first is not None
    return time.perf_counter() - started, time.process_time() - cpu, first.tolist()


@functools.cache
def _loaded(folder: str) -> tuple[Any, Any, str, Any]:
    # The parent process of a benchmark needs none of them.
    import numpy  # noqa: PLC0415
    import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    from localapi.worker.vectors.bert_graph import bert_graph  # noqa: PLC0415
    from localapi.worker.vectors.sentence_folder import described  # noqa: PLC0415

    graph = bert_graph(Path(folder), described(Path(folder)).config)
    settings = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in graph.weights.values()]
    settings.add_external_initializers(list(graph.weights), values)
    session = onnxruntime.InferenceSession(graph.model, settings, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    return tokenizer, session, graph.output, numpy
