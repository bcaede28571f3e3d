"""Embeddings and scores on MLX: models that are built like chat models, such as Qwen3-Embedding and Qwen3-Reranker.

A vector is the output at the position of the last token. A score is the probability of "yes" relative to "no", as in
the model card of Qwen3-Reranker (https://huggingface.co/Qwen/Qwen3-Reranker-0.6B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import mlx.core as mx
import numpy as np

from localapi.worker.hub.repository import located
from localapi.worker.llm.weights import load_suited
from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Loading
from localapi.worker.vectors import sentence_folder
from localapi.worker.vectors.batches import Tokens, TooLong, VectorModel, Vectors, check_tokens, limit, unit
from localapi.worker.vectors.sentence_folder import SentenceFolder, described

BIDIRECTIONAL: Final = "use_bidirectional_attention"
JUDGE: Final = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
ANSWER: Final = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION: Final = "Given a web search query, retrieve relevant passages that answer the query"


def load(options: dict[str, Any], host: Host) -> VectorModel:
    """Return the model of an entry's options. Raise CannotLoad."""
    scores = bool(options.get("scores"))
    found = described(located(options["path"], options.get("revision"), host.report, patterns=sentence_folder.PATTERNS))
    if found.pooling not in (None, "last"):
        raise CannotLoad(
            f"This model pools by {found.pooling!r}, and the backend mlx-lm by the last token. Use the backend onnx."
        )
    if found.config.get(BIDIRECTIONAL):
        raise CannotLoad(
            "This model reads its text in both directions, which mlx-lm's layers do not. Use the backend onnx with a "
            "model that has an ONNX file."
        )
    loaded = load_suited(options["path"], options.get("revision"), host)
    host.report(Loading(phase="computing for the first time"))
    encoder = MlxEncoder(loaded.model, loaded.tokenizer, found, options)
    return VectorModel(encoder, scores=scores)


class MlxEncoder:
    """A network of mlx-lm. See `encoder.Encoder`."""

    def __init__(self, model: Any, tokenizer: Any, found: SentenceFolder, options: dict[str, Any]) -> None:
        """Create an encoder from the entry's options. Raise CannotLoad."""
        self._scores = bool(options.get("scores"))
        self._model = model
        self._body = getattr(model, "model", None)
        if self._body is None and not self._scores:
            raise CannotLoad("mlx-lm gives no hidden states for this architecture. Use another model.")
        self._tokenizer = tokenizer
        self._vocabulary = max(tokenizer.get_vocab().values()) + 1
        self._dense = found.dense
        self._instruction = options.get("instruction") or INSTRUCTION
        own = found.max_tokens or found.config.get("max_position_embeddings") or 8192
        self._limit = limit(options.get("max_tokens"), own, usual=min(own, 8192))
        self._end: list[int] = []
        if self._scores:
            self._answers = [_only(tokenizer, word) for word in ("no", "yes")]
            self._judge, self._answer = self._plain(JUDGE), self._plain(ANSWER)
        else:
            bare, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
            if whole[-1] != bare[-1]:
                self._end = [whole[-1]]  # the tokenizer ends texts with the token from which the vector is taken
        self.width = self.encode([self.read("a", "b" if self._scores else None, truncate=True)]).shape[-1]

    def read(self, text: str | list[int], pair: str | None, *, truncate: bool) -> Tokens:
        before: list[int] = []
        after: list[int] = []
        question = ""
        if isinstance(text, list):
            check_tokens(text, self._vocabulary)
            ids = text
        elif pair is None:
            ids = self._tokenizer.encode(text, add_special_tokens=True)
            if self._end and ids[-1:] == self._end:
                ids, after = ids[:-1], self._end
        else:
            question = f"<Instruct>: {self._instruction}\n<Query>: {text}\n<Document>:"
            # One text, because the space belongs to the first token of the document.
            ids = self._plain(f"{question} {pair}")
            before, after = self._judge, self._answer
        room = self._limit - len(before) - len(after)
        if len(ids) > room and (not truncate or room <= len(self._plain(question))):
            raise TooLong(len(before) + len(ids) + len(after), self._limit)
        return Tokens([*before, *ids[:room], *after], [], truncated=len(ids) > room)

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode(self, batch: Sequence[Tokens]) -> Vectors:
        longest = max(len(text.ids) for text in batch)
        # Padding is at the end, where no token of the text sees it.
        ids = mx.array([[*text.ids, *[0] * (longest - len(text.ids))] for text in batch])
        rows, ends = mx.arange(len(batch)), mx.array([len(text.ids) - 1 for text in batch])
        if self._scores:
            logits = self._model(ids)[rows, ends][:, mx.array(self._answers)].astype(mx.float32)
            return np.array(mx.softmax(logits, axis=-1)[:, 1:], np.float32)
        assert self._body is not None  # noqa: S101  # checked above
        out = np.array(self._body(ids)[rows, ends].astype(mx.float32))
        for layer in self._dense:
            out = layer(out)
        return unit(out)


def _only(tokenizer: Any, word: str) -> int:
    """Return the token of a word. Raise CannotLoad if it is not one token."""
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        raise CannotLoad(f"This model cannot rank documents: {word!r} is not one token of its vocabulary.")
    return int(ids[0])
