"""Texts of several requests, computed together: the worker's model for every engine that computes vectors.

Requests take turns, text by text, so that a short request need not wait for a long one. Texts of similar length are
computed together, because a batch takes as long as its longest text for each of them.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from localapi.worker.model import CannotLoad, first_line
from localapi.worker.protocol import Embed, Embedded, Event, Failed, Loaded, Ranked, Request, Rerank

Vectors = npt.NDArray[np.float32]
"""One row for each text."""


@dataclass(frozen=True)
class Tokens:
    """Text as the network reads it."""

    ids: list[int]
    types: list[int]
    """Segment ids: 0 for the first text of a pair, 1 for the second; all 0 for a single text."""
    truncated: bool = False


class TooLong(ValueError):
    """A text has more tokens than the model accepts, and must not be truncated."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"it has {count} tokens, but the model accepts at most {limit}")


def check_tokens(tokens: Sequence[int], vocabulary: int) -> None:
    """Raise ValueError if one of the tokens is not in a vocabulary of this size."""
    wrong = [token for token in tokens if not 0 <= token < vocabulary]
    if wrong:
        raise ValueError(f"the model has no token {wrong[0]}; its tokens are 0 to {vocabulary - 1}")


def limit(wanted: int | None, own: int, *, usual: int) -> int:
    """Return the maximum tokens of a text: the entry's, or `usual`. Raise CannotLoad if it exceeds the model's own."""
    if wanted is not None and wanted > own:
        raise CannotLoad(f"max_tokens is {wanted}, but the model accepts at most {own} tokens.")
    return wanted or usual


class Encoder(Protocol):
    """A loaded network with its tokenizer."""

    @property
    def width(self) -> int:
        """Number of columns of the vectors; 1 for a model that scores."""

    def read(self, text: str | list[int], pair: str | None, *, truncate: bool) -> Tokens:
        """Return the tokens of a text, or of a pair. Raise TooLong, and ValueError for tokens that do not exist."""

    def encode(self, batch: Sequence[Tokens]) -> Vectors:
        """Return the network's output for each text: a vector of length 1, or a score from 0 to 1."""


BATCH_TOKENS: Final = 4096
"""Maximum tokens of a batch, including padding. More do not make a text cheaper, and delay other requests."""
BATCH_TEXTS: Final = 64
MOST_PADDING: Final = 1.25
"""Maximum tokens of a batch with padding, relative to those of its texts, because padding takes as long as text."""
SMALL_TOKENS: Final = 256
"""Tokens of a batch, including padding, below which starting another batch would take longer."""
AHEAD_TEXTS: Final = 256
"""Texts that are read ahead, so that there are some of similar length."""
TOLERANCE: Final = 1e-3
"""Maximum difference between a text's vectors computed alone and in a batch."""
PROBES: Final = ("A cat sits on the mat.", "Machines of this kind must agree with themselves, whatever is beside them.")


@dataclass(eq=False)
class Job:
    """Request with texts that are not computed yet."""

    request: Embed | Rerank
    next: int = 0
    """Index of the first text that has not been read."""
    vectors: dict[int, Vectors] = field(default_factory=dict)
    """Computed vectors by index of the text."""
    tokens: int = 0
    truncated: list[int] = field(default_factory=list)

    @property
    def texts(self) -> Sequence[str | list[int]]:
        return self.request.inputs if isinstance(self.request, Embed) else self.request.documents

    def place(self, index: int) -> str:
        """Return where a text is in the request, for messages."""
        return f"{'input' if isinstance(self.request, Embed) else 'documents'}[{index}]"


@dataclass(frozen=True)
class Text:
    """Text that has been read, but not computed."""

    job: Job
    index: int
    tokens: Tokens


class VectorModel:
    """One loaded encoder. See `worker.model.Model`."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        scores: bool,
        notes: Sequence[str] = (),
        at_once: int = 1,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Start a model. Raise CannotLoad if the encoder computes wrong vectors.

        If `scores`, the encoder reads pairs and returns their scores. `at_once` is the number of batches that it
        computes at the same time, each in its own thread; a single one is computed in the thread that calls `step`.
        `wake` is called from these threads when a batch is computed.
        """
        self._encoder = encoder
        self._jobs: deque[Job] = deque()
        self._read: list[Text] = []
        self._threads = ThreadPoolExecutor(at_once) if at_once > 1 else None
        self._free = at_once
        """Number of batches that can be started now."""
        self._computed: SimpleQueue[tuple[list[Text], Vectors | Exception]] = SimpleQueue()
        self._wake = wake
        check(encoder, scores=scores)
        self.loaded = Loaded(notes=list(notes), dimensions=None if scores else encoder.width)

    waiting = tokens = 0

    @property
    def busy(self) -> bool:
        if not self._computed.empty():
            return True
        return self._free > 0 and (bool(self._read) or any(job.next < len(job.texts) for job in self._jobs))

    def take(self, request: Request) -> None:
        assert isinstance(request, Embed | Rerank), request  # noqa: S101  # the server sends no others here
        self._jobs.append(Job(request))

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        self._jobs = deque(job for job in self._jobs if job.request.id != id)
        self._read = [text for text in self._read if text.job.request.id != id]

    def step(self) -> list[Event]:
        """Start as many batches as can be computed at once, and return the results of computed ones."""
        events: list[Event] = [*self._results()]
        while self._free:
            events += self._read_ahead()
            batch = self._next_batch()
            if not batch:
                break
            self._free -= 1
            if self._threads is None:
                self._compute(batch)
            else:
                self._threads.submit(self._compute, batch)
        return [*events, *self._results()]

    def _compute(self, batch: list[Text]) -> None:
        try:
            vectors: Vectors | Exception = self._encoder.encode([text.tokens for text in batch])
        except Exception as error:  # from the engine, such as insufficient memory
            traceback.print_exc()
            vectors = error
        self._computed.put((batch, vectors))
        self._wake()

    def _results(self) -> Iterator[Event]:
        """Yield the replies completed by the batches computed since the last call, and the failures."""
        while not self._computed.empty():
            batch, vectors = self._computed.get()
            self._free += 1
            asked = {text.job for text in batch}
            concerned = [job for job in self._jobs if job in asked]  # others were cancelled meanwhile
            if isinstance(vectors, Exception):
                for job in concerned:
                    self.cancel(job.request.id)
                    yield Failed(job.request.id, "generation_failed", f"The model failed: {first_line(vectors)}.")
                continue
            for text, vector in zip(batch, vectors, strict=True):
                text.job.vectors[text.index] = vector
            for job in concerned:
                if len(job.vectors) == len(job.texts):
                    self._jobs.remove(job)
                    yield answer(job)

    def save_some(self) -> bool:
        return False

    def _read_ahead(self) -> Iterator[Failed]:
        """Read texts, one of each request in turn. Yield the failures of requests with an unreadable text."""
        unread = deque(job for job in self._jobs if job.next < len(job.texts))
        while unread and len(self._read) < AHEAD_TEXTS:
            job = unread.popleft()
            try:
                tokens = self._tokens(job)
            except (ValueError, OverflowError) as error:
                self.cancel(job.request.id)
                param = job.place(job.next)
                message = f"{param} cannot be read: {error}."
                if isinstance(error, TooLong):
                    message += " Shorten it, or set `truncate`."
                    yield Failed(job.request.id, "context_length_exceeded", message, param=param)
                else:
                    yield Failed(job.request.id, "invalid_request", message, param=param)
                continue
            job.tokens += len(tokens.ids)
            if tokens.truncated:
                job.truncated.append(job.next)
            self._read.append(Text(job, job.next, tokens))
            job.next += 1
            if job.next < len(job.texts):
                unread.append(job)

    def _tokens(self, job: Job) -> Tokens:
        request = job.request
        if isinstance(request, Embed):
            return self._encoder.read(request.inputs[job.next], None, truncate=request.truncate)
        return self._encoder.read(request.query, request.documents[job.next], truncate=request.truncate)

    def _next_batch(self) -> list[Text]:
        """Take the text that has waited longest, and those of the nearest lengths."""
        if not self._read:
            return []
        length = len(self._read[0].tokens.ids)
        by_distance = sorted(self._read[1:], key=lambda text: abs(len(text.tokens.ids) - length))
        batch, longest, real = [self._read[0]], length, length
        for text in by_distance:
            longest, real = max(longest, len(text.tokens.ids)), real + len(text.tokens.ids)
            padded = longest * (len(batch) + 1)
            if len(batch) == BATCH_TEXTS or padded > BATCH_TOKENS or padded > max(SMALL_TOKENS, MOST_PADDING * real):
                break
            batch.append(text)
        chosen = {id(text) for text in batch}
        self._read = [text for text in self._read if id(text) not in chosen]
        return batch


def answer(job: Job) -> Embedded | Ranked:
    """Return the reply of a complete job."""
    request = job.request
    vectors = [job.vectors[index] for index in range(len(job.texts))]
    if isinstance(request, Rerank):
        return Ranked(request.id, [float(each[0]) for each in vectors], job.tokens, job.truncated)
    if request.dimensions is not None:
        vectors = [unit(each[: request.dimensions]) for each in vectors]
    return Embedded(request.id, [each.astype("<f4").tobytes() for each in vectors], job.tokens, job.truncated)


def unit(vectors: Vectors) -> Vectors:
    """Return vectors, or one vector, scaled to length 1; zeros remain zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


def check(encoder: Encoder, *, scores: bool) -> None:
    """Compute the same texts alone and together. Raise CannotLoad if the results are not finite or not equal.

    On some processors, MLX computed different vectors for the same text in the same process.
    """
    pairs = [(PROBES[0], text) if scores else (text, None) for text in PROBES]
    texts = [encoder.read(text, pair, truncate=True) for text, pair in pairs]
    runs = [np.concatenate([encoder.encode([text]) for text in texts]) for _ in range(2)]
    runs.append(encoder.encode(texts))
    for run in runs:
        off = float(np.max(np.abs(run - runs[0]))) if np.all(np.isfinite(run)) else float("nan")
        if not off <= TOLERANCE:
            raise CannotLoad(
                f"This model computes wrong numbers on this machine: the same text gave results that differ by "
                f"{off:.2g}. Use another backend for it."
            )
