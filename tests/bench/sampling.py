"""Milliseconds to choose a token from a large vocabulary, with each parameter, beside a sort of all tokens.

    python -m tests.bench.sampling [--tokens 151936,262144] [--rounds N]

The logits are random, so no model is needed. What counts is the time beside that of a step of the model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Final

import mlx.core as mx
from mlx_lm.sample_utils import apply_top_p, greedy_sampler

from localapi.cli.text_table import table
from localapi.worker.llm.sampling import sampler_for, token_logprob
from localapi.worker.protocol import Sampling

SAMPLINGS: Final = {
    "temperature": Sampling(0.7),
    "top_p": Sampling(0.7, top_p=0.9),
    "top_k": Sampling(0.7, top_k=40),
    "min_p": Sampling(0.7, min_p=0.05),
    "top_p, top_k, min_p": Sampling(0.7, top_p=0.95, top_k=20, min_p=0.05),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sampling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", default="151936,262144", help="sizes of the vocabulary (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="of which the fastest counts (default: %(default)s)")
    arguments = parser.parse_args()
    for tokens in map(int, arguments.tokens.split(",")):
        print(f"\n{tokens} tokens")
        for line in table(["", "ms"], measured(tokens, arguments.rounds)):
            print(f"  {line}", flush=True)


def measured(tokens: int, rounds: int) -> list[list[str]]:
    """Return a row for each way to choose a token."""
    logits = mx.random.normal((1, tokens), key=mx.random.key(0)) * 3
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    mx.eval(logits, logprobs)
    work: dict[str, Callable[[], mx.array | None]] = {
        "greedy": lambda: greedy_sampler(logits),
        "top_p by a sort": lambda: mx.random.categorical(apply_top_p(logprobs, 0.9) / 0.7),
        "log probabilities": lambda: _report(logprobs[0]),
    }
    for name, sampling in SAMPLINGS.items():
        sampler = sampler_for(sampling)
        work[name] = lambda sampler=sampler: sampler(logits)  # type: ignore[misc]
    return [[name, f"{1000 * _fastest(each, rounds):.2f}"] for name, each in work.items()]


def _report(logprobs: mx.array) -> None:
    token_logprob(0, logprobs, 20, lambda _: b"")


def _fastest(work: Callable[[], mx.array | None], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        result = work()
        if result is not None:
            mx.eval(result)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
