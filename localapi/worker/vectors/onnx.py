"""Embeddings and scores by ONNX Runtime: models of the BERT family, and any model with an ONNX file.

For such models on CPUs, MLX computed different vectors for the same text; ONNX Runtime does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]
from tokenizers import Tokenizer

from localapi.worker.hub.repository import located
from localapi.worker.model import CannotLoad, Host, first_line
from localapi.worker.protocol import Loading
from localapi.worker.vectors import bert_graph, sentence_folder
from localapi.worker.vectors.batches import Tokens, TooLong, VectorModel, Vectors, check_tokens, limit, unit
from localapi.worker.vectors.sentence_folder import SentenceFolder, described

GRAPHS: Final = ("onnx/model.onnx", "model.onnx")
UNKNOWN_LIMIT: Final = 512
AT_ONCE: Final = 2
"""Number of concurrent batches: the threads of one often wait for each other, and its reply must be written."""


def load(options: dict[str, Any], host: Host) -> VectorModel:
    """Return the model of an entry's options. Raise CannotLoad."""
    scores = bool(options.get("scores"))
    path, revision = options["path"], options.get("revision")
    folder = located(path, revision, host.report, patterns=sentence_folder.PATTERNS)
    found = described(folder)
    if not any((folder / graph).is_file() for graph in GRAPHS):
        patterns = ["model*.safetensors"]
        if found.config.get("model_type") not in bert_graph.FAMILIES:
            patterns = ["onnx/model.onnx", "onnx/model.onnx_data", "model.onnx", "model.onnx_data"]
        folder = located(path, revision, host.report, patterns=[*sentence_folder.PATTERNS, *patterns])
    host.report(Loading(phase="reading weights"))
    encoder = OnnxEncoder(found, scores=scores, pooling=options.get("pooling"), max_tokens=options.get("max_tokens"))
    host.report(Loading(phase="computing for the first time"))
    return VectorModel(encoder, scores=scores, at_once=AT_ONCE, wake=host.wake)


class OnnxEncoder:
    """A network in ONNX Runtime. See `encoder.Encoder`."""

    def __init__(
        self, found: SentenceFolder, *, scores: bool, pooling: str | None = None, max_tokens: int | None = None
    ) -> None:
        """Create an encoder.

        `pooling` and `max_tokens` are the entry's; None for those of the folder. Raise CannotLoad.
        """
        self._scores = scores
        self._pooling = pooling or found.pooling or "mean"
        self._dense = found.dense
        self._tokenizer = _tokenizer(found.folder)
        self._session, self._output = _session(found)
        self._inputs = {each.name for each in self._session.get_inputs()}
        own = found.max_tokens or UNKNOWN_LIMIT
        if found.config.get("model_type") in bert_graph.ROBERTAS:
            positions = found.config.get("max_position_embeddings", own)
            own = min(own, positions - int(found.config.get("pad_token_id", 1)) - 1)
        self._limit = limit(max_tokens, own, usual=own)
        self._vocabulary = self._tokenizer.get_vocab_size(with_added_tokens=True)
        sample = self._computed([self.read("a", "b" if scores else None, truncate=True)])
        if scores and sample.shape[-1] != 1:
            raise CannotLoad(f"This model has {sample.shape[-1]} outputs; a model that ranks documents has one.")
        self.width = int(sample.shape[-1])

    def read(self, text: str | list[int], pair: str | None, *, truncate: bool) -> Tokens:
        if isinstance(text, list):
            check_tokens(text, self._vocabulary)
            ids, types = text, [0] * len(text)
        else:
            encoding = self._tokenizer.encode(text) if pair is None else self._tokenizer.encode(text, pair)
            ids, types = encoding.ids, encoding.type_ids
        if len(ids) <= self._limit:
            return Tokens(ids, types)
        if not truncate:
            raise TooLong(len(ids), self._limit)
        # The last token ends the text, as in a text that fits.
        end = slice(-1, None) if isinstance(text, str) else slice(0, 0)
        kept = self._limit - len(ids[end])
        if pair is not None and types.count(0) >= kept:
            raise TooLong(types.count(0), self._limit)
        return Tokens([*ids[:kept], *ids[end]], [*types[:kept], *types[end]], truncated=True)

    def encode(self, batch: Sequence[Tokens]) -> Vectors:
        computed = self._computed(batch)
        if self._scores:
            return (1 / (1 + np.exp(-computed))).astype(np.float32)
        return unit(computed)

    def _computed(self, batch: Sequence[Tokens]) -> Vectors:
        """Return one row for each text: its logits, or its pooled vector after the dense layers."""
        longest = max(len(text.ids) for text in batch)
        shape = len(batch), longest
        given = {name: np.zeros(shape, np.int64) for name in (bert_graph.IDS, bert_graph.MASK, bert_graph.TYPES)}
        for row, text in enumerate(batch):
            given[bert_graph.IDS][row, : len(text.ids)] = text.ids
            given[bert_graph.MASK][row, : len(text.ids)] = 1
            given[bert_graph.TYPES][row, : len(text.ids)] = text.types
        mask = given[bert_graph.MASK]
        given["position_ids"] = np.broadcast_to(np.arange(longest, dtype=np.int64), shape)
        feed = {name: value for name, value in given.items() if name in self._inputs}
        (out,) = self._session.run([self._output], feed)
        rows: Vectors = np.asarray(out, np.float32)
        if rows.ndim == 3:  # noqa: PLR2004  # texts, tokens, columns
            rows = pooled(rows, mask, self._pooling)
        for layer in self._dense:
            rows = layer(rows)
        return rows


def pooled(hidden: Vectors, mask: npt.NDArray[np.int64], how: str) -> Vectors:
    """Return one vector for each text from those of its tokens: [texts, tokens, columns] becomes [texts, columns]."""
    real = mask[:, :, None].astype(np.float32)
    rows: Vectors
    match how:
        case "cls":
            rows = hidden[:, 0]
        case "last":
            rows = hidden[np.arange(len(hidden)), np.maximum(mask.sum(axis=1) - 1, 0)]
        case "max":
            rows = np.where(real > 0, hidden, np.float32(-math.inf)).max(axis=1)
        case _:
            rows = (hidden * real).sum(axis=1) / np.maximum(real.sum(axis=1), 1)
    return rows


def _tokenizer(folder: Path) -> Tokenizer:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise CannotLoad(f"{file} is missing. Use a model with a fast tokenizer.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # no particular class
        raise CannotLoad(f"{file} cannot be read: {first_line(error)}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _session(found: SentenceFolder) -> tuple[onnxruntime.InferenceSession, str]:
    """Return a session of the folder's ONNX file, or of a graph made from its weights, and the output to read."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors; warnings are about how a graph was exported
    # Its threads would wait by spinning, and take the processor from this server and its clients.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    ready = next((found.folder / graph for graph in GRAPHS if (found.folder / graph).is_file()), None)
    try:
        if ready is not None:
            session = onnxruntime.InferenceSession(str(ready), settings, providers=["CPUExecutionProvider"])
            names = [each.name for each in session.get_outputs()]
            wanted = ("sentence_embedding", bert_graph.HIDDEN, "token_embeddings", bert_graph.LOGITS)
            return session, next((name for name in wanted if name in names), names[0])
        graph = bert_graph.bert_graph(found.folder, found.config)
        names = list(graph.weights)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in graph.weights.values()]
        settings.add_external_initializers(names, values)
        return onnxruntime.InferenceSession(graph.model, settings, providers=["CPUExecutionProvider"]), graph.output
    except CannotLoad:
        raise
    except Exception as error:  # ONNX Runtime's errors have no particular class
        raise CannotLoad(f"ONNX Runtime cannot load {ready or found.folder}: {first_line(error)}.") from error
