"""Cost of vocabularies of 151,936 and 262,144 tokens over HTTP: sampling, and the first structured request.

    python -m tests.bench.vocabulary [--of qwen3,gemma3] [--tokens N] [--rounds N] [--starts N] [--cached FOLDER]

The models have random weights and the real vocabularies of Qwen3 and Gemma 3, which npm has. Of sampling, an answer's
median time between two tokens counts beside that of a greedy answer in the same round, and the worker's processor time
for a token, which other programs affect less. Of the structured request, the longest gap of two streams that run when
it comes counts, beside `max_stall_ms`, and the most processor time of the worker between two tokens of a stream, which
is more than the gap would be on an idle machine, beside those of a request without a schema. Only the first request
with a schema is of interest, so each round starts a new server.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

from localapi.cli.text_table import table
from tests.bench import figures
from tests.bench.processes import OURS, Aside, ours
from tests.families.sources import fetch_vocabulary

T = TypeVar("T")
SIZES: Final = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "intermediate_size": 768,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
}
"""So small that most of a step is the vocabulary's, which is where sampling costs most beside it."""
VOCABULARIES: Final[dict[str, tuple[int, list[int]]]] = {
    "qwen3": (151_936, [151_645, 151_643]),
    "gemma3": (262_144, [106, 1]),
}
"""The width of the logits, which models pad, and the tokens that end an answer."""
GREEDY: Final = "greedy"
SAMPLINGS: Final[dict[str, dict[str, Any]]] = {
    GREEDY: {"temperature": 0},
    "temperature": {"temperature": 0.7},
    "top_p": {"temperature": 0.7, "top_p": 0.9},
    "top_k": {"temperature": 0.7, "top_k": 40},
    "min_p": {"temperature": 0.7, "min_p": 0.05},
    "top_p, top_k, min_p": {"temperature": 0.7, "top_p": 0.95, "top_k": 20, "min_p": 0.05},
    "penalties": {"temperature": 0, "presence_penalty": 0.5, "repetition_penalty": 1.1},
    "top_logprobs": {"temperature": 0, "logprobs": True, "top_logprobs": 20},
}
SCHEMA: Final = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "size": {"type": "integer"}},
    "required": ["name", "size"],
    "additionalProperties": False,
}
KINDS: Final = [{"kind": {"const": f"kind {n}"}, f"x{n}": {"type": "integer"}} for n in range(60)]
FORMS: Final[dict[str, dict[str, Any] | None]] = {
    "without one": None,
    "with a small schema": SCHEMA,
    "with one that compiles in 0.2 s": {
        "oneOf": [{"type": "object", "properties": each, "required": list(each)} for each in KINDS]
    },
}
STALL_MS: Final = 100
RUNNING: Final = 2
ALONE: Final = 40
"""Tokens of the running streams before the first request comes."""


def main() -> None:
    """Build the model, measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.vocabulary", description=description)
    parser.add_argument("--of", default=",".join(VOCABULARIES), help="vocabularies (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=40, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="of sampling, or 0 (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=3, help="rounds of structured requests (default: %(default)s)")
    parser.add_argument("--cached", type=Path, help="a folder for the vocabularies, kept for the next run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Aside() as aside:
        for name in arguments.of.split(","):
            vocabulary = (arguments.cached or Path(folder)) / name
            if not vocabulary.exists():
                fetch_vocabulary(vocabulary, name)
            model = aside(build, vocabulary, *VOCABULARIES[name], Path(folder) / f"model-{name}")
            print(f"\n{name}: {VOCABULARIES[name][0]} tokens")
            if arguments.rounds:
                for line in sampling(model, arguments.tokens, arguments.rounds):
                    print(f"  {line}", flush=True)
                print()
            for line in structure(model, arguments.starts):
                print(f"  {line}", flush=True)


def build(vocabulary: Path, width: int, ends: list[int], out: Path) -> Path:
    """Write a model with this vocabulary and random weights. `width`, `ends`: of the logits, and the tokens."""
    import mlx.core as mx  # noqa: PLC0415  # the parent process of a benchmark needs no MLX
    from mlx.utils import tree_flatten  # noqa: PLC0415
    from mlx_lm.models.qwen3 import Model, ModelArgs  # noqa: PLC0415

    out.mkdir()
    for file in vocabulary.iterdir():
        shutil.copy(file, out)
    config: dict[str, Any] = {
        **SIZES,
        "model_type": "qwen3",
        "vocab_size": width,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "eos_token_id": ends,
    }
    mx.random.seed(1)
    model = Model(ModelArgs.from_dict(config))
    found: Any = tree_flatten(model.parameters())
    weights = {name: v if v.ndim < 2 else mx.random.normal(v.shape) * 0.05 for name, v in found}
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    (out / "config.json").write_text(json.dumps(config))
    return out


def sampling(model: Path, tokens: int, rounds: int) -> Iterator[str]:
    """Yield the table of parameters."""
    seconds: dict[str, list[float]] = {name: [] for name in SAMPLINGS}
    used: dict[str, list[float]] = {name: [] for name in SAMPLINGS}
    with ours(model) as server:
        [worker] = server.workers()
        for number in range(-1, rounds):  # the first round warms up
            for name in SAMPLINGS if number % 2 else reversed(SAMPLINGS):
                before = sum(worker.cpu_times()[:2])
                moments = _moments(server.port, {**SAMPLINGS[name], "max_tokens": tokens, "stream": True})
                gaps = [after - before for before, after in itertools.pairwise(moments[1:])]
                if number >= 0:
                    seconds[name].append(statistics.median(gaps))
                    used[name].append((sum(worker.cpu_times()[:2]) - before) / tokens)
    rows = []
    for name, found in seconds.items():
        times = [f"{1000 * statistics.median(each):.1f}" for each in (found, used[name])]
        ratios = [figures.ratio(found, seconds[GREEDY]), figures.ratio(used[name], used[GREEDY])]
        rows.append([name, times[0], ratios[0], times[1], ratios[1], "1.3"])
    yield from table(["one stream", "ms/token", "beside greedy", "CPU ms/token", "beside greedy", "aim"], rows)


def structure(model: Path, rounds: int) -> Iterator[str]:
    """Yield the table of the first structured request."""
    gaps: dict[str, list[tuple[float, float]]] = {name: [] for name in ("before", *FORMS)}
    for _ in range(rounds):
        with ours(model) as server:
            [worker] = server.workers()
            found: list[list[tuple[float, float]]] = []
            body = {"temperature": 0, "max_tokens": 4000, "stream": True}
            seen = threading.Semaphore(0)

            def now(worker: psutil.Process = worker, seen: threading.Semaphore = seen) -> tuple[float, float]:
                seen.release()
                return time.perf_counter(), sum(worker.cpu_times()[:2])

            done = threading.Event()
            threads = [
                threading.Thread(target=lambda: found.append(_read(server.port, body, now, until=done)))  # noqa: B023
                for _ in range(RUNNING)
            ]
            for thread in threads:
                thread.start()
            for _ in range(ALONE):
                seen.acquire()
            times = [time.perf_counter()]
            for schema in FORMS.values():
                form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
                fields = {} if schema is None else {"response_format": form}
                _moments(server.port, {"temperature": 0, "max_tokens": 16, "stream": True, **fields})
                times.append(time.perf_counter())
            done.set()
            for thread in threads:
                thread.join()
            gaps["before"].append(_longest([events[1:] for events in found], 0.0, times[0]))
            for name, start, end in zip(FORMS, times, times[1:], strict=False):
                gaps[name].append(_longest(found, start, end))
    stall = [STALL_MS / 1000] * rounds
    rows = []
    for name, longest in gaps.items():
        seconds, used = map(list, zip(*longest, strict=True))
        rows.append([name, figures.duration(seconds), figures.ratio(seconds, stall), figures.ratio(used, stall), "2"])
    heads = [f"{RUNNING} streams, one more request", "longest gap", "beside max_stall_ms", "CPU", "aim"]
    yield from table(heads, rows)


def _longest(streams: list[list[tuple[float, float]]], start: float, end: float) -> tuple[float, float]:
    """Return the longest time between two events, and the most processor time, which may be of two others."""
    pairs = [
        pair for events in streams for pair in itertools.pairwise(events) if pair[1][0] > start and pair[0][0] < end
    ]
    return max(b[0] - a[0] for a, b in pairs), max(b[1] - a[1] for a, b in pairs)


def _moments(port: int, fields: dict[str, Any]) -> list[float]:
    return _read(port, fields, time.perf_counter)


def _read(port: int, fields: dict[str, Any], now: Callable[[], T], *, until: threading.Event | None = None) -> list[T]:
    """Return what `now` gave at each event of a stream. `until`: hang up after that."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    messages = [{"role": "user", "content": "Tell me a story."}]
    body = json.dumps({"model": OURS, "messages": messages, **fields}).encode()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    moments = []
    for line in reply:
        if line.startswith(b"data: {"):
            moments.append(now())
        if until is not None and until.is_set():
            break
    connection.close()
    return moments


if __name__ == "__main__":
    main()
