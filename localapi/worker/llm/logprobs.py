"""Log probabilities as in OpenAI's API: of the sampled token, and of the likeliest others."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from localapi.worker.protocol import TokenLogprob, TopLogprob

TokenBytes = Callable[[int], bytes]
LEAST = -9999.0
"""The value for an impossible token, because JSON has no infinity. OpenAI uses -9999.0, too."""


def token_logprob(token: int, logprobs: mx.array, top: int, token_bytes: TokenBytes) -> TokenLogprob:
    """Return the sampled token and the `top` likeliest. `logprobs` (vocabulary,) must be evaluated."""
    drawn = _finite(logprobs[token].item())
    return TokenLogprob(token_bytes(token), drawn, _likeliest(logprobs, top, token_bytes))


def _likeliest(logprobs: mx.array, top: int, token_bytes: TokenBytes) -> list[TopLogprob]:
    if top == 0:
        return []
    top = min(top, logprobs.shape[-1])
    tokens = mx.argpartition(-logprobs, kth=top - 1)[:top]
    values = logprobs[tokens]
    mx.eval(tokens, values)
    pairs = zip(cast("list[int]", tokens.tolist()), cast("list[float]", values.tolist()), strict=True)
    ordered = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    return [TopLogprob(token_bytes(token), _finite(value)) for token, value in ordered]


def _finite(value: object) -> float:
    return max(cast("float", value), LEAST)
