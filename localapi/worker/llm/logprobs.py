"""Log probabilities as OpenAI gives them: of the token that was drawn, and of the likeliest others."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from localapi.worker.protocol import TokenLogprob, TopLogprob

TokenBytes = Callable[[int], bytes]
LEAST = -9999.0
"""For a token that cannot come: JSON has no infinity. OpenAI says -9999.0 too."""


def token_logprob(token: int, logprobs: mx.array, top: int, token_bytes: TokenBytes) -> TokenLogprob:
    """The drawn token, and the `top` likeliest. `logprobs` (vocabulary,) is evaluated already."""
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
